"""Printed value gaps by hand, and the step from Theorem 4.2 to its corollary on real deviations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks

AVERAGE = {
    "log_bracketing": 8.0,
    "n_users": 4,
    "n_pairs": 25,
    "nu": 0.5,
    "tail_energy": 0.01,
    "rank": 2,
    "d2": 3,
    "delta": 0.1,
}
INDIVIDUAL = AVERAGE | {"own_bias": 0.07}
APPENDIX = {name: AVERAGE[name] for name in AVERAGE if name not in ("rank", "d2", "delta")}


def test_theorem_4_2_equals_a_hand_calculation():
    bound = theory.theorem_4_2(**INDIVIDUAL, constant=0.5)
    # 8 / 50, (6 + log 40) / 25, 0.05 / 0.5 and b_i
    assert bound.terms == pytest.approx(
        {"estimation": 0.16, "adaptation": 0.3875551781645575, "bias": 0.1, "own_bias": 0.07},
        rel=1e-14,
    )
    assert bound.value == pytest.approx(0.5 * math.sqrt(0.7175551781645575), rel=1e-14)
    assert bound.status is theory.BoundStatus.INFORMATIVE
    for rival in (
        0.5 * sum(math.sqrt(term) for term in bound.terms.values()),  # a root over each
        0.5 * math.sqrt(0.33 + (6 + math.log(10)) / 25),  # log(1 / delta), as for one user
        0.5 * math.sqrt(0.33 + 6 * math.log(40) / 25),  # a product for the sum
        0.5 * math.sqrt(0.33 + (6 + math.log(40)) / 100),  # as if N users helped to adapt
    ):
        assert bound.value != pytest.approx(rival, rel=0.02)


def test_the_gap_has_the_subspace_terms_of_theorem_4_1():
    given = {name: APPENDIX[name] for name in APPENDIX}
    closeness = theory.theorem_4_1(**given, rank=2, d1=9)
    gap = theory.theorem_4_2(**INDIVIDUAL)
    assert {name: gap.terms[name] for name in closeness.terms} == closeness.terms


def test_corollary_4_1_is_theorem_4_2_without_the_own_bias():
    average = theory.corollary_4_1(**AVERAGE, constant=2.0)
    individual = theory.theorem_4_2(**AVERAGE, own_bias=0.0, constant=2.0)
    assert average.value == individual.value
    assert average.value < theory.theorem_4_2(**INDIVIDUAL, constant=2.0).value
    assert average.terms["condition"] == 1.0


@pytest.mark.parametrize(("tail_energy", "holds"), [(15.99, 1.0), (16.0, 1.0), (16.01, 0.0)])
def test_the_condition_compares_n_with_nu_squared_times_the_tail(tail_energy, holds):
    given = AVERAGE | {"tail_energy": tail_energy}
    # 4 >= 0.25 tail; with nu for its square it would turn at 8
    assert theory.corollary_4_1(**given).terms["condition"] == holds
    appendix = theory.corollary_b_1(**APPENDIX | {"tail_energy": tail_energy})
    assert (appendix.status is theory.BoundStatus.NOT_APPLICABLE) == (holds == 0.0)


@pytest.mark.parametrize(("scale", "holds"), [(0.2, True), (4.0, False)])
def test_the_corollary_absorbs_the_own_biases_only_under_its_condition(scale, holds):
    """The mean over users of Theorem 4.2 against sqrt(2) times Corollary 4.1, on one world."""
    rng = np.random.default_rng(3)
    truth = theory.diversity_metrics(scale * rng.normal(size=(8, 6, 1)), rank=2)
    given = AVERAGE | {
        "log_bracketing": 0.0,
        "n_users": 8,
        "n_pairs": 1e9,
        "nu": truth.nu,
        "tail_energy": truth.tail_energy,
    }
    gaps = [theory.theorem_4_2(**given, own_bias=own).value for own in truth.user_bias]
    corollary = theory.corollary_4_1(**given)
    assert corollary.terms["condition"] == holds
    assert (np.mean(gaps) <= math.sqrt(2.0) * corollary.value) == holds


def test_corollary_b_1_equals_a_hand_calculation():
    bound = theory.corollary_b_1(**APPENDIX, constant=3.0)
    assert bound.value == pytest.approx(3.0 * math.sqrt(0.08) + 0.05, rel=1e-14)
    # rivals: 1 / nu inside, the constant on both terms, a common root
    for rival in (3.0 * 0.4 + 0.05, 3.0 * (math.sqrt(0.08) + 0.05), 3.0 * math.sqrt(0.08 + 0.05)):
        assert bound.value != pytest.approx(rival, rel=0.02)


@pytest.mark.parametrize(
    "change", [{"nu": 0.0}, {"ceiling": 0.5}, {"tail_energy": math.inf}, {"nu": math.nan}]
)
def test_value_gaps_say_when_they_say_nothing(change):
    for function, given in (
        (theory.theorem_4_2, INDIVIDUAL),
        (theory.corollary_4_1, AVERAGE),
    ):
        bound = function(**given | change)
        assert bound.status is theory.BoundStatus.VACUOUS
        assert not math.isnan(bound.value)


@pytest.mark.parametrize(
    "change",
    [
        {"nu": -1.0},
        {"own_bias": -0.1},
        {"rank": 0},
        {"d2": 0},
        {"delta": 0.0},
        {"delta": 1.5},
        {"constant": 0.0},
        {"n_pairs": 0},
        {"n_users": 0},
    ],
)
def test_value_gaps_refuse_impossible_numbers(change):
    name = next(iter(change))
    with pytest.raises(checks.InputError, match=name):
        theory.theorem_4_2(**INDIVIDUAL | change)
    if name != "own_bias":
        with pytest.raises(checks.InputError, match=name):
            theory.corollary_4_1(**AVERAGE | change)
    if name not in ("own_bias", "rank", "d2", "delta"):
        with pytest.raises(checks.InputError, match=name):
            theory.corollary_b_1(**APPENDIX | change)
