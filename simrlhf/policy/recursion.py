"""Backward induction for many users of one MDP: what every exact computation here is made of."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks
from simrlhf.world import MDP

# numbers in the largest array of a batch of users
_BATCH_NUMBERS = 2**24


class Tables(NamedTuple):
    """An MDP on the device: `kernels (H - 1, S, A, S)`, `features (H, S, A, p)`."""

    kernels: jax.Array
    features: jax.Array


def rewards_of(mdp: MDP, theta: np.ndarray) -> np.ndarray:
    """`theta` as `(N, d1 d2)`, of the shape that the MDP's features have."""
    theta = checks.numbers("theta", theta)
    theta = theta[None] if theta.ndim == 2 else theta
    remedy = f"(N, d1, d2), and this MDP's features are {mdp.reward_shape}"
    checks.shape("theta", theta, (None, *mdp.reward_shape), remedy=remedy)
    checks.finite("theta", theta)
    return theta.reshape(theta.shape[0], -1)


def tables_of(mdp: MDP) -> Tables:
    return Tables(jnp.asarray(mdp.kernels), jnp.asarray(mdp.flat_features))


def batch_of(mdp: MDP) -> int:
    return max(1, _BATCH_NUMBERS // (mdp.n_states * mdp.n_actions))


def backward(
    tables: Tables, theta: jax.Array, last: Any, step: Any, extra: tuple
) -> tuple[Any, Any]:
    """One user's recursion from the last step on, whatever is carried.

    Args:
        theta: `(..., p)`; several reward vectors are carried together.
        last: `(reward (..., S, A), extra_H) -> (carry, output)`.
        step: `(carry, reward, kernel, extra_h) -> (carry, output)`.
        extra: arrays with one slice for each step.

    Returns:
        The carry after the first step, and outputs by step.
    """
    *_, states, actions, size = tables.features.shape

    def reward(features: jax.Array) -> jax.Array:
        flat = theta @ features.reshape(-1, size).T
        return flat.reshape(*theta.shape[:-1], states, actions)

    ends = tuple(array[-1] for array in extra)
    carry, at_end = last(reward(tables.features[-1]), *ends)
    befores = tuple(array[:-1] for array in extra)

    def one(carry: Any, given: Any) -> tuple[Any, Any]:
        features, kernel, *more = given
        return step(carry, reward(features), kernel, *more)

    inputs = (tables.features[:-1], tables.kernels, *befores)
    carry, outputs = jax.lax.scan(one, carry, inputs, reverse=True)
    join = partial(jax.tree.map, lambda some, end: jnp.concatenate([some, end[None]]))
    return carry, join(outputs, at_end)


def choose(
    q: jax.Array, reference: jax.Array, temperature: jax.Array, *, soft: bool
) -> tuple[jax.Array, jax.Array]:
    """Values `(S,)` of the best choice under `q (S, A)`, and the choice itself.

    Actions `(S,)`, ties to the lowest number; with a temperature the laws `(S, A)` of the
    KL-regularised problem.
    """
    if not soft:
        return q.max(axis=-1), q.argmax(axis=-1)
    values = temperature * jax.nn.logsumexp(q / temperature, axis=-1, b=reference)
    return values, reference * jnp.exp((q - values[:, None]) / temperature)


def ahead(kernel: jax.Array, values: jax.Array) -> jax.Array:
    """`(P_h V)(s, a)` for `values (..., S)`."""
    states, actions, _ = kernel.shape
    flat = values @ kernel.reshape(-1, states).T
    return flat.reshape(*values.shape[:-1], states, actions)
