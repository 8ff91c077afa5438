"""LoRe's published recipe for `simplex`: a thousand steps of Adam from random numbers.

Facts from the authors' code (Bose et al. 2025): logits of the weights and the vertices start as
standard normal numbers, weights are the softmax of the logits, rewards are divided by 100, and Adam
moves both at a learning rate of .5 for 1000 full-batch steps, on the sum over users of each one's
mean loss, without regulariser.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from simrlhf.core import checks, streams
from simrlhf.core.links import Link
from simrlhf.estimators.custom import mean_loss
from simrlhf.estimators.estimator import Outcome, Request
from simrlhf.estimators.problem import Problem, sum_over_users
from simrlhf.estimators.result import SimplexFactors

# what the authors divide rewards by
_TEMPERATURE = 100.0


class _Parameters(NamedTuple):
    logits: jax.Array
    vertices: jax.Array


def lore_recipe(
    *, iterations: int = 1000, learning_rate: float = 0.5
) -> Callable[[Request], Outcome]:
    """The recipe as an estimator: `sim.fit(prefs, lore_recipe(), rank=K, seed=...)`.

    The fit carries the optimality of `(V, a)` at the point where the recipe stops, with weights on
    the simplex: `||(grad_V, P(a - grad_a) - a)||` of the mean loss, `P` the projection. It is zero
    at stationary points, so the status says whether it came to one. Users with many pairs count no
    more than others in its objective: with unequal users it aims at another point than the
    likelihood's.

    Args:
        iterations, learning_rate: of Adam; the published values by default.
    """
    iterations = checks.integer("iterations", iterations, low=1)
    learning_rate = checks.real("learning_rate", learning_rate, above=0.0)

    def simplex_lore(request: Request) -> Outcome:
        checks.require(
            request.ridge == 0 and np.isinf(request.radius),
            f"the recipe has neither ridge nor norm_bound, got ridge = {request.ridge:g} and "
            f"norm_bound = {request.radius:g}; leave them out",
        )
        with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
            found = _train(
                request.problem,
                _start(request),
                link=request.link,
                n_users=request.n_users,
                iterations=iterations,
                learning_rate=learning_rate,
            )
        vertices, weights, loss, gradient = jax.device_get(found)
        delta = np.einsum("nk,kab->nab", weights, vertices)
        return Outcome(
            delta=delta,
            basis=None,
            factors=SimplexFactors(vertices, weights),
            multipliers=np.zeros(request.n_users),
            loss=float(loss),
            gradient=float(gradient),
            stalled=False,
            iterations=iterations,
            data_passes=2.0 * iterations,
            neg_log_likelihood=float(loss),
            note="the published recipe: it stops after its steps, wherever it is",
        )

    return simplex_lore


def _start(request: Request) -> _Parameters:
    random = streams.generator(request.seed, "LoRe")
    shape = (request.rank, request.source.d1, request.source.d2)
    logits = random.standard_normal((request.n_users, request.rank))
    return _Parameters(jnp.asarray(logits), jnp.asarray(random.standard_normal(shape)))


@partial(jax.jit, static_argnames=("link", "n_users", "iterations"))
def _train(
    problem: Problem,
    start: _Parameters,
    *,
    link: Link,
    n_users: int,
    iterations: int,
    learning_rate: float,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    of_user = sum_over_users(problem, problem.weights.sum(axis=1), n_users)
    each = problem._replace(weights=problem.weights / of_user[problem.users][:, None])

    def loss_of(parameters: _Parameters) -> jax.Array:
        weights = jax.nn.softmax(parameters.logits, axis=1)
        # with these weights the mean over pairs is one over users; the authors take the sum
        return n_users * mean_of(each, parameters.vertices / _TEMPERATURE, weights, link)

    adam = optax.adam(learning_rate)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        parameters, state = carry
        updates, state = adam.update(jax.grad(loss_of)(parameters), state)
        return (optax.apply_updates(parameters, updates), state), None

    (end, _), _ = jax.lax.scan(step, (start, adam.init(start)), length=iterations)
    weights, vertices = jax.nn.softmax(end.logits, axis=1), end.vertices / _TEMPERATURE
    loss, (in_vertices, in_weights) = jax.value_and_grad(mean_of, argnums=(1, 2))(
        problem, vertices, weights, link
    )
    gap = project(weights - in_weights) - weights
    gradient = jnp.hypot(jnp.linalg.norm(in_vertices), jnp.linalg.norm(gap))
    return vertices, weights, loss, gradient


def mean_of(problem: Problem, vertices: jax.Array, weights: jax.Array, link: Link) -> jax.Array:
    """Mean loss per pair of a mixture."""
    return mean_loss(problem, jnp.einsum("nk,kab->nab", weights, vertices), link)


def project(points: jax.Array) -> jax.Array:
    """Nearest points `(N, K)` of the probability simplex (sort and threshold)."""
    k = points.shape[1]
    ordered = -jnp.sort(-points, axis=1)
    excess = jnp.cumsum(ordered, axis=1) - 1.0
    counts = jnp.arange(1, k + 1, dtype=points.dtype)[None]
    inside = (ordered - excess / counts > 0).sum(axis=1, keepdims=True)
    level = jnp.take_along_axis(excess, inside - 1, axis=1) / inside.astype(points.dtype)
    return jnp.maximum(points - level, 0.0)
