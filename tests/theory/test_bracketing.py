"""Proposition 1 as printed, by hand and against its printed comparison."""

from __future__ import annotations

import math

import pytest

from simrlhf import theory
from simrlhf.core import checks

SIZES = {"n_users": 10, "n_pairs": 50, "d1": 6, "d2": 3, "rank": 2, "delta": 0.1}


def test_values_equal_a_hand_calculation():
    log = math.log(10 * 50 / 0.1)
    for model_class, dimension in (("share_b", 2 * (6 + 30)), ("full", 180), ("local", 180)):
        bound = theory.log_bracketing_number(**SIZES, model_class=model_class)
        assert bound.terms["dimension"] == dimension
        assert bound.value == pytest.approx(dimension * log, rel=1e-14)
        assert bound.status is theory.BoundStatus.INFORMATIVE


def test_delta_stands_inside_the_logarithm():
    both = [theory.log_bracketing_number(**SIZES | {"delta": delta}) for delta in (0.1, 0.01)]
    gained = both[1].value - both[0].value
    # the printed form multiplies log(1 / delta) by the dimension; the rival adds it once
    assert gained == pytest.approx(72 * math.log(10.0), rel=1e-12)
    assert gained != pytest.approx(math.log(10.0), rel=0.5)


def test_sharing_turns_n_d1_k_into_d1_k():
    shared = theory.log_bracketing_number(**SIZES)
    local = theory.log_bracketing_number(**SIZES, model_class="local")
    assert local.terms["dimension"] - shared.terms["dimension"] == 2 * 6 * (10 - 1)


def test_the_constant_multiplies():
    assert theory.log_bracketing_number(**SIZES, constant=3.0).value == pytest.approx(
        3.0 * theory.log_bracketing_number(**SIZES).value, rel=1e-14
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"delta": 0.0},
        {"delta": 1.1},
        {"rank": 0},
        {"n_users": 0},
        {"n_pairs": 0},
        {"constant": 0.0},
        {"model_class": "shareb"},
    ],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(checks.InputError, match=next(iter(wrong))):
        theory.log_bracketing_number(**SIZES | wrong)
