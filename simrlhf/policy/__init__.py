"""Policies: exact values, optima, occupancies, value gaps, concentrability."""

from simrlhf.policy.concentrability import Concentrability, concentrability
from simrlhf.policy.gaps import ValueGaps, value_gaps
from simrlhf.policy.pair_moments import pair_moments
from simrlhf.policy.values import Plan, feature_expectations, occupancies, optimal_policy, value

__all__ = [
    "Concentrability",
    "Plan",
    "ValueGaps",
    "concentrability",
    "feature_expectations",
    "occupancies",
    "optimal_policy",
    "pair_moments",
    "value",
    "value_gaps",
]
