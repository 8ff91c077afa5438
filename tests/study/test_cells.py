"""The recovery cell: what its rows hold, and that the proved bounds hold in them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import commands, figures, results, runner, summary
from simrlhf.study.cells import Cell, Task, run_recovery
from simrlhf.study.spec import load_study
from simrlhf.world import WorldConfig

BOUNDS = ["s1", "s2_a_priori", "s2_bregman", "s2_a_posteriori"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny sweep of the quickstart's study, read by several tests."""
    folder = tmp_path_factory.mktemp("results")
    commands.sweep("subspace_vs_pairs", size="tiny", overrides=(), out=folder)
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> pd.DataFrame:
    return results.load_results("subspace_vs_pairs", out)


def test_every_cell_of_the_grid_is_a_row_with_a_status(rows: pd.DataFrame) -> None:
    spec = load_study("subspace_vs_pairs", size="tiny")
    cells = len(spec.worlds) * len(spec.n_pairs) * len(spec.estimators) * spec.repetitions
    assert len(rows) == cells
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


def test_with_a_tail_the_certificate_and_the_bounds_hold() -> None:
    world = WorldConfig(n_users=6, d1=5, rank=2, nu=0.5, tail=0.3)
    task = Task(
        world, 0, 3, 80, {"a": Cell(40, "share_b"), "b": Cell(80, "share_b")}, {"norm_bound": 4.0}
    )
    for row in run_recovery(task):
        assert row["s2_slack"] == 0.0  # Delta^<> is feasible, the fit is at least as likely
        assert np.isnan(row["limit"])  # L1 holds inside the class only
        assert all(row["subspace_distance"] <= row[name] for name in BOUNDS)
        # with a tail the two levels differ
        assert row["s2_a_posteriori"] < row["s2_bregman"]


def test_a_truth_outside_the_ball_keeps_s2_valid_and_has_no_limit() -> None:
    # nu = 4 makes ||Delta_i|| about 3, the fit may use 0.2 only
    world = WorldConfig(n_users=4, d1=6, rank=2, nu=4.0)
    for n_pairs in (50, 800):
        task = Task(world, 0, 1, n_pairs, {"a": Cell(n_pairs, "share_b")}, {"norm_bound": 0.2})
        row = pd.DataFrame(list(run_recovery(task)))
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


def test_a_figure_without_share_b_says_what_is_missing(tmp_path: Path) -> None:
    only_full = ("estimators=['full']", "n_users=4", "n_pairs=[30]", "repetitions=1")
    commands.sweep("subspace_vs_pairs", size="tiny", overrides=only_full, out=tmp_path)
    with pytest.raises(InputError, match=r"needs rows of share_b"):
        figures.draw_figure("subspace_vs_pairs", tmp_path, tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()


def test_the_nested_sample_is_the_first_part_of_the_larger_one() -> None:
    world = WorldConfig(n_users=3, d1=4, rank=1)
    small = Task(world, 0, 3, 20, {"a": Cell(20, "share_b")}, {})
    large = Task(world, 0, 3, 50, {"a": Cell(20, "share_b")}, {})
    one, two = next(run_recovery(small)), next(run_recovery(large))
    # the same optimum found through another padding: 1e-8 in gradient
    assert one["subspace_distance"] == pytest.approx(two["subspace_distance"], rel=1e-5)


def test_repetitions_and_seeds_draw_different_worlds() -> None:
    world = WorldConfig(n_users=3, d1=4, rank=1)
    cells = {"a": Cell(20, "share_b")}
    drawn = [
        next(run_recovery(Task(world, repetition, seed, 20, cells, {})))["subspace_distance"]
        for repetition, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert len(set(drawn)) == 3


def test_the_summary_counts_a_planted_violation(rows: pd.DataFrame) -> None:
    assert any("violated in 0 of" in sentence for sentence in summary.summarise_subspace(rows))
    planted = rows.copy()
    first = planted.index[planted["estimator"] == "share_b"][0]
    planted.loc[first, "subspace_distance"] = planted.loc[first, "s1"] * 1.01
    assert any("violated in 1 of" in sentence for sentence in summary.summarise_subspace(planted))


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


def test_an_unknown_cell_function_is_refused_before_any_work(tmp_path: Path) -> None:
    text = (
        'title = "t"\nquestion = "q"\ncell = "recovry"\n'
        "[grid]\nn_pairs = 5\n[world]\nn_users = 3\nd1 = 4\nrank = 1\n"
    )
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    spec = load_study(str(path))
    with pytest.raises(
        InputError, match=r"unknown cell function 'recovry'.*did you mean 'recovery'"
    ):
        runner.plan_study(spec, results.open_store("mine", tmp_path))
