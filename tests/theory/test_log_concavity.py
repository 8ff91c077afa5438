"""What needs a log-concave link says so under one that is not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import links

INGREDIENTS = {
    "noise_norm": 1.0,
    "tail": 0.0,
    "sigma_k": 2.0,
    "ceiling": 1.4,
    "smallest_design": 5.0,
    "largest_design": 20.0,
    "bregman_ratio": 3.0,
    "truncation_divergence": 0.0,
}


def bound(link: links.Link, level: str, margin: float) -> theory.Bound:
    return theory.oracle_inequality(
        level=level,
        curvature=theory.curvature_floor(link, margin=margin),
        curvature_bound=link.curvature_bound,
        **INGREDIENTS,
    )


@pytest.mark.parametrize("margin", [3.0, 30.0, math.inf])
def test_s2_a_priori_makes_no_claim_under_label_flip_and_the_other_levels_do(margin):
    found = bound(links.LABEL_FLIP, "a_priori", margin)
    assert found.status is theory.BoundStatus.NOT_APPLICABLE
    assert "no claim" in found.status.sentence
    assert math.isnan(found.value)
    assert found.terms == {}
    for level in ("bregman", "a_posteriori"):
        assert bound(links.LABEL_FLIP, level, margin).status is theory.BoundStatus.INFORMATIVE
    # the rival takes the last curvature for the smallest: it is above -1e-12 at 30
    ends = links.LABEL_FLIP.loss_curvature(np.array([-30.0]), np.array([1.0]))
    assert float(ends[0]) > -1e-11
    assert theory.curvature_floor(links.LABEL_FLIP, margin=30.0) < -0.1


def test_near_zero_the_flipped_loss_is_convex_and_s2_holds_a_priori():
    # psi'' > 0 where Phi > sqrt(e (1 - e)) = 0.3 at e = 0.1, that is z > -log 3
    assert theory.curvature_floor(links.LABEL_FLIP, margin=math.log(3) - 0.01) > 0
    assert theory.curvature_floor(links.LABEL_FLIP, margin=math.log(3) + 0.01) < 0
    assert bound(links.LABEL_FLIP, "a_priori", 0.2).status is not (
        theory.BoundStatus.NOT_APPLICABLE
    )


def test_laplace_is_vacuous_a_priori_and_probit_is_not():
    assert theory.curvature_floor(links.LAPLACE, margin=1.0) == 0.0
    assert bound(links.LAPLACE, "a_priori", 1.0).status is theory.BoundStatus.VACUOUS
    assert theory.curvature_floor(links.PROBIT, margin=1.0) > 0.1
    assert theory.curvature_floor(links.PROBIT, margin=math.inf) == 0.0
