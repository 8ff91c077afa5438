"""The cell `new_users`: who is fitted to what, against fits made by hand; settings refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import simrlhf as sim
from simrlhf.core.checks import InputError
from simrlhf.study import comparison, newcomers, runner
from simrlhf.study.axes import Newcomers
from simrlhf.study.newcomers import run_new_users
from simrlhf.study.spec import load_study
from simrlhf.study.tasks import Cell, draw_seeds

WORLD = sim.WorldConfig(n_users=7, d1=5, rank=2, nu=0.5)
CELLS = [Cell(n, name) for n in (10, 30) for name in ("share_b", "oracle", "full", "global")]
STUDY = """
title = "t"
question = "q"
cell = "new_users"
[grid]
n_pairs = [10, 30]
estimators = ["share_b", "full"]
metrics = ["recovery"]
repetitions = 2
[world]
n_users = 7
d1 = 5
rank = 2
[newcomers]
new_users = 2
old_pairs = [20, 40]
[fit]
norm_bound = 4.0
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "late.toml"
    file.write_text(STUDY, encoding="utf-8")
    return str(file)


@pytest.fixture
def rows_of(make_task):
    """Rows by (n_pairs, estimator) of two new users beside five old ones."""

    def run(old_pairs: int = 40, world: sim.WorldConfig = WORLD, metrics=("recovery", "bounds")):
        late = Newcomers(new_users=2, old_pairs=old_pairs)
        task = make_task(world, CELLS, newcomers=late, metrics=metrics, norm_bound=4.0)
        return {(row["n_pairs"], row["estimator"]): row for row in run_new_users(task)}

    return run


def test_rows_are_those_of_fits_made_by_hand(rows_of):
    of_world, of_sample = draw_seeds(0, 0)
    world = sim.make_world(WORLD, seed=of_world)
    sample = sim.sample_preferences(world, 40, seed=of_sample)
    place = np.arange(sample.n_total) - sample.offsets[sample.users]

    def pairs(users, n):
        keep = np.isin(sample.users, users) & (place < n)
        return sim.Preferences.from_pairs(
            sample.users[keep], sample.features[keep], sample.labels[keep]
        )

    old, new = [0, 1, 2, 3, 4], [5, 6]
    first = sim.fit(pairs(old, 40), rank=2, norm_bound=4.0)
    common = sim.fit(pairs(old, 40), estimator="global", rank=2, norm_bound=4.0).delta[0]
    rows = rows_of()
    for n in (10, 30):
        theirs = pairs(new, n)
        by_hand = {
            "share_b": sim.adapt_users(first, theirs).delta,
            "oracle": sim.fit(theirs, estimator="oracle", basis=world.basis, norm_bound=4.0).delta,
            "full": sim.fit(theirs, estimator="full", rank=2, norm_bound=4.0).delta,
            "global": np.stack([common, common]),
        }
        for name, delta in by_hand.items():
            error = np.sqrt(((delta - world.delta[5:]) ** 2).sum(axis=(1, 2)).mean())
            # the same optima found through other paddings
            assert rows[n, name]["reward_error"] == pytest.approx(error, rel=1e-5)
            assert (rows[n, name]["new_users"], rows[n, name]["old_pairs"]) == (2, 40)
            assert rows[n, name]["n_users"] == 7
            assert rows[n, name]["seconds"] >= 0.0


@pytest.mark.parametrize("turned", ["new", "old"])
def test_no_pair_of_a_new_user_enters_the_old_fit_nor_the_other_way(rows_of, monkeypatch, turned):
    honest, before = sim.sample_preferences, rows_of()

    def planted(world, counts, **options):
        sample = honest(world, counts, **options)
        mine = (sample.users >= 5) == (turned == "new")
        # every third: with all of them turned the fit is its own negative, on the same basis
        mine &= np.arange(sample.n_total) % 3 == 0
        return sample.relabelled(np.where(mine, 1.0 - sample.labels, sample.labels))

    monkeypatch.setattr(newcomers, "sample_preferences", planted)
    after = rows_of()
    for n in (10, 30):
        same_basis = after[n, "share_b"]["largest_sine"] == before[n, "share_b"]["largest_sine"]
        alone = [after[n, name]["reward_error"] == before[n, name]["reward_error"]
                 for name in ("oracle", "full")]  # fmt: skip
        common = after[n, "global"]["reward_error"] == before[n, "global"]["reward_error"]
        assert (same_basis, common) == ((True, True) if turned == "new" else (False, False))
        assert alone == ([False, False] if turned == "new" else [True, True])
        assert after[n, "share_b"]["reward_error"] != before[n, "share_b"]["reward_error"]


def test_new_users_have_the_same_pairs_whatever_the_old_ones_have(rows_of):
    few, many = rows_of(20), rows_of(40)
    for n in (10, 30):
        for name in ("oracle", "full"):
            assert few[n, name]["reward_error"] == many[n, name]["reward_error"]
        assert few[n, "share_b"]["largest_sine"] != many[n, "share_b"]["largest_sine"]
    assert few[10, "share_b"]["largest_sine"] == few[30, "share_b"]["largest_sine"]
    assert few[10, "global"]["reward_error"] == few[30, "global"]["reward_error"]


