"""The sweep: only what is missing is computed, and what it cannot do it says in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import cells, cluster, commands, estimate, provenance, results, runner, terminal
from simrlhf.study.spec import load_study


def _missing(study: str, out: Path, *overrides: str) -> int:
    spec = load_study(study, overrides=overrides)
    return runner.plan_study(spec, results.open_store("mine", out).keys()).n_missing


def test_a_second_sweep_computes_nothing_and_a_larger_one_only_what_is_new(
    study: str, sweep, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert _missing(study, out) == 12
    rows = sweep(study, out)
    assert len(rows) == 12
    assert _missing(study, out) == 0
    assert _missing(study, out, "repetitions=4") == 4
    assert _missing(study, out, "n_pairs=[30, 60, 90]") == 6
    assert _missing(study, out, "world.nu=2.0") == 12  # another world shares nothing
    assert _missing(study, out, "metrics=['recovery']") == 12  # nor do rows of other columns
    files = sorted((out / "mine" / "rows").iterdir())
    again = sweep(study, out)
    assert files == sorted((out / "mine" / "rows").iterdir())
    pd.testing.assert_frame_equal(rows, again)


def test_a_row_does_not_depend_on_what_else_the_sweep_computes(
    study: str, sweep, tmp_path: Path
) -> None:
    alone = sweep(study, tmp_path / "a", "n_pairs=[30]", "estimators=['share_b']")
    among = sweep(study, tmp_path / "b")
    among = among[among["key"].isin(alone["key"])].reset_index(drop=True)
    for column in ("subspace_distance", "reward_error", "neg_log_likelihood"):
        # the sums run over another padding; the optimum is held to 1e-8 in gradient
        np.testing.assert_allclose(alone[column], among[column], rtol=1e-5)
    assert list(alone["key"]) == list(among["key"])


def _handed_out(spec, store, seconds) -> list[int]:
    """Draws in each task of a sweep in which nothing is computed."""
    seen: list[int] = []

    def instant(_cell: str, tasks):
        for task in tasks:
            seen.append(len(task.draws))
            rows = cells.failed_rows(task.draws, "not computed")
            yield task, runner.Answer(rows, seconds(task), {"code": "x"})

    plan = runner.plan_study(spec, store.keys())
    runner.run_study(spec, store, plan, executor=instant)
    assert len(store.read().rows) == plan.n_missing
    return seen


# 4 users, 60 pairs and 5 features of 8 bytes: one draw holds two sizes in five copies
@pytest.mark.parametrize(("held", "sizes"), [(10**6, [1, 4, 4, 3]), (3 * 48_000, [1, 3, 3, 3, 2])])
def test_tasks_grow_until_they_are_worth_storing_or_fill_their_memory(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, sizes: list[int]
) -> None:
    """Draws that take 0.1 s each come in tasks of four, the first alone: nothing is known of it."""
    monkeypatch.setattr(estimate, "_BYTES_PER_TASK", held)
    spec = load_study(study, overrides=["repetitions=12"])
    store = results.open_store("mine", tmp_path)
    taken = _handed_out(spec, store, lambda task: 0.1 * len(task.draws))
    assert taken == sizes


def test_points_of_one_shape_share_tasks_and_others_do_not(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ["nu=[0.5, 1.0, 2.0]", "n_users=[4, 6]", "repetitions=3"]
    spec = load_study(study, overrides=grid)
    store = results.open_store("mine", tmp_path)
    taken = _handed_out(spec, store, lambda task: 0.05 * len(task.draws))
    assert taken == [1, 8, 1, 8]


def test_a_crash_says_nothing_of_the_time_that_draws_take(study: str) -> None:
    spec = load_study(study, overrides=["repetitions=20"])
    seen = []

    def crashes_first(_cell: str, tasks):
        for task in tasks:
            seen.append(len(task.draws))
            crash = "KilledWorker" if len(seen) == 1 else None
            rows = [] if crash else cells.failed_rows(task.draws, "not computed")
            yield task, runner.Answer(rows, 0.0 if crash else 0.5 * len(task.draws), {}, crash)

    class Nowhere:
        def write(self, *_, **__) -> None: ...

    plan = runner.plan_study(spec, ())
    tally = runner.run_study(spec, Nowhere(), plan, executor=crashes_first)  # type: ignore[arg-type]
    assert tally == (80, 80)
    assert seen == [1] * 20


def test_an_estimator_is_compiled_once_for_each_number_of_users(
    study: str, sweep, tmp_path: Path
) -> None:
    from simrlhf.estimators.kernels import solve_one

    # points with fewer pairs are padded to the largest of their number of users
    zipped = ("n_pairs=[30, 45, 60]", "nu=[0.5, 1.0, 2.0]", "zip=['n_pairs', 'nu']")
    grid = (*zipped, "n_users=[4, 5]", "repetitions=4", "d1=9")
    before = solve_one._cache_size()
    sweep(study, tmp_path, *grid, "estimators=['share_b', 'full', 'oracle']")
    assert solve_one._cache_size() - before == 2 * 3


def _plant_a_failure(monkeypatch: pytest.MonkeyPatch, estimator: str) -> None:
    honest = cells.recovery

    def broken(world, result):
        if result.estimator == estimator:
            raise FloatingPointError("planted")
        return honest(world, result)

    monkeypatch.setattr(cells, "recovery", broken)


def test_failures_are_rows_that_are_counted_shown_and_tried_again_on_request(
    study: str,
    sweep,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = commands.SweepOptions(out=tmp_path / "out")
    with monkeypatch.context() as planted:
        _plant_a_failure(planted, "full")
        assert commands.sweep(study, size="smoke", overrides=(), options=options) == 6
    said = capsys.readouterr()
    assert "6 of 12 rows FAILED: FloatingPointError: planted" in said.out
    assert "6 failed" in said.err
    rows = results.load_results("mine", tmp_path / "out")
    failed = rows[rows["estimator"] == "full"]
    assert failed["status"].eq("FAILED").all()
    assert failed["subspace_distance"].isna().all()
    assert rows.loc[rows["estimator"] == "share_b", "subspace_distance"].notna().all()
    # a plain rerun keeps them, and still says so
    assert commands.sweep(study, size="smoke", overrides=(), options=options) == 6
    healed = sweep(study, tmp_path / "out", retry_failed=True)
    assert healed["status"].eq("CONVERGED").all()
    assert healed["subspace_distance"].notna().all()


@pytest.fixture
def other_program(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on this process is a changed program."""
    facts = provenance.provenance() | {"code": "0123456789ab"}

    def change() -> None:
        monkeypatch.setattr(provenance, "provenance", lambda: facts)

    return change


