"""What is guaranteed to a user over the rank-k likelihood-ratio set, from below and from above."""

from __future__ import annotations

import numpy as np

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.confidence import fit_sets
from simrlhf.metrics.decisions import require_decision
from simrlhf.metrics.instance import measure_instance
from simrlhf.metrics.likelihood_bracket import likelihood_bracket
from simrlhf.policy import optimal_policy, pessimistic_policy, value
from simrlhf.world import World

_LEVEL = 0.95
# a bracket takes seconds for a user
_USERS = 2


def guaranteed_values(
    world: World, preferences: Preferences, result: FitResult
) -> dict[str, float]:
    """`likelihood_bracket` of the first two users, beside what other sets promise them.

    Returns:
        Means over the two users, counted from the second behaviour policy's values:
        `guaranteed_below`, `guaranteed_above`, between which the pessimistic value over the rank-k
        set lies; `guaranteed_searched`, what the search found of it; `guaranteed_slice`,
        `guaranteed_fisher`, those over the set at the fitted basis and over Fisher ellipsoids;
        `attainable`, the value of the best policies under the truth. `truth_is_in`, whether the
        rank-k set holds the truth of all users: 2 [F(*) - F(hat)] at most its chi-square quantile.

    Raises:
        InputError: the world has no decision problem, or as `likelihood_bracket`.
    """
    require_decision(world)
    assert world.mdp is not None
    assert world.behaviours is not None
    reference = world.behaviours.second
    users = np.arange(min(_USERS, world.n_users))
    found = likelihood_bracket(
        world.mdp, preferences, result, reference=reference, confidence=_LEVEL, users=users
    )
    fisher = fit_sets(preferences, result, confidence=_LEVEL)
    plan = pessimistic_policy(world.mdp, fisher, reference=reference, tol=1e-4)
    best = optimal_policy(world.mdp, world.theta).value - value(world.mdp, reference, world.theta)
    excess = -2.0 * measure_instance(world, preferences, result).excess_over_truth
    return {
        "guaranteed_below": float(found.lower.mean()),
        "guaranteed_above": float(found.upper.mean()),
        "guaranteed_searched": float(found.searched.mean()),
        "guaranteed_slice": float(found.slice.mean()),
        "guaranteed_fisher": float(plan.value[users].mean()),
        "attainable": float(best[users].mean()),
        "truth_is_in": float(excess <= found.radius**2),
    }
