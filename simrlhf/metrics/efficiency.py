"""The efficiency limits L1 and L2 of a world: what no regular estimator beats, at its own truth."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.world import World


class EfficiencyLimits(NamedTuple):
    """Limits of `n E[error^2]` for users who share a basis, and whose truth has no tail.

    Attributes:
        subspace: L1, of the squared subspace distance; infinite where it is not identified.
        share_b, oracle: L2, mean over the users of `tr Cov_i`: of the squared reward error.
    """

    subspace: float
    share_b: float
    oracle: float


def efficiency_limits(world: World, users: slice = slice(None)) -> EfficiencyLimits:
    """L1 and L2 of `users`, in closed form where there is no base model, from matrices otherwise.

    They hold for a truth without a tail, in the interior of the norm bound.
    """
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta[users])
    law = _information_law(world)
    if not world.theta_init.any():
        found = theory.isotropic_limits(factors, world.link, d1=world.config.d1, **law)
        shared, oracle, subspace = found.reward, found.oracle_reward, found.subspace
    else:
        informations = law["precision"] * theory.isotropic_fisher(
            world.theta[users], world.link, law["law"]
        )
        given = (world.basis, factors, informations)
        shared, oracle = (
            np.trace(theory.reward_covariances(*given, kind=kind), axis1=1, axis2=2)
            for kind in ("joint", "oracle")
        )
        subspace = theory.subspace_limit(*given).value
    return EfficiencyLimits(subspace, float(shared.mean()), float(oracle.mean()))


def full_limit(world: World) -> float:
    """L2 of `full`, which has every truth in its class: the limit of its `n E[reward_error^2]`."""
    # one row, so the basis is the number 1 and every entry of Theta_i is free
    free = world.theta.reshape(world.n_users, 1, -1)
    found = theory.isotropic_limits(free, world.link, d1=1, **_information_law(world))
    return float(found.full_reward.mean())


def label_precision(world: World) -> float:
    """What turns a loss into a negative log-likelihood: `1 / noise^2` for regression."""
    return 1.0 if world.link.is_preference else world.config.noise**-2


def _information_law(world: World) -> dict[str, Any]:
    return {"law": world.config.features, "precision": label_precision(world)}
