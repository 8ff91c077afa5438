"""The efficiency limits L1 and L2 of a world: what no regular estimator beats, at its own truth."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.metrics.designs import (
    MOST_IN_MATRICES,
    has_informations,
    informations,
    label_precision,
    matrix_numbers,
    moments_of,
    second_moments,
)
from simrlhf.world import World
from simrlhf.world.config import TRAJECTORIES

# below this share of the largest eigenvalue an information says nothing of a direction
_UNSEEN = 1e-10


class EfficiencyLimits(NamedTuple):
    """Limits of `n E[error^2]` for users who share a basis, and whose truth has no tail.

    Attributes:
        subspace: L1, of the squared subspace distance; infinite where it is not identified.
        share_b, oracle: L2, mean over the users of `tr(S Cov_i)`: of the squared reward error under
            the world's features.
    """

    subspace: float
    share_b: float
    oracle: float


def efficiency_limits(
    world: World, users: slice = slice(None), *, n_pairs: int | None = None
) -> EfficiencyLimits:
    """L1 and L2 of `users`, in closed form where there is no base model, from matrices otherwise.

    They hold for a truth without a tail, in the interior of the norm bound. NaN where there is no
    such limit (L1 and L2 of share-B under a deficient rank), where it has no closed form (bounded
    features under a preference link; trajectories of more than one step, or that leave directions
    unseen), and where a base model would take more than 0.5 GB of
    matrices (`matrix_numbers`).

    Args:
        users: the users who share a basis, all by default.
        n_pairs: the mean number of pairs; where users differ it decides the roundings of `n_i / n`,
            which are taken exactly as `World.count_factors` without it.
    """
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta[users])
    if world.config.features == TRAJECTORIES:
        return _of_trajectories(world, users, factors, _weights(world, users, n_pairs))
    law = information_law(world)
    if law is None or (world.theta_init.any() and matrix_numbers(world.config) > MOST_IN_MATRICES):
        return EfficiencyLimits(math.nan, math.nan, math.nan)
    given = {"precision": label_precision(world), "weights": _weights(world, users, n_pairs)}
    if world.theta_init.any():
        found = _from_matrices(world, users, factors, law=law, **given)
    elif world.feature_root is not None:
        of = theory.gaussian_limits(
            world.basis, factors, world.link, root=world.feature_root, **given
        )
        found = EfficiencyLimits(
            of.subspace, float(of.reward.mean()), float(of.oracle_reward.mean())
        )
    else:
        of = theory.isotropic_limits(factors, world.link, d1=world.config.d1, law=law, **given)
        found = EfficiencyLimits(
            of.subspace, float(of.reward.mean()), float(of.oracle_reward.mean())
        )
    if world.config.deficiency:  # share-B with columns to spare is no regular problem
        return found._replace(subspace=math.nan, share_b=math.nan)
    return found


def _from_matrices(
    world: World,
    users: slice,
    factors: np.ndarray,
    *,
    law: str,
    precision: float,
    weights: np.ndarray | None,
) -> EfficiencyLimits:
    """From every user's information, in coordinates in which the features are isotropic."""
    theta, basis, whitened = world.theta[users], world.basis, factors
    seen = None
    if world.feature_root is not None:
        seen = theory.seen_directions(world.feature_root)
        theta = seen.T @ theta
        basis, inner = np.linalg.qr(seen.T @ basis)
        whitened = inner @ factors
    informations = precision * theory.isotropic_fisher(theta, world.link, law)
    given = (basis, whitened, informations, weights)
    shared, oracle = (
        np.trace(theory.reward_covariances(*given, kind=kind), axis1=1, axis2=2)
        for kind in ("joint", "oracle")
    )
    if seen is not None and seen.shape[1] < world.config.d1:
        subspace = math.inf
    elif seen is not None:  # the distance is measured in the features' own coordinates
        turn = np.kron(seen, np.eye(world.config.d2))
        informations = turn @ informations @ turn.T
        subspace = theory.subspace_limit(world.basis, factors, informations, weights).value
    else:
        subspace = theory.subspace_limit(*given).value
    return EfficiencyLimits(subspace, float(shared.mean()), float(oracle.mean()))


def _of_trajectories(
    world: World, users: slice, factors: np.ndarray, weights: np.ndarray | None
) -> EfficiencyLimits:
    """From the listed pairs of a bandit whose comparisons see every direction."""
    nothing = EfficiencyLimits(math.nan, math.nan, math.nan)
    if not has_informations(world):
        return nothing
    found = informations(world)[users]
    if world.config.deficiency or not sees_everything(found):
        return nothing
    covariance = moments_of(world, users)
    given = (world.basis, factors, found, weights)
    shared, oracle = (
        np.einsum("npq,nqp->n", covariance, theory.reward_covariances(*given, kind=kind)).mean()
        for kind in ("joint", "oracle")
    )
    return EfficiencyLimits(theory.subspace_limit(*given).value, float(shared), float(oracle))


def sees_everything(matrices: np.ndarray) -> bool:
    """Whether all have an inverse beyond rounding."""
    values = np.linalg.eigvalsh(matrices)
    return bool((values[:, 0] > _UNSEEN * values[:, -1]).all())


def _weights(world: World, users: slice, n_pairs: int | None) -> np.ndarray | None:
    if world.count_factors is None:
        return None
    if n_pairs is None:
        return world.count_factors[users]
    return world.counts(n_pairs)[users] / n_pairs


def full_limit(world: World) -> float:
    """L2 of `full`, which has every truth in its class: the limit of its `n E[reward_error^2]`.

    NaN where `efficiency_limits` has no closed form.
    """
    if world.config.features == TRAJECTORIES:
        return _full_of_trajectories(world)
    law = information_law(world)
    if law is None:
        return math.nan
    theta = world.theta
    if world.feature_root is not None:
        theta = theory.seen_directions(world.feature_root).T @ theta
    # one row, so the basis is the number 1 and every entry of Theta_i is free
    free = theta.reshape(world.n_users, 1, -1)
    found = theory.isotropic_limits(
        free,
        world.link,
        d1=1,
        law=law,
        precision=label_precision(world),
        weights=world.count_factors,
    )
    return float(found.full_reward.mean())


def _full_of_trajectories(world: World) -> float:
    if not has_informations(world):
        return math.nan
    found = informations(world)
    if not sees_everything(found):
        return math.nan
    each = np.trace(np.linalg.solve(found, second_moments(world)), axis1=1, axis2=2)
    shares = 1.0 if world.count_factors is None else world.count_factors
    return float(np.mean(each / shares))


def information_law(world: World) -> str | None:
    """The isotropic law behind the features; `None` where the information has no closed form."""
    if world.config.features == "sphere":
        return "sphere"
    # under the identity link the information is 1, and the covariance all that counts
    if world.config.features == "bounded" and world.link.is_preference:
        return None
    return "gaussian"