def test_a_finished_sweep_says_that_another_program_made_its_rows(
    study: str, sweep, tmp_path: Path, other_program, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sweep(study, out)
    code = provenance.provenance()["code"]
    other_program()
    capsys.readouterr()
    assert len(sweep(study, out)) == 12  # nothing is added: they are of one program
    said = [line for line in capsys.readouterr().out.splitlines() if "0123456789ab" in line]
    assert len(said) == 1
    assert "of these rows 12 by simrlhf" in said[0]
    assert f"(code {code};" in said[0]
    assert "anew with another --out, or accept them as they are with --mixed" in said[0]
    # who accepts them, or computes them with the program that runs, hears nothing of it
    sweep(study, out, mixed=True)
    sweep(study, tmp_path / "other")
    sweep(study, tmp_path / "other")
    assert "not by the program" not in capsys.readouterr().out


def test_a_sweep_does_not_go_on_with_rows_of_another_program_unless_told(
    study: str, sweep, tmp_path: Path, other_program
) -> None:
    out = tmp_path / "out"
    sweep(study, out)
    other_program()
    with pytest.raises(InputError, match=r"12 by simrlhf .*the others would be by .*0123456789ab"):
        sweep(study, out, "repetitions=4")
    assert len(sweep(study, out, "repetitions=4", mixed=True)) == 16
    # who accepted them once reads them without being asked again, also after a plain rerun
    assert len(sweep(study, out, "repetitions=4")) == 16
    # and goes on with them where that sweep stopped
    results.write_manifest(load_study(study, overrides=["repetitions=6"]), out, mixed=True)
    commands.sweep("mine", options=commands.SweepOptions(out=out), resume=True)
    assert len(results.load_results("mine", out)) == 24
    # who did not is refused
    results.write_manifest(load_study(study, overrides=["repetitions=4"]), out)
    with pytest.raises(InputError, match=r"12 by simrlhf .*; 4 by simrlhf .*--mixed"):
        results.load_results("mine", out)
    assert len(results.load_results("mine", out, mixed=True)) == 16


def test_missing_rows_are_counted_and_damaged_files_named(
    study: str, sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str], assert_same_rows
) -> None:
    whole = sweep(study, tmp_path)
    path = sorted((tmp_path / "mine" / "rows").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"of 12 rows .* are missing \(damaged: .*{path.name}\)"):
        results.load_results("mine", tmp_path)
    capsys.readouterr()
    assert_same_rows(sweep(study, tmp_path), whole)
    assert f"damaged, set aside, its rows are computed again: {path.parent}" in (
        capsys.readouterr().out
    )


