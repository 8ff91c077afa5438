"""What a policy that is greedy on an estimate loses under the truth."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.policy.recursion import Tables, ahead, backward, batch_of, rewards_of, tables_of
from simrlhf.world import MDP


class ValueGaps(NamedTuple):
    """Values of every user, `(N,)` each.

    Attributes:
        optimal: `J(pi*_i; r*_i)`.
        greedy: `J(pi_hat_i; r*_i)`, the policy optimal under the estimate.
    """

    optimal: np.ndarray
    greedy: np.ndarray

    @property
    def gaps(self) -> np.ndarray:
        """`J(pi*_i; r*_i) - J(pi_hat_i; r*_i)`, never negative but for rounding."""
        return self.optimal - self.greedy

    @property
    def mean(self) -> float:
        """Average over the users."""
        return float(self.gaps.mean())

    @property
    def worst(self) -> float:
        """The gap of the user who loses most."""
        return float(self.gaps.max())


def value_gaps(mdp: MDP, theta: np.ndarray, estimate: np.ndarray) -> ValueGaps:
    """The value that every user loses to the policy that is greedy on his estimate.

    No policy is stored: memory does not grow with the horizon, and users go by in batches.

    Args:
        theta: `(N, d1, d2)` true whole reward vectors, or `(d1, d2)`.
        estimate: of the same shape.

    Raises:
        InputError: shapes that do not agree with each other or with the MDP.
    """
    truth, guess = (rewards_of(mdp, array) for array in (theta, estimate))
    checks.shape("estimate", guess, truth.shape, remedy="theta and estimate are of the same users")
    with numerics.float64_scope():
        given = jnp.stack([jnp.asarray(truth), jnp.asarray(guess)], axis=1)
        start = jnp.asarray(mdp.initial_of(truth.shape[0]))
        found = np.asarray(_gaps(tables_of(mdp), (given, start), batch=batch_of(mdp)))
    return ValueGaps(found[:, 0], found[:, 1])


@partial(jax.jit, static_argnames="batch")
def _gaps(tables: Tables, given: tuple, *, batch: int) -> jax.Array:
    def choose(true_q: jax.Array, greedy_q: jax.Array, seen_q: jax.Array) -> tuple:
        """Values of the optimum and of the greedy policy, true and as estimated, `(3, S)`."""
        actions = seen_q.argmax(axis=-1, keepdims=True)
        taken = [jnp.take_along_axis(q, actions, axis=-1)[..., 0] for q in (greedy_q, seen_q)]
        return jnp.stack([true_q.max(axis=-1), *taken]), jnp.zeros(())

    def last(reward: jax.Array) -> tuple:
        return choose(reward[0], reward[0], reward[1])

    def step(carry: jax.Array, reward: jax.Array, kernel: jax.Array) -> tuple:
        true, greedy, seen = ahead(kernel, carry)
        return choose(reward[0] + true, reward[0] + greedy, reward[1] + seen)

    def one_user(user: tuple) -> jax.Array:
        theta, start = user
        carry, _ = backward(tables, theta, last, step, ())
        return carry[:2] @ start

    return jax.lax.map(one_user, given, batch_size=batch)
