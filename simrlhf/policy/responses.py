"""Best responses: the optimal policy of a reward, its value and its expected features."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import numerics
from simrlhf.policy.recursion import Tables, ahead, backward, batch_of, choose, tables_of
from simrlhf.world import MDP


class Responses(NamedTuple):
    """Of every user.

    Attributes:
        value: `(N,)`, `max_pi J(pi; theta) - tau KL(pi || ref)`.
        features: `(N, p)`, `E phi` under the policy that attains it.
        policy: `(N, H, S)` actions of the lowest number; `(N, H, S, A)` laws with a temperature.
    """

    value: np.ndarray
    features: np.ndarray
    policy: np.ndarray


class Responder:
    """An MDP on the device that answers rewards with policies, batch after batch.

    Args:
        start: `(N, S)` first states of the users.
        temperature, reference: of the KL-regularised problem; 0 for the plain one.
    """

    def __init__(
        self, mdp: MDP, start: np.ndarray, *, temperature: float, reference: np.ndarray
    ) -> None:
        self._batch = batch_of(mdp)
        self._soft = temperature > 0.0
        self._start = start
        with numerics.float64_scope():
            self._tables = tables_of(mdp)
            self._reference = jnp.asarray(reference)
            self._temperature = jnp.asarray(float(temperature))

    def __call__(self, theta: np.ndarray, users: np.ndarray) -> Responses:
        """Answers to `theta (n, p)` of the `users (n,)`."""
        with numerics.float64_scope():
            given = (jnp.asarray(theta), jnp.asarray(self._start[users]))
            found = _respond(
                self._tables, given, self._reference, self._temperature,
                soft=self._soft, batch=self._batch,
            )  # fmt: skip
            return Responses(*(np.asarray(array) for array in found))


@partial(jax.jit, static_argnames=("soft", "batch"))
def _respond(
    tables: Tables,
    given: tuple,
    reference: jax.Array,
    temperature: jax.Array,
    *,
    soft: bool,
    batch: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    best = partial(choose, temperature=temperature, soft=soft)

    def step(
        values: jax.Array, reward: jax.Array, kernel: jax.Array, known: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return best(reward + ahead(kernel, values), known)

    def taken(table: jax.Array, law: jax.Array) -> jax.Array:
        """Rows `(S, ...)` of `table (S, A, ...)` under the policy of one step."""
        if soft:
            return jnp.einsum("sa,sa...->s...", law, table)
        return jnp.take_along_axis(table, law[:, None, None], axis=1)[:, 0]

    def one_user(user: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
        theta, start = user
        values, laws = backward(tables, theta, best, step, (reference,))

        def flow(now: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
            law, features, kernel = given
            return now @ taken(kernel, law), now @ taken(features, law)

        inputs = (laws[:-1], tables.features[:-1], tables.kernels)
        now, sums = jax.lax.scan(flow, start, inputs)
        mean = sums.sum(axis=0) + now @ taken(tables.features[-1], laws[-1])
        return jnp.dot(start, values), mean, laws

    return jax.lax.map(one_user, given, batch_size=batch)