def test_a_sweep_with_nothing_to_compute_changes_no_file_and_names_damaged_ones(
    study: str, sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    sweep(study, out)
    damaged = out / "mine" / "rows" / "0123.parquet"
    damaged.write_bytes(b"rows that lie elsewhere too")

    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    before = state()
    for dry in (False, True):
        sweep(study, out, dry_run=dry)
        assert f"damaged, its rows do not count: {damaged}" in capsys.readouterr().out
        assert state() == before


def test_a_sweep_that_cannot_start_leaves_the_last_one_as_it_was(
    study: str, sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 1)
    sweep(study, tmp_path)
    before = (tmp_path / "mine" / "study.json").read_bytes()
    with pytest.raises(InputError, match=r"no Dask scheduler answers"):
        sweep(study, tmp_path, "seed=9", scheduler="tcp://127.0.0.1:9")
    assert (tmp_path / "mine" / "study.json").read_bytes() == before
    assert set(results.load_results("mine", tmp_path)["seed"]) == {0}
    # one with nothing to compute is the last one all the same
    sweep(study, tmp_path, "seed=9")
    sweep(study, tmp_path, "seed=0")
    assert set(results.load_results("mine", tmp_path)["seed"]) == {0}


def test_a_manifest_that_cannot_be_written_leaves_nothing_behind(
    study: str, tmp_path: Path
) -> None:
    (tmp_path / "mine" / "study.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"cannot write to .*mine .*give a writable --out"):
        commands.sweep(study, options=commands.SweepOptions(out=tmp_path))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["study.json"]


def test_a_study_may_be_named_with_brackets() -> None:
    bar = terminal.progress_bar()
    bar.add_task("a [red] study", total=1)
    assert str(bar.columns[0].render(bar.tasks[0])) == "a [red] study"


def test_a_million_cells_are_not_begun_unasked(study: str, tmp_path: Path, monkeypatch) -> None:
    many = ["repetitions=300000"]
    options = commands.SweepOptions(out=tmp_path)
    with pytest.raises(InputError, match=r"mine \(smoke\) has 1,200,000 cells; say --yes"):
        commands.sweep(study, size="smoke", overrides=many, options=options)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: "n\n", raising=False)
    with pytest.raises(InputError, match=r"nothing was computed"):
        commands.sweep(study, size="smoke", overrides=many, options=options)
    assert not (tmp_path / "mine").exists()


def test_a_dry_run_of_a_thousand_million_cells_only_counts_them(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(runner, "plan_study", lambda *_: pytest.fail("keys are built"))
    options = commands.SweepOptions(out=tmp_path, dry_run=True)
    assert commands.sweep(study, overrides=["repetitions=250000000"], options=options) == 0
    assert capsys.readouterr().out.startswith(
        "mine (smoke) has 1,000,000,000 cells: too many to compare with what is stored"
    )


def test_a_dry_run_writes_nothing(study: str, tmp_path: Path, capsys) -> None:
    options = commands.SweepOptions(out=tmp_path / "out", dry_run=True)
    assert commands.sweep(study, size="smoke", overrides=(), options=options) == 0
    assert "12 rows, 0 stored, 12 to compute" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_resume_takes_the_settings_of_the_last_sweep(
    study: str, sweep, tmp_path: Path, assert_same_rows
) -> None:
    out = tmp_path / "out"
    whole = sweep(study, out, "repetitions=2", "nu={from=0.5, to=1, points=2}")
    for path in sorted((out / "mine" / "rows").glob("*.parquet"))[:2]:
        path.unlink()
    Path(study).unlink()  # the study file may be gone
    options = commands.SweepOptions(out=out)
    commands.sweep(study, options=options, resume=True)
    assert_same_rows(results.load_results("mine", out), whole)
    with pytest.raises(InputError, match=r"goes on with the last size and settings; drop --size$"):
        commands.sweep("mine", size="smoke", options=options, resume=True)
    with pytest.raises(InputError, match=r"drop --size and --set$"):
        commands.sweep("mine", size="tiny", overrides=["nu=1"], options=options, resume=True)


def test_resume_refuses_another_study_of_the_same_name(
    study: str, sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = tmp_path / "b" / "mine.toml"
    other.parent.mkdir()
    other.write_text(Path(study).read_text().replace("d1 = 5", "d1 = 6"), encoding="utf-8")
    sweep(study, out)
    sweep(str(other), out)
    options = commands.SweepOptions(out=out)
    with pytest.raises(InputError, match=r"mine\.toml is not the file of the last sweep of 'mine'"):
        commands.sweep(study, options=options, resume=True)
    for again in (str(other), "mine"):
        commands.sweep(again, options=options, resume=True)
        assert set(results.load_results("mine", out)["d1"]) == {6}
    # what an earlier version wrote does not say which file it was of
    manifest = out / "mine" / "study.json"
    earlier = json.loads(manifest.read_text())
    del earlier["file"]
    manifest.write_text(json.dumps(earlier), encoding="utf-8")
    assert len(results.load_results("mine", out)) == 12
    commands.sweep(study, options=options, resume=True)


def test_a_study_with_dots_in_its_name_is_resumed_by_it(study: str, sweep, tmp_path: Path) -> None:
    dotted = Path(study).rename(tmp_path / "my.study.toml")
    options = commands.SweepOptions(out=tmp_path)
    commands.sweep(str(dotted), overrides=["n_pairs=30"], options=options)
    commands.sweep("my.study", options=options, resume=True)
    assert len(results.load_results("my.study", tmp_path)) == 6


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"size": 3}'])
def test_a_damaged_manifest_is_one_line(study: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.json").write_text(text, encoding="utf-8")
    options = commands.SweepOptions(out=tmp_path)
    with pytest.raises(InputError, match=r"study\.json is damaged.* run simrlhf sweep mine"):
        commands.sweep(study, options=options, resume=True)


def test_results_that_do_not_exist_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results of study 'mine'.*run: simrlhf sweep mine"):
        results.load_results("mine", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(study: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    options = commands.SweepOptions(out=tmp_path / "file" / "out")
    with pytest.raises(InputError, match=r"cannot .*file/out.*give a writable --out"):
        commands.sweep(study, size="smoke", overrides=(), options=options)


def test_workers_and_a_scheduler_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"--workers 2 starts processes here, --scheduler tcp"):
        commands.SweepOptions(out=Path(), workers=2, scheduler="tcp://host:1")
    with pytest.raises(InputError, match=r"--workers = 0 must be at least 1"):
        commands.SweepOptions(out=Path(), workers=0)
