"""Second moments and Fisher informations of the features that a world's users compare."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.policy import pair_moments
from simrlhf.world import World
from simrlhf.world.config import TRAJECTORIES, WorldConfig

# numbers in one array of matrices of side d1 d2 for each user; several live at once
MOST_IN_MATRICES = 2**26
# pairs of a bandit that are listed one by one, times the numbers in one of them
_MOST_LISTED = 2**25


def matrix_numbers(config: WorldConfig) -> int:
    """Numbers in the largest array that limits take where matrices of side d1 d2 are needed."""
    size, subspace = config.d1 * config.d2, (config.d1 - config.rank) * config.rank
    return max(config.n_users * size * max(size, subspace), subspace**2)


# the rows of a world follow one another
@lru_cache(maxsize=2)
def second_moments(world: World) -> np.ndarray:
    """`Sigma = E[vec x vec x']` of features that are trajectories, `(1 or N, p, p)`."""
    assert world.mdp is not None
    assert world.behaviours is not None
    found = pair_moments(world.mdp, world.behaviours)
    return found[None] if found.ndim == 2 else found


def reward_size(world: World, matrices: np.ndarray, users: slice = slice(None)) -> float:
    """`(mean_i E <M_i, x>^2)^{1/2}` under the features of `users`: `matrices (M, d1, d2)`."""
    if world.config.features == TRAJECTORIES:
        flat = matrices.reshape(matrices.shape[0], -1)
        moments = moments_of(world, users)
        return float(np.sqrt(np.einsum("np,npq,nq->n", flat, moments, flat).mean()))
    root = world.feature_root
    seen = matrices if root is None else root.T @ matrices
    return float(np.sqrt(np.mean(np.sum(seen**2, axis=(1, 2)))))


def moments_of(world: World, users: slice = slice(None)) -> np.ndarray:
    """`Sigma_i = E[vec x vec x'] (M, p, p)` of every one of `users`."""
    if world.config.features == TRAJECTORIES:
        found = second_moments(world)
    else:
        found = np.kron(world.feature_covariance, np.eye(world.config.d2))[None]
    return np.broadcast_to(found, (world.n_users, *found.shape[1:]))[users]


def has_informations(world: World) -> bool:
    """Whether `informations` are there: an isotropic law behind the features, or a small bandit.

    And room for them: as `matrix_numbers`, 0.5 GB at most.
    """
    config = world.config
    if matrix_numbers(config) > MOST_IN_MATRICES:
        return False
    if config.features != TRAJECTORIES:
        return config.features != "bounded"
    assert world.mdp is not None
    assert world.behaviours is not None
    starts = 1 if world.behaviours.shared_start else world.mdp.n_states
    listed = world.mdp.n_states * starts * world.mdp.n_actions**2
    return world.mdp.horizon == 1 and listed * config.d1 * config.d2 <= _MOST_LISTED


def informations(world: World) -> np.ndarray:
    """`H_i = E[I(z) vec x vec x'] (N, p, p)` of every user, of one comparison.

    Exact: by quadrature for isotropic laws, and for features `x = L g` of an isotropic g as
    `(L (x) I) H(L' Theta_i) (L (x) I)'`; summed over all pairs of actions for a bandit's
    trajectories.

    Raises:
        InputError: there is no exact value (`has_informations`).
    """
    checks.require(
        has_informations(world),
        f"features = {world.config.features!r} of this world have no exact information: "
        "trajectories need one step and few enough pairs of actions, and no law bounded entries",
    )
    if world.config.features == TRAJECTORIES:
        return label_precision(world) * _listed(world)
    law = "sphere" if world.config.features == "sphere" else "gaussian"
    root = world.feature_root
    if root is None:
        return label_precision(world) * theory.isotropic_fisher(world.theta, world.link, law)
    turn = np.kron(root, np.eye(world.config.d2))
    inner = theory.isotropic_fisher(root.T @ world.theta, world.link, law)
    return label_precision(world) * (turn @ inner @ turn.T)


def label_precision(world: World) -> float:
    """What turns a loss into a negative log-likelihood: `1 / noise^2` for regression."""
    return 1.0 if world.link.is_preference else world.config.noise**-2


def _listed(world: World) -> np.ndarray:
    """All pairs of a bandit with their probabilities."""
    mdp, behaviours = world.mdp, world.behaviours
    assert mdp is not None
    assert behaviours is not None
    phi = mdp.flat_features[0]
    first, second = behaviours.first[0], behaviours.second[0]
    theta = world.theta.reshape(world.n_users, -1)
    start = mdp.initial_of(world.n_users)
    if behaviours.shared_start:
        x = phi[:, :, None, :] - phi[:, None, :, :]
        chances = first[:, :, None] * second[:, None, :]
        weights = start[:, :, None, None] * chances
    else:
        x = phi[:, :, None, None, :] - phi[None, None]
        chances = np.einsum("ns,sa,nt,tb->nsatb", start, first, start, second)
        weights = chances
    x = x.reshape(-1, phi.shape[-1])
    weights = weights.reshape(world.n_users, -1)
    found = np.empty((world.n_users, phi.shape[-1], phi.shape[-1]))
    for user in range(world.n_users):
        seen = weights[user] > 0.0
        mine = x[seen]
        information = np.asarray(world.link.information(mine @ theta[user]))
        found[user] = mine.T @ ((weights[user][seen] * information)[:, None] * mine)
    return found
