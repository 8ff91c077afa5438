"""The rule for curves that rise before they fall, against its definition; bisection alone fails."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simrlhf import theory
from simrlhf.study import plan_draws, plan_searches
from simrlhf.study.plan import run_plan
from simrlhf.study.plan_draws import Drawing
from simrlhf.world import WorldConfig

# the fits of `full` reproduce every label up to n = d1 d2 = 8, and are worst there
PEAK = WorldConfig(n_users=8, d1=8, rank=2, link="identity")
STEPS = Drawing(config=PEAK, repetitions=1, seed=0, norm_bound=None, largest=3000).candidates


def scanned(value, target: float, candidates, size: float = 0.0) -> int | None:
    """The definition, one candidate after the other."""
    for n in candidates:
        checked = [m for m in candidates if n <= m <= 2 * max(n, size)]
        if all(value(m) <= target for m in checked):
            return n
    return None


def measured(table: pd.DataFrame, estimator: str) -> pd.Series:
    mine = (table["kind"] == "measured") & (table["estimator"] == estimator)
    return table[mine].squeeze()


def test_the_answer_of_full_lies_behind_the_peak_of_its_error() -> None:
    drawing = Drawing(config=PEAK, repetitions=1, seed=0, norm_bound=None, largest=60)
    error = partial(plan_searches._median, drawing, estimator="full", column="reward_error")
    row = measured(run_plan(PEAK, reward_error=2.0, repetitions=1, largest=60), "full")
    assert row["n_pairs"] == scanned(error, 2.0, drawing.candidates[:20], size=8) == 11
    assert row["value"] == pytest.approx(error(11), rel=1e-6)
    # the target is met at 3 already, and bisection alone stays there
    assert error(3) < 2.0 < 8.0 < error(9)
    assert theory.smallest_sample(error, 2.0, drawing.candidates, start=2.0) == 3


def test_no_answer_short_of_a_peak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 3 pairs the error is 1.9, whatever comes behind; share_b is judged from 3.5 pairs on."""
    names = ("reward_error", "s2_bregman", "s2_a_posteriori")

    def rows(_: Drawing, n_pairs: int, __: str) -> list:
        error = 2.1 if 8 < n_pairs < 14 else 1.9
        return [{"status": "CONVERGED"} | dict.fromkeys(names, error)]

    monkeypatch.setattr(plan_draws, "fit_rows", rows)
    for largest, remarks in (
        (3, {"full": "needs n >= 8", "share_b": "needs n >= 4"}),
        (4, {"full": "needs n >= 8", "share_b": ""}),
        (8, {"full": "", "share_b": ""}),
    ):
        table = run_plan(PEAK, reward_error=2.0, repetitions=1, largest=largest)
        for estimator, remark in remarks.items():
            found = measured(table, estimator)
            assert (found["remark"], found["value"]) == (remark, 1.9)
            assert found["status"] == ("NOT_REACHED" if remark else "REACHED")
    # full is tried up to twice 8 and share_b up to twice 3.5, from 1 pair on
    table = run_plan(PEAK, reward_error=2.0, repetitions=1, largest=60)
    assert measured(table, "full")["n_pairs"] == 14
    assert measured(table, "share_b")["n_pairs"] == 1


def test_an_answer_lies_behind_ripples() -> None:
    """The distance of few worlds, as drawn: it crosses 0.3 three times."""
    curve = {19: 0.33, 21: 0.34, 23: 0.31, 26: 0.299, 28: 0.31, 31: 0.24, 34: 0.22, 60: 0.15}
    for start in (None, 1.0, 26.0, 60.0):
        found = plan_searches.lasting_sample(curve.__getitem__, 0.3, list(curve), start=start)
        assert found == 31
    assert theory.smallest_sample(curve.__getitem__, 0.3, list(curve), start=26.0) == 26


@given(
    st.lists(st.floats(0.1, 1.0) | st.just(math.nan), min_size=1, max_size=40),
    st.none() | st.floats(1.0, 60.0),
    st.floats(0.0, 60.0),
)
def test_an_answer_of_any_curve_meets_its_definition(values, start, size) -> None:
    candidates = STEPS[: len(values)]
    curve = dict(zip(candidates, values, strict=True))
    search = partial(plan_searches.lasting_sample, curve.__getitem__, 0.5, candidates, size=size)
    n = search(start=start)
    if n is None:
        assert not curve[candidates[-1]] <= 0.5
        return
    place = candidates.index(n)
    assert place == 0 or not values[place - 1] <= 0.5
    assert all(curve[m] <= 0.5 for m in candidates[place:] if m <= 2 * max(n, size))


@given(st.integers(1, 60), st.floats(0.3, 3.0), st.floats(1.0, 3000.0))
def test_a_single_peak_is_searched_as_by_a_scan(size, target, start) -> None:
    """A peak at `size`, flat before and a rate of one half behind."""

    def error(n: int) -> float:
        return 0.5 + 3.0 * n / size if n <= size else 3.5 * math.sqrt(size / n)

    found = plan_searches.lasting_sample(error, target, STEPS, size=size, start=start)
    assert found == scanned(error, target, STEPS, size=size)


def test_the_checks_cost_few_evaluations() -> None:
    """Eight candidates in a factor of two; a wide peak is left behind in doubling steps."""

    def falling(n: int) -> float:
        return math.sqrt(39 / n)

    def peaked(n: int) -> float:
        return 0.1 if n < 5 else falling(n)

    for curve, size, most in ((falling, 0.0, 13), (peaked, 500.0, 25)):
        asked = set()

        def recorded(n: int, curve=curve, asked: set = asked) -> float:
            asked.add(n)
            return curve(n)

        found = plan_searches.lasting_sample(recorded, 0.2, STEPS, size=size, start=39 / 0.2**2)
        assert found == scanned(curve, 0.2, STEPS, size=size)
        assert len(asked) <= most
        asked.clear()
        found = plan_searches.lasting_sample(recorded, 0.2, STEPS, size=size, start=1.0)
        assert found == scanned(curve, 0.2, STEPS, size=size)
        assert len(asked) <= 25


@pytest.mark.parametrize(
    ("n_users", "d1", "d2", "rank"), [(4, 5, 2, 3), (1, 4, 1, 1), (6, 5, 1, 2)]
)
def test_parameters_per_user_are_the_rank_of_the_class(n_users, d1, d2, rank) -> None:
    """Directions in which `B W_i` moves, of basis and factors; its entries are rivals."""
    rng = np.random.default_rng(0)
    basis, factors = rng.normal(size=(d1, rank)), rng.normal(size=(n_users, rank, d2))
    of_basis = np.einsum("ac,nkb->cknab", np.eye(d1), factors).reshape(d1 * rank, -1)
    of_factors = np.einsum("ak,nm,bc->nkcmab", basis, np.eye(n_users), np.eye(d2))
    moves = np.concatenate([of_basis, of_factors.reshape(n_users * rank * d2, -1)])
    config = WorldConfig(n_users=n_users, d1=d1, d2=d2, rank=rank)
    shared = plan_searches.parameters_per_user(config, "share_b")
    assert shared * n_users == pytest.approx(np.linalg.matrix_rank(moves))
    assert shared * n_users < len(moves)
    assert plan_searches.parameters_per_user(config, "full") == d1 * d2
