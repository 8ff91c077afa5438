"""AdamW on LoRA factors, batch by batch: the device's part of first-order training."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from simrlhf.core.links import Link
from simrlhf.estimators.problem import Problem, collect_rows, project_rows, sum_over_users
from simrlhf.estimators.user_newton import tile_rewards


class Adapter(NamedTuple):
    """LoRA factors: `Delta_i = scaling * shared @ personal[i]`.

    Attributes:
        shared: `(d1, k)`.
        personal: `(N, k, d2)`; `N = 1` where one adapter serves all users.
    """

    shared: jax.Array
    personal: jax.Array


class Pairs(NamedTuple):
    """All pairs, one after the other: `(P, d2, d1)` rows, the rest `(P,)`."""

    rows: jax.Array
    labels: jax.Array
    weights: jax.Array
    offsets: jax.Array
    users: jax.Array


class Recipe(NamedTuple):
    """What the steps are compiled for."""

    link: Link
    scaling: float
    weight_decay: float
    clip_norm: float | None

    def optimiser(self, rate: Any) -> optax.GradientTransformation:
        """AdamW with the usual moments (0.9, 0.999, 1e-8)."""
        adamw = optax.adamw(rate, weight_decay=self.weight_decay)
        if self.clip_norm is None:
            return adamw
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)


class State(NamedTuple):
    adapter: Adapter
    moments: Any


def start_state(adapter: Adapter, recipe: Recipe) -> State:
    """The factors with an optimiser that has seen nothing."""
    return State(adapter, recipe.optimiser(0.0).init(adapter))


def flat_pairs(problem: Problem) -> Pairs:
    """The tiles of a problem end to end; their padding keeps its place."""
    n_tiles, height, d2, d1 = problem.rows.shape
    return Pairs(
        problem.rows.reshape(-1, d2, d1),
        problem.labels.reshape(-1),
        problem.weights.reshape(-1),
        problem.offsets.reshape(-1),
        jnp.repeat(problem.users, height, total_repeat_length=n_tiles * height),
    )


def batch_loss(adapter: Adapter, batch: Pairs, recipe: Recipe) -> jax.Array:
    """Weighted mean loss of a batch."""
    inside = jnp.einsum("nba,ak->nbk", batch.rows, adapter.shared)
    mine = adapter.personal[batch.users]
    rewards = recipe.scaling * jnp.einsum("nbk,nkb->n", inside, mine) + batch.offsets
    losses = batch.weights * recipe.link.loss(rewards, batch.labels)
    return losses.sum() / batch.weights.sum()


@partial(jax.jit, static_argnames="recipe", donate_argnames="state")
def advance(
    state: State,
    pairs: Pairs,
    order: jax.Array,
    span: tuple[jax.Array, jax.Array],
    rate: tuple[jax.Array, jax.Array, jax.Array],
    *,
    recipe: Recipe,
) -> State:
    """Take the steps `span[0] .. span[1] - 1` of one epoch.

    A counted loop and not a scan: a part of an epoch then needs no compilation of its own.

    Args:
        order: `(S, b)` pairs of every batch of the epoch; -1 where the last batch has none.
        rate: learning rate of the first step, what it loses in a step, and zero's place: steps
            done before this call.
    """
    first_rate, loss_of_rate, done = rate

    def step(index: jax.Array, state: State) -> State:
        places = order[index]
        batch = jax.tree.map(lambda array: array[places], pairs)
        batch = batch._replace(weights=jnp.where(places >= 0, batch.weights, 0.0))
        slope = jax.grad(batch_loss)(state.adapter, batch, recipe)
        at = (done + index - span[0]).astype(first_rate.dtype)
        optimiser = recipe.optimiser(first_rate - loss_of_rate * at)
        # optax raises a number to its step count; in float64 all the same
        with jax.numpy_dtype_promotion("standard"):
            change, moments = optimiser.update(slope, state.moments, state.adapter)
        return State(optax.apply_updates(state.adapter, change), moments)

    return jax.lax.fori_loop(*span, step, state)


class Reading(NamedTuple):
    """Where training stands on all pairs, in the canonical parameters of `share_b`.

    Attributes:
        basis: `(d1, k)` orthonormal, the column space of the shared factor.
        flat: `(N, d2 k)` factors on it, in the layout of kernels.
        loss: mean loss.
        gradient: norm of its gradient in `(basis, flat)`, without what turns the basis in itself.
    """

    basis: jax.Array
    flat: jax.Array
    loss: jax.Array
    gradient: jax.Array


@partial(jax.jit, static_argnames=("recipe", "n_users"))
def read(adapter: Adapter, problem: Problem, *, recipe: Recipe, n_users: int) -> Reading:
    """Loss and certificate of `adapter` on all pairs."""
    basis, turn = jnp.linalg.qr(adapter.shared)
    weights = recipe.scaling * jnp.einsum("jk,nkb->nbj", turn, adapter.personal)
    flat = jnp.broadcast_to(weights.reshape(weights.shape[0], -1), (n_users, weights[0].size))
    projected = project_rows(problem, basis)
    of_tile = flat[problem.users]
    rewards = tile_rewards(projected, of_tile) + problem.offsets
    total = problem.weights.sum()
    losses = problem.weights * recipe.link.loss(rewards, problem.labels)
    slopes = problem.weights * recipe.link.loss_slope(rewards, problem.labels)
    in_flat = sum_over_users(problem, jnp.einsum("tn,tna->ta", slopes, projected), n_users)
    in_basis = collect_rows(problem, slopes[:, :, None] * of_tile[:, None, :])
    in_basis -= basis @ (basis.T @ in_basis)
    gradient = jnp.sqrt(jnp.sum(in_flat**2) + jnp.sum(in_basis**2)) / total
    return Reading(basis, flat, losses.sum() / total, gradient)
