"""Feature differences of trajectories, drawn from an MDP's behaviour policies."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.world.behaviours import Behaviours
from simrlhf.world.mdp import MDP


class TrajectoryLaw(NamedTuple):
    """Distribution functions along the last axes, and features: what trajectories are drawn from.

    Attributes:
        start: `(S,)`, or `(N, S)` before a user is chosen.
        kernels: `(H - 1, S, A, S)`.
        policies: `(2, H, S, A)`.
        features: `(H, S, A, p)`.
    """

    start: jax.Array
    kernels: jax.Array
    policies: jax.Array
    features: jax.Array


def trajectory_law(mdp: MDP, behaviours: Behaviours, n_users: int) -> TrajectoryLaw:
    """The laws of `n_users` users' pairs, `start (N, S)`."""
    return TrajectoryLaw(
        jnp.asarray(_distribution(mdp.initial_of(n_users))),
        jnp.asarray(_distribution(mdp.kernels)),
        jnp.asarray(_distribution(np.stack([behaviours.first, behaviours.second]))),
        jnp.asarray(mdp.flat_features),
    )


def _distribution(probabilities: np.ndarray) -> np.ndarray:
    """Cumulative sums that end in 1 exactly, from the last possible outcome on."""
    if probabilities.size == 0:
        return probabilities
    sums = np.cumsum(probabilities, axis=-1)
    return sums / sums[..., -1:]


@partial(jax.jit, static_argnames=("n_pairs", "shared_start"))
def draw_differences(
    key: jax.Array, law: TrajectoryLaw, *, n_pairs: int, shared_start: bool
) -> jax.Array:
    """`x = vec(phi(tau_0) - phi(tau_1))`, `(n_pairs, p)`; longer draws begin with shorter ones.

    Args:
        law: of one user, `start (S,)`.
    """
    horizon = law.features.shape[0]
    # a trajectory takes its first state, then an action and a next state in turn
    uniforms = jax.random.uniform(key, (n_pairs, 2, 2 * horizon))
    states = jnp.searchsorted(law.start, uniforms[:, :, 0], side="right")
    if shared_start:
        states = jnp.broadcast_to(states[:, :1], states.shape)
    which = jnp.arange(2)
    total = jnp.zeros((n_pairs, 2, law.features.shape[-1]))
    for step in range(horizon):
        actions = _pick(law.policies[which, step, states], uniforms[:, :, 2 * step + 1])
        total += law.features[step, states, actions]
        if step + 1 < horizon:
            states = _pick(law.kernels[step, states, actions], uniforms[:, :, 2 * step + 2])
    return total[:, 0] - total[:, 1]


def _pick(distribution: jax.Array, uniform: jax.Array) -> jax.Array:
    """Outcomes of uniform numbers below 1: how many values of the distribution are not above."""
    return jnp.sum(uniform[..., None] >= distribution, axis=-1)
