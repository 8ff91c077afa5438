"""Sample sizes against scans, exact fractions and Lambert's W; rivals that forget a factor fail."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from simrlhf import theory
from simrlhf.core import checks

WORLD = {"n_users": 10, "d1": 12, "d2": 2, "rank": 3, "nu": 0.5, "tail_energy": 0.0, "delta": 0.05}


def scanned(value, target: float, candidates) -> int | None:
    """The definition, one candidate after the other."""
    return next((n for n in candidates if value(n) <= target), None)


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=40),
    st.floats(0.01, 10.0),
    st.sets(st.integers(1, 10**6), min_size=40, max_size=40),
    st.none() | st.floats(0.0, 2e6) | st.just(math.inf),
)
def test_the_search_finds_what_a_scan_finds_wherever_it_begins(values, target, sizes, start):
    candidates = sorted(sizes)[: len(values)]
    table = dict(zip(candidates, sorted(values, reverse=True), strict=True))
    found = theory.smallest_sample(table.__getitem__, target, candidates, start=start)
    assert found == scanned(table.__getitem__, target, candidates)


def test_a_target_that_is_met_exactly_is_met():
    # the rival `value < target` would take the next one
    table = {10: 0.5, 20: 0.25, 40: 0.125}
    assert theory.smallest_sample(table.__getitem__, 0.25, [10, 20, 40]) == 20
    assert theory.smallest_sample(table.__getitem__, 0.125, [10, 20, 40]) == 40


def test_an_unreachable_target_costs_one_evaluation():
    for value in (0.3, math.inf, math.nan):
        asked = []

        def falling(n: int, value: float = value, asked: list = asked) -> float:
            asked.append(n)
            return value

        assert theory.smallest_sample(falling, 0.2, [10, 20, 30]) is None
        assert asked == [30]


def test_a_rate_of_one_half_costs_few_evaluations():
    """What makes it fit for fits: bisection alone would take seven of these eighty candidates."""
    candidates = sorted({round(n) for n in np.geomspace(1, 3000, 85)})

    def error(n: int) -> float:
        return math.sqrt((1 + 12 / n) * 39 / n)  # finite n as in the limits

    for target in (0.125, 0.3, 0.7):
        asked = []

        def recorded(n: int, asked: list = asked) -> float:
            asked.append(n)
            return error(n)

        found = theory.smallest_sample(recorded, target, candidates)
        assert found == scanned(error, target, candidates)
        assert len(set(asked)) <= 6
        # a good guess spares the last candidate, which is the dearest fit
        asked.clear()
        assert theory.smallest_sample(recorded, target, candidates, start=39 / target**2) == found
        assert len(set(asked)) <= 5
        assert candidates[-1] not in asked


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 10.0))
def test_a_limit_meets_the_target_at_n_and_not_at_one_less(trace, target):
    n = theory.limit_sample_size(trace, target)
    assert isinstance(n, int)
    assert math.sqrt(trace / n) <= target
    assert n == 1 or math.sqrt(trace / (n - 1)) > target
    # the closed form in exact arithmetic; rounding of the root may move a tie by one
    exact = math.ceil(Fraction(trace) / Fraction(target) ** 2)
    assert abs(n - exact) <= 1 + 1e-15 * exact


def test_the_size_of_a_limit_is_that_of_subspace_limit():
    rng = np.random.default_rng(5)
    basis = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    factors = rng.normal(size=(5, 2, 1))
    limit = theory.subspace_limit(basis, factors, np.broadcast_to(np.eye(6), (5, 6, 6)))
    n = theory.limit_sample_size(limit.value, 0.05)
    assert limit.distance(n) <= 0.05 < limit.distance(n - 1)
    assert limit.distance(n) == pytest.approx(0.05, rel=1 / n)
    for rival in (limit.value / 0.05, limit.value / (5 * 0.05**2)):  # no square; N forgotten
        assert abs(limit.distance(math.ceil(rival)) / 0.05 - 1) > 0.5


def test_a_subspace_that_is_not_identified_has_no_size():
    assert theory.limit_sample_size(math.inf, 0.1) is None
    assert theory.limit_sample_size(1e20, 1e-3) is None  # above 2^53
    assert theory.limit_sample_size(0.0, 0.1) == 1


def by_lambert(
    target: float, *, dimension: int, n_users: int, nu: float, bias: float, delta: float
):
    """Real root of the printed formula, `D log(N n / delta) / (N n nu) + bias = target^2`.

    With `m = N n / delta` and `y = (target^2 - bias) nu delta / D` it reads `log(m) / m = y`, whose
    larger root is `m = -W_{-1}(-y) / y`.
    """
    y = (target**2 - bias) * nu * delta / dimension
    m = float(-scipy.special.lambertw(-y, -1).real / y)
    return m * delta / n_users


@pytest.mark.parametrize(
    ("model_class", "dimension"),
    [("share_b", 3 * (12 + 20)), ("full", 240), ("local", 10 * 3 * 14)],
)
@pytest.mark.parametrize("tail", [0.0, 0.05])
def test_theorem_4_1_is_the_root_of_the_printed_formula(model_class, dimension, tail):
    given = WORLD | {"tail_energy": 10 * tail**2}
    size = theory.theorem_4_1_sample_size(0.6, model_class=model_class, **given)
    common = {"dimension": dimension, "n_users": 10, "nu": 0.5, "delta": 0.05}
    root = by_lambert(0.6, bias=tail / 0.5, **common)
    assert size == math.ceil(root)
    # rivals: nu as sigma_k, the tail under a root of its own, N forgotten, the root for the square
    rivals = [
        by_lambert(0.6, bias=tail / 0.5, **common | {"nu": math.sqrt(0.5)}),
        by_lambert(0.6, bias=tail / 0.5, **common | {"n_users": 1}),
        by_lambert(math.sqrt(0.6), bias=tail / 0.5, **common),
    ]
    assert all(abs(size / rival - 1) > 0.1 for rival in rivals)


def test_theorem_4_1_holds_at_n_and_not_at_one_less():
    sizes = {name: WORLD[name] for name in ("n_users", "d1", "d2", "rank", "delta")}
    target = 0.4

    def printed(n: int) -> float:
        return theory.theorem_4_1(
            log_bracketing=theory.log_bracketing_number(n_pairs=n, **sizes).value,
            n_pairs=n,
            **{name: WORLD[name] for name in ("n_users", "rank", "d1", "nu", "tail_energy")},
            constant=2.0,
        ).value

    n = theory.theorem_4_1_sample_size(target, constant=2.0, **WORLD)
    assert printed(n) <= target < printed(n - 1)
    assert n > 3 * theory.theorem_4_1_sample_size(target, **WORLD)  # c_1 enters squared


def test_a_tail_term_above_the_target_leaves_no_n():
    # sqrt((1 / nu) sqrt(Sigma_tail / N)) = sqrt(0.1 / 0.5) = 0.447
    given = WORLD | {"tail_energy": 10 * 0.1**2}
    assert theory.theorem_4_1_sample_size(0.44, **given) is None
    assert theory.theorem_4_1_sample_size(0.45, **given) > 10**4


def test_the_rising_branch_of_the_logarithm_is_no_answer():
    """One user and delta = 1: at n = 1 the printed formula is zero, which means nothing."""
    given = WORLD | {"n_users": 1, "delta": 1.0, "d1": 4, "d2": 1, "rank": 1}
    for nu, target in ((0.5, 0.9), (100.0, math.sqrt(0.0165))):
        size = theory.theorem_4_1_sample_size(target, **given | {"nu": nu})
        root = by_lambert(target, dimension=5, n_users=1, nu=nu, bias=0.0, delta=1.0)
        assert size == math.ceil(root) >= 5
    # 5 log(n) / (100 n) is above 0.0165 at n = 2, 3 and 4 only
    assert size == 5
    # the target is met at every n here: it counts from n = e on, and a rival without says 1
    given |= {"d1": 2, "nu": 100.0}
    assert theory.theorem_4_1_sample_size(0.9, **given) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, r"target = 0 must be greater than 0"),
        ({"target": -0.1}, r"target = -0.1 must be greater than 0"),
        ({"target": math.nan}, r"target must be finite"),
        ({"target": 1.8}, r"target = 1.8 must be below 1.7320508\d+ = sqrt\(min\(k, d1 - k\)\)"),
        ({"n_users": 0}, r"n_users = 0 must be at least 1"),
        ({"delta": 0.0}, r"delta = 0 must be greater than 0"),
        ({"model_class": "shareb"}, r"unknown model_class 'shareb'"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {"target": 0.3, **WORLD} | change
    with pytest.raises(checks.InputError, match=message) as caught:
        theory.theorem_4_1_sample_size(given.pop("target"), **given)
    assert "\n" not in str(caught.value)


def test_bad_limits_and_searches_are_refused():
    with pytest.raises(checks.InputError, match=r"target = 0 must be greater than 0"):
        theory.limit_sample_size(1.0, 0.0)
    for trace in (-1.0, math.nan):
        with pytest.raises(checks.InputError, match=r"trace = (-1.0|nan) must be at least 0"):
            theory.limit_sample_size(trace, 0.1)
    with pytest.raises(checks.InputError, match=r"candidates is empty"):
        theory.smallest_sample(lambda n: 1.0 / n, 0.1, [])
