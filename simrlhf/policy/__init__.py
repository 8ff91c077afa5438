"""Policies: exact values, optima, occupancies, value gaps, concentrability, pessimism."""

from simrlhf.policy.concentrability import Concentrability, concentrability
from simrlhf.policy.confidence_sets import (
    Ellipsoids,
    design_ellipsoid,
    fisher_ellipsoid,
    frobenius_ball,
)
from simrlhf.policy.gaps import ValueGaps, value_gaps
from simrlhf.policy.likelihood_sets import LikelihoodSets, likelihood_set
from simrlhf.policy.pair_moments import pair_moments
from simrlhf.policy.pessimism import PessimisticPlan, PlanStatus, pessimistic_policy
from simrlhf.policy.values import Plan, feature_expectations, occupancies, optimal_policy, value

__all__ = [
    "Concentrability",
    "Ellipsoids",
    "LikelihoodSets",
    "PessimisticPlan",
    "Plan",
    "PlanStatus",
    "ValueGaps",
    "concentrability",
    "design_ellipsoid",
    "feature_expectations",
    "fisher_ellipsoid",
    "frobenius_ball",
    "likelihood_set",
    "occupancies",
    "optimal_policy",
    "pair_moments",
    "pessimistic_policy",
    "value",
    "value_gaps",
]
