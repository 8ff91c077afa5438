"""The recovery cell: what its rows hold, and that the proved bounds hold in them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import cells, figures, summary, tasks
from simrlhf.study.cells import run_recovery
from simrlhf.study.spec import load_study
from simrlhf.study.tasks import Cell
from simrlhf.world import WorldConfig

BOUNDS = ["s1", "s2_a_priori", "s2_bregman", "s2_a_posteriori"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(scope="module")
def rows(sweep, out: Path) -> pd.DataFrame:
    """One tiny sweep of the quickstart's study, read by several tests."""
    return sweep("subspace_vs_pairs", out, size="tiny")


def test_every_cell_of_the_grid_is_a_row_with_a_status(rows: pd.DataFrame) -> None:
    spec = load_study("subspace_vs_pairs", size="tiny")
    assert len(rows) == spec.n_cells == 2 * 3 * 5 * 2
    assert rows["key"].is_unique
    assert rows["status"].eq("CONVERGED").all()
    assert (rows["largest_norm"] <= 3.0 + 1e-8).all()


def test_proved_bounds_hold_and_a_smaller_one_would_not(rows: pd.DataFrame) -> None:
    shared = rows[rows["estimator"] == "share_b"]
    distance = shared["subspace_distance"].to_numpy()
    for name in BOUNDS:
        assert (distance <= shared[name].to_numpy() * (1 + 1e-9)).all()
    # these rows have the power to reject S1 with half its constant
    assert (distance > 0.5 * shared["s1"].to_numpy()).any()


def test_with_a_tail_the_certificate_and_the_bounds_hold(make_task) -> None:
    world = WorldConfig(n_users=6, d1=5, rank=2, nu=0.5, tail=0.3)
    task = make_task(world, [Cell(40, "share_b"), Cell(80, "share_b")], seed=3, norm_bound=4.0)
    for row in run_recovery(task):
        assert row["s2_slack"] == 0.0  # Delta^<> is feasible, the fit is at least as likely
        assert np.isnan(row["limit"])  # L1 holds inside the class only
        assert all(row["subspace_distance"] <= row[name] for name in BOUNDS)
        # with a tail the two levels differ
        assert row["s2_a_posteriori"] < row["s2_bregman"]


def test_a_truth_outside_the_ball_keeps_s2_valid_and_has_no_limit(make_task) -> None:
    # nu = 4 makes ||Delta_i|| about 3, the fit may use 0.2 only
    world = WorldConfig(n_users=4, d1=6, rank=2, nu=4.0)
    for n_pairs in (50, 800):
        task = make_task(world, [Cell(n_pairs, "share_b")], seed=1, norm_bound=0.2)
        row = pd.DataFrame(run_recovery(task))
        assert row["limit"].isna().all()
        assert row["reward_limit"].isna().all()
        assert summary.count_violations(row) == 0


def test_s2_is_judged_by_the_error_that_it_bounds(rows: pd.DataFrame) -> None:
    shared = rows[rows["estimator"] == "share_b"].copy()
    assert summary.count_violations(shared) == 0
    # the error is s1 in units of sigma_k: an S2 just below it is violated, the distance still fits
    shared["s2_a_posteriori"] = 0.99 * shared["s1"]
    assert summary.count_violations(shared) == len(shared)


def test_rows_of_several_worlds_are_never_pooled(rows: pd.DataFrame, tmp_path: Path) -> None:
    other = rows.assign(nu=9.0, key=rows["key"] + "x")
    with pytest.raises(InputError, match=r"several values of nu, and only n_users may vary"):
        summary.summarise_subspace(pd.concat([rows, other]))


