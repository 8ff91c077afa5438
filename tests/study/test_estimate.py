"""Estimates before a sweep: in proportion to the work, corrected by what is stored."""

import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import estimate, results, runner
from simrlhf.study.spec import load_study
from simrlhf.study.store import Stored


def _needs(study: str, *overrides: str, stored: Stored, processes: int = 1) -> estimate.Estimate:
    plan = runner.plan_study(load_study(study, overrides=overrides), ())
    return estimate.estimate(plan.tasks, stored, stored_bytes=0, processes=processes)


@pytest.fixture
def nothing(tmp_path) -> Stored:
    return results.open_store("mine", tmp_path).read()


def test_time_and_disk_grow_with_the_work_and_memory_with_the_largest_task(study, nothing) -> None:
    small = _needs(study, stored=nothing)
    longer = _needs(study, "repetitions=300", stored=nothing)
    larger = _needs(study, "n_users=9000", "n_pairs=600", stored=nothing)
    assert longer.disk == pytest.approx(100 * small.disk)
    # compilation is paid once
    assert 10 * small.seconds > longer.seconds > small.seconds
    assert small.memory < longer.memory < small.memory + estimate._BYTES_PER_TASK < larger.memory
    assert _needs(study, "repetitions=30000", stored=nothing).memory < larger.memory
    # 9000 users, 600 pairs, 5 features, 8 bytes, at least the four copies
    assert larger.memory > 4 * 8 * 9000 * 600 * 5
    halved = _needs(study, "repetitions=300", stored=nothing, processes=2)
    assert halved.seconds == pytest.approx(longer.seconds / 2)
    assert not small.calibrated


def test_stored_rows_set_the_scale_of_the_time(study, sweep, tmp_path, nothing) -> None:
    sweep(study, tmp_path)
    stored = results.open_store("mine", tmp_path).read()
    taken = stored.rows["seconds"].sum()
    again = _needs(study, stored=stored)
    assert again.calibrated
    assert again.seconds == pytest.approx(taken)
    slower = stored._replace(rows=stored.rows.assign(seconds=stored.rows["seconds"] * 7))
    assert _needs(study, stored=slower).seconds == pytest.approx(7 * taken)


def test_what_cannot_fit_into_the_machine_is_refused_in_a_line(study, nothing) -> None:
    huge = _needs(study, "n_users=10000000", "n_pairs=1000000", stored=nothing)
    with pytest.raises(InputError, match=r"needs about [\d.]+ TB of memory, this machine has"):
        estimate.require_memory(huge)
    estimate.require_memory(_needs(study, stored=nothing))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (59.6, "60 s"), (1800, "30 min"), (9000, "2.5 h"), (864000, "10 days")],
)
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert estimate.duration(seconds) == text
