"""What users lose to policies that are pessimistic over a confidence set around a fit."""

from __future__ import annotations

import numpy as np

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.confidence import SetsOfFit, fit_sets
from simrlhf.metrics.decisions import require_decision
from simrlhf.policy import Ellipsoids, LikelihoodSets, optimal_policy, pessimistic_policy, value
from simrlhf.world import World

# nominal coverages at which the actual one is measured
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
# of the sets that policies are pessimistic over
_LEVEL = 0.95
# a value gap is measured to this share of the range of values
_TOLERANCE = 1e-4


def pessimistic_gaps(
    world: World, preferences: Preferences, result: FitResult, *, confidence: float = _LEVEL
) -> dict[str, float]:
    """Value gaps of the policies that are pessimistic over `fit_sets`, exactly.

    Args:
        preferences: what `result` was fitted to.
        confidence: nominal coverage of every user's set.

    Returns:
        `pessimistic_gap`, `J(pi*_i; r*_i) - J(pi_i; r*_i)` averaged over users;
        `pessimistic_worst_gap`, its maximum; `set_coverage`, the share of users whose set holds his
        truth; `largest_certificate`, over the range of values: how far from optimal any of the
        policies can be. Values are counted from those of the second behaviour policy.

    Raises:
        InputError: the world has no decision problem, or as `fit_sets`.
    """
    require_decision(world)
    sets = fit_sets(preferences, result, confidence=confidence)
    gaps, share = _gaps(world, sets)
    return {
        "pessimistic_gap": float(gaps.mean()),
        "pessimistic_worst_gap": float(gaps.max()),
        "set_coverage": float(sets.holds(world.theta).mean()),
        "largest_certificate": float(share.max()),
    }


def sets_and_gaps(world: World, preferences: Preferences, result: FitResult) -> dict[str, float]:
    """Every kind of `fit_sets`: how often it holds the truth, and what pessimism over it loses.

    Returns:
        For every kind that the fit can have: `covered_KIND_LEVEL`, the share of users whose set of
        nominal coverage LEVEL per cent holds his truth, for `LEVELS` (an oracle radius has no
        level: its sets hold the truth by construction); `all_covered_KIND`, whether those of 95 %
        hold all; `pessimistic_gap_KIND`, the mean value gap over those of 95 %.

    Raises:
        InputError: as `pessimistic_gaps`.
    """
    require_decision(world)
    around = SetsOfFit(preferences, result, world)
    row: dict[str, float] = {}
    for kind in around.kinds():
        usual = around.at(kind, _LEVEL)
        gaps, _ = _gaps(world, usual)
        row[f"pessimistic_gap_{kind}"] = float(gaps.mean())
        if kind.endswith("oracle"):
            continue
        for level in LEVELS:
            sets = usual if level == _LEVEL else around.at(kind, level)
            held = sets.holds(world.theta)
            row[f"covered_{kind}_{100 * level:g}"] = float(held.mean())
            if level == _LEVEL:
                row[f"all_covered_{kind}"] = float(held.all())
    return row


def _gaps(world: World, sets: Ellipsoids | LikelihoodSets) -> tuple[np.ndarray, np.ndarray]:
    """Value gaps `(N,)` of the pessimistic policies, and their relative certificates."""
    assert world.mdp is not None
    assert world.behaviours is not None
    plan = pessimistic_policy(world.mdp, sets, reference=world.behaviours.second, tol=_TOLERANCE)
    best = optimal_policy(world.mdp, world.theta).value
    share = plan.certificate / np.where(plan.scale > 0.0, plan.scale, 1.0)
    return best - value(world.mdp, plan.policy, world.theta), share
