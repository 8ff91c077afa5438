"""Every bound and limit on the subspace distance, evaluated for one fit: a row's columns."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.designs import label_precision
from simrlhf.metrics.efficiency import EfficiencyLimits, efficiency_limits, full_limit
from simrlhf.metrics.instance import Instance, measure_instance
from simrlhf.world import World

# failure probability at which printed statements are evaluated
DELTA = 0.05


def bounds_of_fit(
    world: World, preferences: Preferences, result: FitResult, *, n_pairs: int
) -> dict[str, float]:
    """Evaluate S1, S2 at its three levels, Theorem 4.1 with `c_1 = 1`, L1, L2 and Wilks' statistic.

    Args:
        preferences: what `result` was fitted to.
        result: a `share_b` fit at the world's rank, with the world's `theta_init`.
        n_pairs: pairs per user that carry weight, the number asked for where users differ.

    Returns:
        `ceiling` of the distance; `s1`, `s2_a_priori`, `s2_bregman`, `s2_a_posteriori` (bounds of
        this run's distance; infinite where vacuous by a singular design or a deficient rank, which
        has `nu = 0`; NaN where NOT_APPLICABLE: `s2_a_priori` under a link that is not log-concave);
        `s2_slack`, the certificate `max(F(hat) - F(<>), 0)`; `theorem_4_1`, with the mean number of
        pairs; `limit` and `reward_limit`, the root mean square distance and reward error of the
        efficiency limits L1 and L2 (NaN with a tail, or where a user's truth is not inside the
        fit's ball: the limits do not hold there; and where `efficiency_limits` is NaN; `limit` is
        infinite where the features do not identify the subspace); `wilks`,
        `2 [loglik(hat) - loglik(*)]`, and its expected value `parameters`, NaN with a deficiency.

    Raises:
        InputError: the fit is not `share_b`, or has another `theta_init` than the world.
    """
    checks.require(
        result.estimator == "share_b",
        f"the bounds are those of share_b, the fit is of {result.estimator}",
    )
    checks.require(
        np.array_equal(result.theta_init, world.theta_init),
        "the fit has another theta_init than the world, so its Delta is measured from another "
        "base; fit with theta_init=world.theta_init",
    )
    config = world.config
    ceiling = theory.distance_ceiling(config.rank, config.d1)
    if config.deficiency:  # no more sines than the truth has columns
        ceiling = min(ceiling, math.sqrt(config.true_rank))
    mean_pairs = float(world.counts(n_pairs).mean())
    diversity = theory.diversity_metrics(world.delta, config.rank)
    instance = measure_instance(world, preferences, result)
    printed = theory.theorem_4_1(
        log_bracketing=theory.log_bracketing_number(
            n_users=config.n_users,
            n_pairs=mean_pairs,
            d1=config.d1,
            d2=config.d2,
            rank=config.rank,
            delta=DELTA,
        ).value,
        n_users=config.n_users,
        n_pairs=mean_pairs,
        nu=0.0 if config.deficiency else diversity.nu,
        tail_energy=diversity.tail_energy,
        rank=config.rank,
        d1=config.d1,
    )
    return {
        "ceiling": ceiling,
        "s1": theory.geometry_bound(
            instance.error_norm, sigma_k=config.sigma_k, ceiling=ceiling
        ).value,
        **_oracle_inequalities(world, instance, result, diversity.tail_energy, ceiling),
        "theorem_4_1": printed.value,
        **_limits(world, result, n_pairs),
        "wilks": -2.0 * label_precision(world) * instance.excess_over_truth,
        "parameters": _parameters(world),
    }


def _parameters(world: World) -> float:
    """Dimension of the class as far as the features see it."""
    config = world.config
    if config.deficiency:  # the truth is a singular point of the class: Wilks' law fails there
        return math.nan
    seen = config.d1 - (config.features == "degenerate")
    return float(
        theory.parameter_count(
            "share_b", n_users=config.n_users, d1=seen, d2=config.d2, rank=config.rank
        )
    )


def _oracle_inequalities(
    world: World, instance: Instance, result: FitResult, tail_energy: float, ceiling: float
) -> dict[str, float]:
    # a truth outside the ball that the fit was given is still within its own norm
    ball = None if result.norm_bound is None else max(result.norm_bound, _largest_norm(world))
    margin = theory.worst_margin(
        norm_bound=ball,
        feature_norm=instance.largest_feature,
        init_norm=float(np.linalg.norm(world.theta_init)),
    )
    slack = max(instance.excess, 0.0)
    bounds = {
        level: theory.oracle_inequality(
            level=level,
            noise_norm=theory.noise_norm(instance.scores, world.config.rank),
            tail=float(np.sqrt(tail_energy)),
            sigma_k=world.config.sigma_k,
            ceiling=ceiling,
            slack=slack,
            curvature=theory.curvature_floor(world.link, margin=margin),
            smallest_design=instance.smallest_design,
            largest_design=instance.largest_design,
            curvature_bound=world.link.curvature_bound,
            bregman_ratio=theory.bregman_ratio(instance.divergence, instance.error_norm),
            truncation_divergence=max(instance.truncation_divergence, 0.0),
        )
        for level in ("a_priori", "bregman", "a_posteriori")
    }
    return {**{f"s2_{level}": bound.value for level, bound in bounds.items()}, "s2_slack": slack}


def reward_limit(world: World, result: FitResult, *, n_pairs: int) -> float:
    """The root mean square reward error of L2, for fits of share_b, oracle and full.

    NaN for others, where the truth is not in the interior of the class (a tail, which `full` has
    room for, or the fit's ball), and where `efficiency_limits` or `full_limit` is NaN.
    """
    if not _is_inside(world, result):
        return math.nan
    if result.estimator == "full":
        return float(np.sqrt(_full_limit_of(world) / n_pairs))
    if result.estimator not in ("share_b", "oracle"):
        return math.nan
    return float(np.sqrt(getattr(_limits_of(world, n_pairs), result.estimator) / n_pairs))


def _limits(world: World, result: FitResult, n_pairs: int) -> dict[str, float]:
    """L1 and L2, which hold where the truth lies in the interior of the class."""
    if not _is_inside(world, result):
        return {"limit": math.nan, "reward_limit": math.nan}
    return {
        "limit": float(np.sqrt(_limits_of(world, n_pairs).subspace / n_pairs)),
        "reward_limit": reward_limit(world, result, n_pairs=n_pairs),
    }


def _is_inside(world: World, result: FitResult) -> bool:
    """Whether the truth lies in the interior of the fit's class."""
    outside = result.norm_bound is not None and _largest_norm(world) >= result.norm_bound
    return not outside and (world.config.tail == 0 or result.estimator == "full")


def _limits_of(world: World, n_pairs: int) -> EfficiencyLimits:
    """With equal users the limits are the same for every n."""
    return _limits_of_world(world, None if world.count_factors is None else n_pairs)


# the rows of a world follow one another
@lru_cache(maxsize=2)
def _limits_of_world(world: World, n_pairs: int | None) -> EfficiencyLimits:
    return efficiency_limits(world, n_pairs=n_pairs)


@lru_cache(maxsize=2)
def _full_limit_of(world: World) -> float:
    return full_limit(world)


def _largest_norm(world: World) -> float:
    return float(np.linalg.norm(world.delta, axis=(1, 2)).max())