def test_users_with_unequal_numbers_of_pairs_keep_their_shares(rows_of, monkeypatch):
    seen = []
    honest = newcomers.adapt_users

    def looked_at(old, preferences, **steps):
        seen.append((old.multipliers.size, np.bincount(preferences.users, preferences.weights)))
        return honest(old, preferences, **steps)

    monkeypatch.setattr(newcomers, "adapt_users", looked_at)
    config = sim.WorldConfig(n_users=7, d1=5, rank=2, nu=0.5, count_spread=0.5)
    rows = rows_of(world=config)
    world = sim.make_world(config, seed=draw_seeds(0, 0)[0])
    assert [n_old for n_old, _ in seen] == [5, 5]
    for n, (_, counts) in zip((10, 30), seen, strict=True):
        assert counts.tolist() == world.counts(n)[5:].tolist()
    assert all(np.isfinite(rows[n, "share_b"]["reward_limit"]) for n in (10, 30))


def test_a_failure_is_a_row_and_its_neighbours_live(rows_of, monkeypatch):
    before = rows_of()
    honest = newcomers.adapt_users

    def broken(old, preferences, **steps):
        if preferences.weights.sum() == 20:
            raise FloatingPointError("planted")
        return honest(old, preferences, **steps)

    monkeypatch.setattr(newcomers, "adapt_users", broken)
    after = rows_of()
    failed = {place: row for place, row in after.items() if row["status"] == "FAILED"}
    assert list(failed) == [(10, "share_b")]
    assert failed[10, "share_b"]["message"] == "FloatingPointError: planted"
    assert failed[10, "share_b"]["old_pairs"] == 40
    assert "reward_error" not in failed[10, "share_b"]
    for place in set(after) - set(failed):
        assert after[place]["reward_error"] == before[place]["reward_error"]
    # a first fit that fails takes its own estimator's rows along, a world that fails all
    fit = newcomers.fit_in_worlds
    monkeypatch.setattr(
        newcomers, "fit_in_worlds",
        lambda told, name, **k: 1 / 0 if name == "share_b" else fit(told, name, **k),
    )  # fmt: skip
    failed = {place for place, row in rows_of().items() if row["status"] == "FAILED"}
    assert failed == {(10, "share_b"), (30, "share_b")}
    monkeypatch.setattr(newcomers, "drawn_world", lambda *_: 1 / 0)
    assert all(row["status"] == "FAILED" for row in rows_of().values())


def test_a_sweep_has_its_keys_resumes_and_is_compared(path: str, tmp_path: Path, sweep) -> None:
    spec = load_study(path)
    assert spec.n_cells == len(runner.study_keys(spec)) == 2 * 2 * 2 * 2
    assert {point.newcomers for point in spec.points} == {Newcomers(2, 20), Newcomers(2, 40)}
    one = load_study(path, overrides=["old_pairs=20"])
    assert runner.study_keys(one) < runner.study_keys(spec)
    others = load_study(path, overrides=["new_users=3"])
    assert not runner.study_keys(others) & runner.study_keys(spec)
    out = tmp_path / "out"
    sweep(path, out, "old_pairs=20")
    files = sorted((out / "late" / "rows").glob("*.parquet"))
    rows = sweep(path, out)
    assert set(files) < set((out / "late" / "rows").glob("*.parquet"))  # only what was missing
    assert len(rows) == 16
    assert rows["status"].eq("CONVERGED").all()
    table = comparison.compare(rows, "reward_error")
    assert set(table["point"]) == {"the usual setting", "old_pairs = 40"}
    pd.testing.assert_frame_equal(rows, sweep(path, out))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[newcomers]\nnew_users = 2\nold_pairs = [20, 40]", ""),
            r"needs a section \[newcomers\]",
        ),
        (("new_users = 2", ""), r"\[newcomers\] needs new_users"),
        (("new_users = 2", "new_user = 2"), r"\[newcomers\].*did you mean 'new_users'"),
        (("new_users = 2", "new_users = 7"), r"newcomers\.new_users = 7 must be at most 6.*one at"),
        (
            ("new_users = 2", "new_users = 1.5"),
            r"newcomers\.new_users must be an integer, got 1\.5",
        ),
        (("[20, 40]", "[20, 0]"), r"newcomers\.old_pairs = 0 must be at least 1"),
        (('"new_users"', '"recovery"'), r"\[newcomers\] is for cell = 'new_users'.*leave it out"),
        (
            ('["recovery"]', '["coverage"]'),
            r"unknown metric 'coverage'.*'new_users' measures no other",
        ),
        (
            ("norm_bound = 4.0", 'theta_init = "global"'),
            r"theta_init = 'global' would give old and",
        ),
        (("rank = 2", "rank = 5"), r"rank = 5 must be below d1 = 5 for share_b.*freezes nothing"),
        # five users make a rank of seven, the three old ones do not
        (("d1 = 5\nrank = 2", "d1 = 9\nrank = 6"), r"N = 5, d1 = 9.*rank = 6 must be at most 5"),
        (('metrics = ["recovery"]', 'metrics = ["decisions"]'), r"no decision problem"),
    ],
)
def test_what_makes_no_sense_is_one_line(path: str, change: tuple[str, str], message: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert text.count(change[0]) == 1
    Path(path).write_text(text.replace(*change), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)
