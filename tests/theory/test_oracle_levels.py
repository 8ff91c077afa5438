"""S2 on plain numbers: the formula by hand, its looser printed form, statuses and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks

ROUNDING = 1 + 1e-12  # two ways to add five numbers


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(43)


def plain(**changes) -> dict[str, float]:
    return {
        "noise_norm": 0.7,
        "tail": 0.2,
        "sigma_k": 3.0,
        "ceiling": 1.0,
        "curvature": 0.1,
        "smallest_design": 20.0,
        "largest_design": 50.0,
        "curvature_bound": 0.25,
        "bregman_ratio": 2.5,
        "truncation_divergence": 0.1,
    } | changes


def test_the_truncated_error_is_never_above_part_ii_nor_the_error_above_its_sharper_form(rng):
    for _ in range(500):
        given = plain(
            noise_norm=rng.exponential(), tail=rng.exponential(), curvature=rng.uniform(0.01, 0.25)
        )
        terms = theory.oracle_inequality(**given).terms
        noise, tail = terms["noise"], terms["tail"]
        q = (terms["bias"] / tail) ** 2
        assert q >= 1.0
        assert terms["truncated_error"] <= (2.0 * noise + (1.0 + q) * tail) * ROUNDING
        assert terms["error"] <= (2.0 * noise + math.sqrt(q) * tail) * ROUNDING


def test_a_value_equals_a_hand_calculation_at_each_level():
    by_hand = {"a_priori": (2.0, 0.5), "bregman": (2.5, 0.5), "a_posteriori": (2.5, 0.2)}
    for level, (kappa, excess) in by_hand.items():
        bound = theory.oracle_inequality(level=level, slack=0.05, **plain())
        u = 0.7 / kappa
        error = u + math.sqrt(u * u + 2 * u * 0.2 + excess / kappa + 0.1 / kappa)
        assert bound.value == pytest.approx(error / 3.0, rel=1e-13)
        assert bound.terms["curvature_product"] == kappa
        assert level in bound.statement


@pytest.mark.parametrize(
    ("level", "change"),
    [
        # without noise or tail the value would be 0: only the rule about m and M speaks
        ("a_priori", {"smallest_design": 50.0 * 1e-10, "noise_norm": 0.0, "tail": 0.0}),
        ("a_priori", {"smallest_design": 0.0}),
        ("a_priori", {"curvature": 0.0}),
        ("bregman", {"bregman_ratio": 0.0}),
        ("a_posteriori", {"bregman_ratio": math.nan}),
        ("a_priori", {"sigma_k": 0.0}),
        ("a_priori", {"noise_norm": math.inf}),
        ("a_posteriori", {"ceiling": 0.01}),
    ],
)
def test_s2_says_when_it_says_nothing(level, change):
    assert theory.oracle_inequality(level=level, **plain()).status == "informative"
    bound = theory.oracle_inequality(level=level, **plain(**change))
    assert bound.status is theory.BoundStatus.VACUOUS
    assert not math.isnan(bound.value)


def test_a_singular_design_is_vacuous_only_where_it_is_used():
    given = plain(smallest_design=0.0)
    assert theory.oracle_inequality(level="a_posteriori", **given).status == "informative"
    just_above = plain(smallest_design=51.0 * 1e-10, noise_norm=0.0, tail=0.0)
    assert theory.oracle_inequality(**just_above).status == "informative"


def test_missing_and_impossible_ingredients_are_named():
    given = plain()
    del given["curvature"], given["largest_design"]
    with pytest.raises(checks.InputError, match="also needs curvature, largest_design"):
        theory.oracle_inequality(**given)
    theory.oracle_inequality(level="a_posteriori", **given)
    with pytest.raises(checks.InputError, match="slack"):
        theory.oracle_inequality(slack=-0.1, **plain())
    with pytest.raises(checks.InputError, match="level"):
        theory.oracle_inequality(level="posterior", **plain())
