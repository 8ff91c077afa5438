"""Park's value gaps by hand, and where Theorem 4.2 becomes one of them."""

from __future__ import annotations

import math

import pytest

from simrlhf import theory
from simrlhf.core import checks

GIVEN = {
    "log_bracketing": 8.0,
    "n_users": 4,
    "n_pairs": 25,
    "rank": 3,
    "delta": 0.1,
    "concentrability": 2.0,
    "xi": 0.5,
    "kappa": 4.0,
    "eta": 0.25,
    "regularisation": 0.3,
}
LOWER = {"n_pairs": 400, "rank": 9, "concentrability": 3.0}
NO_DIVERSITY = {
    "log_bracketing": 8.0,
    "n_users": 4,
    "n_pairs": 25,
    "concentrability": 3.0,
    "kappa": 2.0,
}


def test_theorem_3_1_equals_a_hand_calculation():
    bound = theory.park_theorem_3_1(**GIVEN, constant=2.0)
    # (xi / eta)^2 = 4: 4 * 16 * 3 * 8 / 100 and 4 (3 + log 40) / 25
    estimation, adaptation = 15.36, 0.16 * (3 + math.log(40))
    assert bound.terms["estimation"] == pytest.approx(estimation, rel=1e-14)
    assert bound.terms["adaptation"] == pytest.approx(adaptation, rel=1e-14)
    value = math.sqrt(8.0 * (estimation + adaptation + 0.3))
    assert bound.value == pytest.approx(value, rel=1e-14)
    inverse = theory.park_theorem_3_1(**GIVEN | {"kappa": 0.25}).value  # kappa = eta, as printed
    assert bound.value != pytest.approx(math.sqrt(2.0) * inverse, rel=0.5)


def test_theorem_3_2_differs_by_the_logarithm_of_the_number_of_users():
    earlier, later = theory.park_theorem_3_1(**GIVEN), theory.park_theorem_3_2(**GIVEN)
    less = earlier.terms["adaptation"] - later.terms["adaptation"]
    assert less == pytest.approx(4.0 * math.log(4) / 25, rel=1e-12)
    assert later.terms["estimation"] == earlier.terms["estimation"]
    own = theory.park_theorem_3_2(**GIVEN, own_pairs=50)
    assert own.terms["adaptation"] == pytest.approx(later.terms["adaptation"] / 2, rel=1e-14)
    assert own.terms["estimation"] == later.terms["estimation"]


def test_theorem_4_2_at_one_column_and_nu_one_over_k_is_theorem_3_1():
    shared = {name: GIVEN[name] for name in ("log_bracketing", "n_users", "n_pairs", "delta")}
    ours = theory.theorem_4_2(
        **shared, rank=3, d2=1, nu=1 / 3, tail_energy=0.0, own_bias=0.0, constant=2.0
    )
    theirs = theory.park_theorem_3_1(**shared, rank=3, concentrability=2.0)
    assert theirs.value == pytest.approx(ours.value, rel=1e-14)
    # the rival, a Theorem 3.1 without its k
    assert theirs.terms["estimation"] == pytest.approx(3 * 8.0 / 100, rel=1e-14)


def test_the_lower_bound_equals_a_hand_calculation_and_lies_below_the_upper():
    bound = theory.park_theorem_3_3(**LOWER, constant=0.5)
    assert bound.value == pytest.approx(0.5 * 3.0 * 0.15, rel=1e-14)
    assert bound.status is theory.BoundStatus.INFORMATIVE
    upper = theory.park_theorem_3_1(
        log_bracketing=0.0, n_users=4, n_pairs=400, rank=9, delta=0.1, concentrability=3.0
    )
    assert theory.park_theorem_3_3(**LOWER).value <= upper.value


@pytest.mark.parametrize(
    ("change", "applies"),
    [
        ({"rank": 7}, True),
        ({"rank": 6}, False),
        ({"n_pairs": 81}, True),  # k Lambda^2; a rival k Lambda asks for 27
        ({"n_pairs": 80}, False),
        ({"concentrability": 2.0}, True),
        ({"concentrability": 1.99}, False),
        ({"size_constant": 5.0}, False),
    ],
)
def test_the_lower_bound_knows_where_it_applies(change, applies):
    bound = theory.park_theorem_3_3(**LOWER | change)
    assert (bound.status is theory.BoundStatus.INFORMATIVE) == applies
    assert (bound.status is theory.BoundStatus.NOT_APPLICABLE) == (not applies)
    assert math.isnan(bound.value) == (not applies)


def test_theorem_f_1_equals_a_hand_calculation():
    one = theory.park_theorem_f_1(**NO_DIVERSITY, constant=2.0)
    assert one.value == pytest.approx(math.sqrt(2.0 * 4.0 * 9.0 * 8.0 / 25), rel=1e-14)
    mean = theory.park_theorem_f_1(**NO_DIVERSITY, constant=2.0, case="average")
    # the printed sum is sqrt(c kappa^2 N C^2 log / n); the rival averages to the individual bound
    printed_sum = math.sqrt(2.0 * 4.0 * 4 * 9.0 * 8.0 / 25)
    assert mean.value == pytest.approx(printed_sum / 4, rel=1e-14)


def test_an_infinite_concentrability_or_a_flat_link_says_nothing():
    for change in ({"concentrability": math.inf}, {"eta": 0.0}, {"ceiling": 1.0}):
        for function in (theory.park_theorem_3_1, theory.park_theorem_3_2):
            assert function(**GIVEN | change).status is theory.BoundStatus.VACUOUS
    endless = theory.park_theorem_f_1(**NO_DIVERSITY | {"concentrability": math.inf})
    assert endless.status is theory.BoundStatus.VACUOUS
    covered = theory.park_theorem_3_1(**GIVEN | {"concentrability": 0.0})
    assert (covered.value, covered.status) == (0.0, theory.BoundStatus.INFORMATIVE)


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 0},
        {"delta": 0.0},
        {"concentrability": -1.0},
        {"xi": -1.0},
        {"regularisation": -1.0},
        {"n_users": 0},
        {"n_pairs": 0},
        {"constant": 0.0},
    ],
)
def test_impossible_numbers_are_refused(change):
    name = next(iter(change))
    for function, given in (
        (theory.park_theorem_3_1, GIVEN),
        (theory.park_theorem_3_2, GIVEN),
        (theory.park_theorem_3_3, LOWER),
        (theory.park_theorem_f_1, NO_DIVERSITY),
    ):
        if name in given or name == "constant":
            with pytest.raises(checks.InputError, match=name):
                function(**given | change)


def test_an_unknown_case_is_refused():
    with pytest.raises(checks.InputError, match="did you mean 'average'"):
        theory.park_theorem_f_1(**NO_DIVERSITY, case="averaged")
