"""From a truth and a fit to numbers."""

from simrlhf.metrics.bounds import bounds_of_fit, reward_limit
from simrlhf.metrics.confidence import SET_KINDS, fit_sets, has_sets
from simrlhf.metrics.coverage import coverage, has_intervals
from simrlhf.metrics.decisions import decision_gaps
from simrlhf.metrics.efficiency import EfficiencyLimits, efficiency_limits, full_limit
from simrlhf.metrics.guaranteed import guaranteed_values
from simrlhf.metrics.held_out import held_out
from simrlhf.metrics.instance import Instance, measure_instance
from simrlhf.metrics.likelihood_bracket import LikelihoodBracket, likelihood_bracket
from simrlhf.metrics.new_users import (
    Arrival,
    new_user_bounds,
    new_user_errors,
    new_user_gaps,
)
from simrlhf.metrics.pessimism import pessimistic_gaps, sets_and_gaps
from simrlhf.metrics.recovery import recovery

__all__ = [
    "SET_KINDS",
    "Arrival",
    "EfficiencyLimits",
    "Instance",
    "LikelihoodBracket",
    "bounds_of_fit",
    "coverage",
    "decision_gaps",
    "efficiency_limits",
    "fit_sets",
    "full_limit",
    "guaranteed_values",
    "has_intervals",
    "has_sets",
    "held_out",
    "likelihood_bracket",
    "measure_instance",
    "new_user_bounds",
    "new_user_errors",
    "new_user_gaps",
    "pessimistic_gaps",
    "recovery",
    "reward_limit",
    "sets_and_gaps",
]