def test_a_figure_without_share_b_says_what_is_missing(sweep, tmp_path: Path) -> None:
    only_full = ("estimators=['full']", "n_users=4", "n_pairs=[30]", "repetitions=1")
    sweep("subspace_vs_pairs", tmp_path, *only_full, size="tiny")
    with pytest.raises(InputError, match=r"needs rows of share_b"):
        figures.draw_figure("subspace_vs_pairs", tmp_path, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()


def test_the_nested_sample_is_the_first_part_of_the_larger_one(make_task) -> None:
    world = WorldConfig(n_users=3, d1=4, rank=1)
    wanted = [Cell(20, "share_b")]
    one = run_recovery(make_task(world, wanted, seed=3))[0]
    two = run_recovery(make_task(world, wanted, seed=3, largest=50))[0]
    # the same optimum found through another padding: 1e-8 in gradient
    assert one["subspace_distance"] == pytest.approx(two["subspace_distance"], rel=1e-5)


def test_repetitions_and_seeds_draw_different_worlds(make_task) -> None:
    world = WorldConfig(n_users=3, d1=4, rank=1)
    drawn = [
        run_recovery(make_task(world, [Cell(20, "share_b")], repetition=repetition, seed=seed))
        for repetition, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len({rows[0]["subspace_distance"] for rows in drawn}) == 3


def test_metrics_are_the_columns_asked_for(make_task) -> None:
    world = WorldConfig(n_users=3, d1=4, rank=1)
    task = make_task(world, [Cell(30, "share_b")], metrics=("recovery",))
    row = run_recovery(task)[0]
    assert "subspace_distance" in row
    assert not {"s1", "limit", "wilks"} & set(row)


def test_a_fit_that_raises_is_a_row_without_metrics_and_the_others_live(
    make_task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is planted in one sample of one estimator; its neighbours must not notice."""
    world = WorldConfig(n_users=3, d1=4, rank=1)
    wanted = [Cell(n, name) for n in (20, 40) for name in ("share_b", "full")]
    task = make_task(world, wanted)
    undisturbed = {row["key"]: row for row in run_recovery(task)}
    honest = cells.recovery

    seen = iter(["full", "planted"])

    def broken(truth, result):
        if result.estimator == "full" and next(seen) == "planted":
            raise FloatingPointError("planted\nin two lines")
        return honest(truth, result)

    monkeypatch.setattr(cells, "recovery", broken)
    rows = {row["key"]: row for row in run_recovery(task)}
    assert rows.keys() == undisturbed.keys()
    failed = [row for row in rows.values() if row["status"] == "FAILED"]
    assert len(failed) == 1
    assert failed[0]["message"] == "FloatingPointError: planted in two lines"
    assert failed[0]["estimator"] == "full"
    assert failed[0]["nu"] == world.nu  # what was asked is there, what was measured is not
    assert not {"subspace_distance", "neg_log_likelihood", "seconds"} & set(failed[0])
    for key, row in rows.items():
        if row["status"] != "FAILED":
            assert row["subspace_distance"] == undisturbed[key]["subspace_distance"]


def test_seconds_are_an_equal_share_of_the_fits_without_their_compilation(
    make_task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that passes 10 s over a batch, of which 7 s went into compiling."""
    task = make_task(WorldConfig(n_users=3, d1=4, rank=1), [Cell(20, "full"), Cell(40, "full")])
    now = iter([100.0, 110.0])
    compiled = iter([50.0, 57.0])
    monkeypatch.setattr(tasks, "time", SimpleNamespace(perf_counter=lambda: next(now)))
    monkeypatch.setattr(tasks.numerics, "compile_seconds", lambda: next(compiled))
    monkeypatch.setattr(tasks, "fit_many", lambda sources, *_, **__: [None] * len(sources))
    monkeypatch.setattr(cells, "_measure", lambda cell, result, metrics, seconds: {"s": seconds})
    assert [row["s"] for row in run_recovery(task)] == [1.5, 1.5]


def test_a_world_that_cannot_be_drawn_fails_its_own_cells_only(
    make_task, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(WorldConfig(n_users=3, d1=4, rank=1), [Cell(20, "share_b"), Cell(20, "full")])
    monkeypatch.setattr(tasks, "make_world", lambda *_, **__: 1 / 0)
    rows = run_recovery(task)
    assert [row["status"] for row in rows] == ["FAILED", "FAILED"]
    assert {row["message"] for row in rows} == {"ZeroDivisionError: division by zero"}


def test_the_summary_counts_a_planted_violation(rows: pd.DataFrame) -> None:
    assert any("violated in 0 of" in sentence for sentence in summary.summarise_subspace(rows))
    planted = rows.copy()
    first = planted.index[planted["estimator"] == "share_b"][0]
    planted.loc[first, "subspace_distance"] = planted.loc[first, "s1"] * 1.01
    assert any("violated in 1 of" in sentence for sentence in summary.summarise_subspace(planted))


def test_failed_fits_are_counted_and_change_nothing_else(rows: pd.DataFrame) -> None:
    failed = rows.loc[:2, :"subspace_distance"].drop(columns="subspace_distance")
    failed = failed.assign(status="FAILED", key=failed["key"] + "x", repetition=99)
    said = summary.summarise_subspace(pd.concat([rows, failed]))
    assert said[-1] == f"Fits: {len(rows)} CONVERGED, 3 FAILED."
    assert said[:-1] == summary.summarise_subspace(rows)[:-1]


def test_the_rate_is_one_slope_per_repetition_and_their_interval() -> None:
    random = np.random.default_rng(0)
    curves = [
        pd.DataFrame(
            {
                "n_users": 4,
                "repetition": repetition,
                "n_pairs": [100, 200, 400, 800],
                # one factor for the whole curve: what nesting does to a sample
                "subspace_distance": np.exp(random.normal(0, 0.5))
                * np.array([100, 200, 400, 800]) ** slope,
            }
        )
        for repetition, slope in enumerate((-0.52, -0.5, -0.48))
    ]
    found = summary.rate_in_pairs(pd.concat(curves))
    assert found.estimate == pytest.approx(-0.5, abs=1e-12)
    # s.e. 0.02 / sqrt 3, Student quantile of two degrees of freedom 4.303
    assert found.high - found.estimate == pytest.approx(4.3027 * 0.02 / np.sqrt(3), rel=1e-4)


def test_the_figure_is_drawn_from_results_alone(out: Path, tmp_path: Path) -> None:
    drawn = figures.draw_figure("subspace_vs_pairs", out, tmp_path)
    assert [path.suffix for path in drawn] == [".png", ".pdf"]
    assert all(path.stat().st_size > 10_000 for path in drawn)
