"""Exact values, occupancies and optima of tabular MDPs, for many users at once.

Per user, from the last step on, with `Q_h = r_h + P_h V_{h+1}` and `V_{H+1} = 0`:

* evaluation `V_h(s) = sum_a pi_h(a|s) Q_h(s, a)`;
* optimum `V_h(s) = max_a Q_h(s, a)`, ties to the action of the lowest number;
* KL-regularised optimum `V_h(s) = tau log sum_a ref_h(a|s) exp(Q_h(s, a) / tau)` at
  `pi_h(a|s) = ref_h(a|s) exp((Q_h - V_h) / tau)`, which maximises `J(pi) - tau KL(pi || ref)` with
  the divergence of the trajectories' laws.

Dynamics are shared, so users are the columns of one product with `P_h`. Time `H S A (S + p)` and
memory `S A` a user beyond what is returned.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.policy.recursion import (
    Tables,
    ahead,
    backward,
    batch_of,
    choose,
    rewards_of,
    tables_of,
)
from simrlhf.world import MDP


class Plan(NamedTuple):
    """Optimal policies.

    Attributes:
        policy: `(N, H, S, A)`, laws over actions.
        value: `(N,)`, J of each; with a temperature `J - tau KL`.
        state_values: `(N, H, S)`, `V_h(s)`.
    """

    policy: np.ndarray
    value: np.ndarray
    state_values: np.ndarray


def value(mdp: MDP, policy: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """`J(pi; r) = E_pi[sum_h <Theta, phi_h>]` of every user, `(N,)`.

    Args:
        policy: `(H, S, A)`, one for all, or `(N, H, S, A)`.
        theta: `(N, d1, d2)` whole reward vectors, or `(d1, d2)` for one user.

    Raises:
        InputError: shapes that do not agree, rows of a policy that are no probabilities.
    """
    flat = rewards_of(mdp, theta)
    policy = _for_users(mdp, mdp.require_policy("policy", policy), flat.shape[0])
    with numerics.float64_scope():
        tables, start = tables_of(mdp), jnp.asarray(mdp.initial_of(flat.shape[0]))
        given = (jnp.asarray(flat), jnp.asarray(policy), start)
        return np.asarray(_evaluate(tables, given, batch=batch_of(mdp)))


def optimal_policy(
    mdp: MDP,
    theta: np.ndarray,
    *,
    temperature: float = 0.0,
    reference: np.ndarray | None = None,
) -> Plan:
    """Every user's optimal policy under his reward, by backward induction.

    Args:
        theta: as in `value`.
        temperature: `tau` of the KL-regularised problem; 0 for the plain optimum.
        reference: `ref (H, S, A)` of the divergence; uniform by default.

    Raises:
        InputError: as in `value`; a negative temperature; a reference without a temperature.
    """
    flat = rewards_of(mdp, theta)
    checks.real("temperature", temperature, low=0.0, remedy="0 is the plain optimum")
    checks.require(
        reference is None or temperature > 0.0,
        "a reference policy counts in the KL-regularised problem only; set temperature above 0",
    )
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    known = np.full(shape, 1.0 / mdp.n_actions) if reference is None else reference
    known = mdp.require_policy("reference", known)
    checks.shape("reference", known, shape, remedy="one policy for all users")
    with numerics.float64_scope():
        found = _optimise(
            tables_of(mdp), jnp.asarray(flat), jnp.asarray(known), jnp.asarray(float(temperature)),
            soft=temperature > 0.0, batch=batch_of(mdp),
        )  # fmt: skip
        policy, values = (np.asarray(array) for array in found)
    start = mdp.initial_of(flat.shape[0])
    return Plan(policy, np.einsum("ns,ns->n", start, values[:, 0]), values)


def occupancies(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """`P_pi(s_h = s, a_h = a)`: `(N, H, S, A)`, or `(H, S, A)` where nothing tells users apart.

    Args:
        policy: `(H, S, A)`, one for all, or `(N, H, S, A)`.
    """
    policy = mdp.require_policy("policy", policy)
    alone = policy.ndim == 3 and mdp.initial.ndim == 1
    users = 1 if alone else len(policy) if policy.ndim == 4 else len(mdp.initial)
    full = _for_users(mdp, policy, users)
    with numerics.float64_scope():
        start = jnp.asarray(mdp.initial_of(users))
        kernels = jnp.asarray(mdp.kernels)
        found = np.asarray(_flow(kernels, (jnp.asarray(full), start), batch=batch_of(mdp)))
    return found[0] if alone else found


def feature_expectations(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """`E_pi phi(tau)`, `(d1, d2)` or `(N, d1, d2)`, as `occupancies` has one or N."""
    weights = occupancies(mdp, policy)
    flat = weights.reshape(*weights.shape[:-3], -1) @ mdp.flat_features.reshape(
        -1, math.prod(mdp.reward_shape)
    )
    return flat.reshape(*weights.shape[:-3], *mdp.reward_shape)


def _for_users(mdp: MDP, policy: np.ndarray, n_users: int) -> np.ndarray:
    shape = (n_users, mdp.horizon, mdp.n_states, mdp.n_actions)
    if policy.ndim == 4:
        checks.shape("policy", policy, shape, remedy=f"there are {n_users} users")
    return np.broadcast_to(policy, shape)


@partial(jax.jit, static_argnames="batch")
def _evaluate(tables: Tables, given: tuple, *, batch: int) -> jax.Array:
    def one_user(user: tuple) -> jax.Array:
        theta, policy, start = user

        def last(reward: jax.Array, law: jax.Array) -> tuple[jax.Array, jax.Array]:
            values = jnp.sum(law * reward, axis=-1)
            return values, jnp.zeros(())

        def step(
            values: jax.Array, reward: jax.Array, kernel: jax.Array, law: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            return last(reward + ahead(kernel, values), law)

        values, _ = backward(tables, theta, last, step, (policy,))
        return jnp.dot(start, values)

    return jax.lax.map(one_user, given, batch_size=batch)


@partial(jax.jit, static_argnames=("soft", "batch"))
def _optimise(
    tables: Tables,
    theta: jax.Array,
    reference: jax.Array,
    temperature: jax.Array,
    *,
    soft: bool,
    batch: int,
) -> tuple[jax.Array, jax.Array]:
    def last(q: jax.Array, known: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, law = choose(q, known, temperature, soft=soft)
        if not soft:
            law = jax.nn.one_hot(law, q.shape[-1], dtype=q.dtype)
        return values, (law, values)

    def step(
        values: jax.Array, reward: jax.Array, kernel: jax.Array, known: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return last(reward + ahead(kernel, values), known)

    def one_user(user: jax.Array) -> tuple[jax.Array, jax.Array]:
        return backward(tables, user, last, step, (reference,))[1]

    return jax.lax.map(one_user, theta, batch_size=batch)


@partial(jax.jit, static_argnames="batch")
def _flow(kernels: jax.Array, given: tuple, *, batch: int) -> jax.Array:
    def one_user(user: tuple) -> jax.Array:
        policy, start = user

        def step(now: jax.Array, given: tuple) -> tuple[jax.Array, jax.Array]:
            law, kernel = given
            weight = now[:, None] * law
            return weight.reshape(-1) @ kernel.reshape(-1, now.size), weight

        now, before = jax.lax.scan(step, start, (policy[:-1], kernels))
        return jnp.concatenate([before, (now[:, None] * policy[-1])[None]])

    return jax.lax.map(one_user, given, batch_size=batch)
