"""Estimates before a sweep: in proportion to the work, corrected by what is stored."""

import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import estimate, results, runner
from simrlhf.study.spec import load_study
from simrlhf.study.store import Stored


def _needs(study: str, *overrides: str, stored: Stored, processes: int = 1) -> estimate.Estimate:
    plan = runner.plan_study(load_study(study, overrides=overrides), ())
    return estimate.estimate(plan.draws, stored, stored_bytes=0, processes=processes)


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


def test_stored_rows_set_the_scale_of_the_time(study, sweep, tmp_path) -> None:
    """Four rows of 10 ms each foretell 160 rows; one slow row among them changes nothing."""
    sweep(study, tmp_path, "repetitions=1")
    stored = results.open_store("mine", tmp_path).read()
    rows = stored.rows.assign(seconds=0.01)
    foretold = _needs(study, "repetitions=40", stored=stored._replace(rows=rows))
    assert foretold.calibrated
    assert foretold.seconds == pytest.approx(160 * 0.01)
    rows = pd.concat([rows, rows, rows])
    rows.iloc[0, rows.columns.get_loc("seconds")] = 100.0
    again = _needs(study, "repetitions=40", stored=stored._replace(rows=rows))
    assert again.seconds == pytest.approx(foretold.seconds)
    # kernels for other sizes are not compiled yet
    assert _needs(study, "repetitions=1", "d1=8", stored=stored).seconds > 2 * estimate._COMPILATION


def test_each_estimator_has_a_scale_of_its_own(study, sweep, tmp_path) -> None:
    sweep(study, tmp_path)
    stored = results.open_store("mine", tmp_path).read()
    rows = stored.rows.assign(seconds=stored.rows["estimator"].map({"share_b": 1.0, "full": 9.0}))
    found = {
        name: _needs(study, f"estimators=['{name}']", stored=stored._replace(rows=rows)).seconds
        for name in ("share_b", "full")
    }
    assert found == pytest.approx({"share_b": 6.0, "full": 54.0})


def test_matrices_of_side_d1_are_counted(study, nothing) -> None:
    wide = _needs(study, "d1=4000", "estimators=['share_b']", stored=nothing)
    # measured: 0.92 GB in all
    assert 0.5e9 + 10 * 8 * 4000**2 < wide.memory < 3e9


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
