"""Pairs needed for an error: against power laws whose inverse is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import shipped
from simrlhf.study.inversion import ends, pairs_at, pairs_needed_of

N_PAIRS = np.array([25.0, 100.0, 400.0, 1600.0])


def power_law(exponent: float, *, spread: float = 0.0, repetitions: int = 12) -> pd.DataFrame:
    """Rows whose error is `3 n^exponent`, times a factor of each repetition."""
    factors = np.exp(spread * np.random.default_rng(0).standard_normal(repetitions))
    return pd.DataFrame(
        [
            {"n_pairs": int(n), "repetition": r, "error": factor * 3.0 * n**exponent}
            for r, factor in enumerate(factors)
            for n in N_PAIRS
        ]
    )


@pytest.mark.parametrize("exponent", [-1.0, -0.5])
def test_a_power_law_is_inverted_exactly_where_it_is_bracketed(exponent):
    exact = np.array([20.0, 30.0, 250.0, 1500.0, 1700.0])
    found = pairs_at(N_PAIRS, 3.0 * N_PAIRS**exponent, 3.0 * exact**exponent)
    # two lie outside of what was measured
    np.testing.assert_allclose(found, [np.nan, 30.0, 250.0, 1500.0, np.nan], rtol=1e-12)


def test_the_last_crossing_counts_and_curves_go_by_in_batches():
    peaked = np.array([0.5, 2.0, 1.0, 0.25])
    curves = np.stack([peaked, 3.0 / N_PAIRS**0.5, np.full(4, 0.7)])
    found = pairs_at(N_PAIRS, curves, np.array([1.0, 0.5]))
    # from 400 on for good; half way between 400 and 1600 in the logarithms
    assert found[0] == pytest.approx([400.0, 800.0])
    assert found[1] == pytest.approx([np.nan, 36.0], nan_ok=True)
    assert np.isnan(found[2]).all()


def test_slopes_and_intervals_are_those_of_the_law_and_of_the_spread_of_repetitions():
    targets = 3.0 * np.array([50.0, 120.0, 300.0, 700.0]) ** -0.5
    sharp = pairs_needed_of(power_law(-0.5), "error", targets, power=2.0)
    # the same factor for all: every resample is the same curve
    assert sharp.slope(np.full(4, True)) == pytest.approx((-2.0, -2.0, -2.0))
    np.testing.assert_allclose(sharp.low, sharp.pairs)
    assert np.isnan(sharp.slope(sharp.pairs > 200.0).estimate)  # two points make no line
    rows = power_law(-0.5, spread=0.2)
    spread = pairs_needed_of(rows, "error", targets, power=2.0)
    # n = (factor 3 / eps)^2 of the root mean square factor, whose error is known
    squares = (rows["error"] / (3.0 * rows["n_pairs"] ** -0.5))[rows["n_pairs"] == 25] ** 2
    np.testing.assert_allclose(spread.pairs, squares.mean() * (3.0 / targets) ** 2, rtol=1e-12)
    half = (spread.high - spread.low) / spread.pairs / 2.0
    expected = 1.96 * squares.std(ddof=0) / len(squares) ** 0.5 / squares.mean()
    np.testing.assert_allclose(half, expected, rtol=0.15)


def test_intervals_that_half_the_resamples_lack_are_not_given():
    low, high = ends(np.array([[1.0, np.nan], [2.0, 3.0], [3.0, 4.0]]))
    assert np.isnan([low[1], high[1]]).all()
    assert low[0] < 2.0 < high[0]


def test_repetitions_that_miss_a_size_are_left_out_and_too_few_are_refused():
    rows = power_law(-1.0, spread=0.3)
    short = rows.drop(index=rows.index[(rows["repetition"] == 3) & (rows["n_pairs"] == 400)])
    without = rows[rows["repetition"] != 3]
    targets = np.array([0.01])
    assert pairs_needed_of(short, "error", targets).pairs == pytest.approx(
        pairs_needed_of(without, "error", targets).pairs
    )
    with pytest.raises(InputError, match=r"error has 1 complete repetitions of 4 numbers of pairs"):
        pairs_needed_of(rows[rows["repetition"] == 0], "error", targets)


@pytest.fixture(scope="module")
def script():
    return shipped.load_script(shipped.shipped_folder("paper_figs") / "pairs_needed_vs_eps.py")


@pytest.mark.parametrize(("reading", "slope"), [("printed", -1.0), ("corollary", -2.0)])
def test_printed_lines_pass_through_share_b_and_have_their_slope(script, reading, slope):
    rows = power_law(-1.0).assign(n_users=16, d1=8, d2=3, rank=2, nu=1.0, tail=0.0)
    targets = 3.0 / np.array([10.0, 200.0, 400.0, 800.0])
    shared = pairs_needed_of(rows, "error", targets)
    lines = script.printed(rows, shared, reading)
    # the first target is not bracketed; n is whole
    assert lines["share_b"][1] == pytest.approx(200.0, abs=1.0)
    fitted = np.polyfit(np.log(targets[1:]), np.log(lines["share_b"][1:]), 1)[0]
    # the corollary has a logarithm of n as well
    assert fitted == pytest.approx(slope, abs=0.02 if reading == "printed" else 0.4)
    assert abs(fitted) >= abs(slope) - 0.02
    # one constant for both: the ratio is the printed one, 8 x 3 x 16 / (2 (8 + 16 x 3))
    if reading == "printed":
        assert lines["full"][1] / lines["share_b"][1] == pytest.approx(384 / 112, rel=0.01)


def test_the_printed_ratio_is_the_papers(script):
    one = pd.DataFrame([{"n_users": 16, "d1": 8, "d2": 3, "rank": 2}])
    assert script.printed_ratio(one) == pytest.approx(8 * 3 * 16 / (2 * (8 + 16 * 3)))
