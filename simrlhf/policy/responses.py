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
    """

    value: np.ndarray
    features: np.ndarray


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
        return Responses(*self._ask(theta, users, flow=False))

    def occupancies(self, theta: np.ndarray, users: np.ndarray) -> np.ndarray:
        """`(n, H, S, A)` of the policies that answer."""
        return self._ask(theta, users, flow=True)[0]

    def _ask(self, theta: np.ndarray, users: np.ndarray, *, flow: bool) -> list[np.ndarray]:
        count = users.size
        padded = padded_users(users, len(self._start))
        theta = np.concatenate([theta, np.repeat(theta[:1], padded.size - count, axis=0)])
        with numerics.float64_scope():
            given = (jnp.asarray(theta), jnp.asarray(self._start[padded]))
            found = _respond(
                self._tables, given, self._reference, self._temperature,
                soft=self._soft, flow=flow, batch=self._batch,
            )  # fmt: skip
            return [np.asarray(array)[:count] for array in found]


def padded_users(users: np.ndarray, n_users: int) -> np.ndarray:
    """The users, the first of them repeated up to N, N / 4, N / 16 ...: few sizes are compiled."""
    size = n_users
    while -(-size // 4) >= users.size and size > 1:
        size = -(-size // 4)
    return np.concatenate([users, np.full(size - users.size, users[0])])


@partial(jax.jit, static_argnames=("soft", "flow", "batch"))
def _respond(
    tables: Tables,
    given: tuple,
    reference: jax.Array,
    temperature: jax.Array,
    *,
    soft: bool,
    flow: bool,
    batch: int,
) -> tuple[jax.Array, ...]:
    """Values and features of the best responses, or with `flow` their occupancies."""
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

    def visited(now: jax.Array, law: jax.Array, features: jax.Array) -> jax.Array:
        """What a step adds for states of the law `now (S,)`: features, or the occupancy."""
        if not flow:
            return now @ taken(features, law)
        laws = law if soft else jax.nn.one_hot(law, features.shape[1], dtype=now.dtype)
        return now[:, None] * laws

    def one_user(user: tuple) -> tuple[jax.Array, ...]:
        theta, start = user
        values, laws = backward(tables, theta, best, step, (reference,))

        def move(now: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
            law, features, kernel = given
            return now @ taken(kernel, law), visited(now, law, features)

        inputs = (laws[:-1], tables.features[:-1], tables.kernels)
        now, before = jax.lax.scan(move, start, inputs)
        last = visited(now, laws[-1], tables.features[-1])
        if flow:
            return (jnp.concatenate([before, last[None]]),)
        return jnp.dot(start, values), before.sum(axis=0) + last

    return jax.lax.map(one_user, given, batch_size=batch)
