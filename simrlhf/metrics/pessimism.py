"""What users lose to policies that are pessimistic over a confidence set around a fit."""

from __future__ import annotations

import numpy as np
import scipy.stats

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.core.links import get_link
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.decisions import KINDS
from simrlhf.metrics.designs import MOST_IN_MATRICES
from simrlhf.policy import Ellipsoids, fisher_ellipsoid, optimal_policy, pessimistic_policy, value
from simrlhf.world import World

# of a fit without a norm bound: rewards of such a size are no surprise
_USUAL_NORM = 10.0
# a value gap is measured to this share of the range of values
_TOLERANCE = 1e-4


def pessimistic_gaps(
    world: World, preferences: Preferences, result: FitResult, *, confidence: float = 0.95
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
    checks.require(
        world.mdp is not None,
        "this world has no decision problem; give WorldConfig a decision = DecisionConfig(...)",
    )
    assert world.mdp is not None
    assert world.behaviours is not None
    sets = fit_sets(preferences, result, confidence=confidence)
    plan = pessimistic_policy(world.mdp, sets, reference=world.behaviours.second, tol=_TOLERANCE)
    best = optimal_policy(world.mdp, world.theta).value
    gaps = best - value(world.mdp, plan.policy, world.theta)
    share = plan.certificate / np.where(plan.scale > 0.0, plan.scale, 1.0)
    return {
        "pessimistic_gap": float(gaps.mean()),
        "pessimistic_worst_gap": float(gaps.max()),
        "set_coverage": float(sets.holds(world.theta).mean()),
        "largest_certificate": float(share.max()),
    }


def has_sets(result: FitResult) -> bool:
    """Whether `fit_sets` knows the covariance of a fit's class."""
    return result.estimator in KINDS


def fit_sets(
    preferences: Preferences, result: FitResult, *, confidence: float = 0.95
) -> Ellipsoids:
    """Ellipsoids of nominal coverage around a fit, by the covariance of L2 at the fit itself.

        { Theta_hat_i + Cov_i^{1/2} u / sqrt(n) : ||u||^2 <= chi^2_p quantile }

    Informations are those of the user's own pairs plus `1 / (n_i R^2)` in every direction, R the
    fit's norm bound: what no pair shows is bounded by the class. The quantile is that of all
    `p = d1 d2` directions at once.

    Raises:
        InputError: another class than share_b, oracle or full; covariances of all users above half
            a gigabyte.
    """
    kind = KINDS.get(result.estimator)
    checks.require(
        kind is not None,
        f"{result.estimator} has no covariance here; sets are known of {', '.join(KINDS)}",
    )
    assert kind is not None
    n_users, size = result.delta.shape[0], result.delta[0].size
    checks.require(
        n_users * size**2 <= MOST_IN_MATRICES,
        f"covariances of N = {n_users} users and d1 d2 = {size} take {n_users * size**2:,} "
        f"numbers, above the limit {MOST_IN_MATRICES:,}; lower either",
    )
    level = checks.real("confidence", confidence, above=0.0, high=1.0 - 1e-9)
    counts = np.bincount(preferences.users, weights=preferences.weights, minlength=n_users)
    norm = _USUAL_NORM if result.norm_bound is None else result.norm_bound
    link = get_link(preferences.link)
    theta = (result.theta_init + result.delta).reshape(n_users, -1)
    informations = np.empty((n_users, size, size))
    for user in range(n_users):
        mine = preferences.user(user)
        x, weights = preferences.features[mine].reshape(-1, size), preferences.weights[mine]
        seen = weights * np.asarray(link.information(x @ theta[user]))
        informations[user] = x.T @ (seen[:, None] * x) / counts[user]
        informations[user] += np.eye(size) / (counts[user] * norm**2)
    mean = counts.mean()
    factors = np.einsum("ak,nab->nkb", result.basis, result.delta)
    covariance = theory.reward_covariances(
        result.basis, factors, informations, counts / mean, kind=kind
    )
    radius = float(np.sqrt(scipy.stats.chi2.ppf(level, size)))
    return fisher_ellipsoid(result.theta_init + result.delta, covariance / mean, radius)
