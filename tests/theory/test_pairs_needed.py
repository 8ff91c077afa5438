"""Remark 3 in exact fractions, and the root of Corollary 4.1 by a solver of its own."""

from __future__ import annotations

import math

import pytest
import scipy.optimize

from simrlhf import theory
from simrlhf.core import checks

WORLD = {"n_users": 10, "d1": 12, "d2": 2, "rank": 3, "nu": 0.5, "tail_energy": 0.0, "delta": 0.05}
# of Corollary 4.1: parameters of the shared count over N, and of one user
SHARED, OWN = 3 * (12 + 20) / 10, 6


def solved(target: float, *, nu: float = 0.5, tail: float = 0.0, constant: float = 1.0) -> float:
    """Real root of Corollary 4.1 with Proposition 1 in it, written out; `tail = Sigma_tail / N`."""

    def excess(log_n: float) -> float:
        n = math.exp(log_n)
        bracket = SHARED * math.log(10 * n / 0.05) / (n * nu) + (OWN + math.log(200)) / n
        return constant**2 * (bracket + math.sqrt(tail) / nu) - target**2

    return math.exp(scipy.optimize.brentq(excess, math.log(1.0), math.log(1e14), xtol=1e-13))


@pytest.mark.parametrize(
    ("model_class", "numerator"), [("share_b", 3 * (12 + 20)), ("full", 240), ("park", 3 * 22)]
)
def test_the_printed_reading_equals_a_hand_calculation(model_class, numerator):
    given = WORLD | ({"d2": 1} if model_class == "park" else {})
    root = 2.0 * numerator * math.log(10 / 0.05) / (10 * 0.07)
    size = theory.pairs_needed(0.07, **given, model_class=model_class, constant=2.0)
    assert size == math.ceil(root)
    # rivals: the logarithm of Proposition 1, which has n in it; the rate that a root implies
    assert size < 0.7 * root / math.log(200) * math.log(10 * root / 0.05)
    assert size < 0.1 * root / 0.07


def test_the_printed_reading_counts_its_bias_in():
    given = WORLD | {"tail_energy": 10 * 1e-4}
    exact = theory.pairs_needed(0.2, **WORLD)
    # (Sigma_tail / N)^{1/4} = 0.1, so eps = 0.3 - 0.1
    assert theory.pairs_needed(0.3, **given) == pytest.approx(exact, abs=1)
    assert theory.pairs_needed(0.1, **given) is None
    assert theory.pairs_needed(0.1, **given, model_class="full") is not None


@pytest.mark.parametrize("nu", [0.5, 0.01])
@pytest.mark.parametrize("tail", [0.0, 1e-6])
def test_the_corollary_is_the_root_of_its_formula(nu, tail):
    given = WORLD | {"nu": nu, "tail_energy": 10 * tail}
    size = theory.pairs_needed(0.6, **given, reading="corollary", constant=1.5)
    assert size == math.ceil(solved(0.6, nu=nu, tail=tail, constant=1.5))
    rivals = [
        solved(0.6, nu=math.sqrt(nu), tail=tail, constant=1.5),
        solved(0.6, nu=nu, tail=tail, constant=math.sqrt(1.5)),
        theory.pairs_needed(0.6, **given, constant=1.5) or math.inf,
    ]
    assert all(abs(size / rival - 1) > 0.1 for rival in rivals)


def test_the_corollary_holds_at_n_and_not_at_one_less():
    sizes = {name: WORLD[name] for name in ("n_users", "d1", "d2", "rank", "delta")}
    n = theory.pairs_needed(0.3, **WORLD, reading="corollary")

    def gap(n_pairs: int) -> float:
        size = theory.log_bracketing_number(**sizes, n_pairs=n_pairs).value
        given = {name: WORLD[name] for name in WORLD if name != "d1"}
        return theory.corollary_4_1(log_bracketing=size, n_pairs=n_pairs, **given).value

    assert gap(n) <= 0.3 < gap(n - 1)


def test_the_readings_differ_by_a_power_of_the_accuracy_and_by_nu():
    """A1: a tenth of eps asks for ten times the pairs as printed, a hundred by the corollary."""

    def growth(change: dict, target: float, **options) -> float:
        return theory.pairs_needed(target, **WORLD | change, **options) / theory.pairs_needed(
            0.01, **WORLD, **options
        )

    assert growth({}, 0.001) == pytest.approx(10.0, rel=0.01)
    by_root = growth({}, 0.001, reading="corollary")
    # the logarithm of n adds to the square
    assert 100.0 < by_root < 150.0
    assert growth({"nu": 0.05}, 0.01) == 1.0
    assert 8.0 < growth({"nu": 0.05}, 0.01, reading="corollary") < 15.0


def test_full_fine_tuning_pays_for_its_entries_alone():
    given = WORLD | {"nu": 0.0, "tail_energy": 9.0}  # neither is used
    size = theory.pairs_needed(0.2, **given, reading="corollary", model_class="full", constant=2.0)
    assert size == math.ceil(4.0 * (24 + math.log(200)) / 0.04)
    # the same as share-B where k = d1, once its subspace is given
    shared = theory.corollary_4_1(
        log_bracketing=0.0,
        n_users=10,
        n_pairs=size,
        nu=1.0,
        tail_energy=0.0,
        rank=12,
        d2=2,
        delta=0.05,
        constant=2.0,
    )
    assert shared.value == pytest.approx(0.2, rel=1 / size)


def test_park_is_share_b_with_one_column():
    given = WORLD | {"d2": 1}
    for reading in ("printed", "corollary"):
        sizes = [
            theory.pairs_needed(0.1, **given, reading=reading, model_class=model_class)
            for model_class in ("park", "share_b")
        ]
        assert sizes[0] == sizes[1]
    for change in ({"d2": 2}, {"tail_energy": 0.1}):
        with pytest.raises(checks.InputError, match="take 'share_b'"):
            theory.pairs_needed(0.1, **given | change, model_class="park")


def test_what_no_number_of_pairs_reaches_is_none():
    # sqrt((1 / nu) sqrt(Sigma_tail / N)) = sqrt(0.1 / 0.5) = 0.447
    given = WORLD | {"tail_energy": 10 * 0.1**2}
    assert theory.pairs_needed(0.44, **given, reading="corollary") is None
    assert theory.pairs_needed(0.45, **given, reading="corollary") > 10**4
    assert theory.pairs_needed(0.5, **WORLD | {"nu": 0.0}, reading="corollary") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.0}, r"target = 0 must be greater than 0"),
        ({"target": math.nan}, r"target must be finite"),
        ({"n_users": 0}, r"n_users = 0 must be at least 1"),
        ({"delta": 0.0}, r"delta = 0 must be greater than 0"),
        ({"tail_energy": -1.0}, r"tail_energy = -1 must be at least 0"),
        ({"constant": 0.0}, r"constant = 0 must be greater than 0"),
        ({"reading": "corollery"}, r"did you mean 'corollary'"),
        ({"model_class": "local"}, r"unknown model_class 'local'"),
        ({"nu": -1.0, "reading": "corollary"}, r"nu = -1 must be at least 0"),
    ],
)
def test_bad_input_is_one_line(change, message):
    given = {"target": 0.3, **WORLD} | change
    with pytest.raises(checks.InputError, match=message) as caught:
        theory.pairs_needed(given.pop("target"), **given)
    assert "\n" not in str(caught.value)
