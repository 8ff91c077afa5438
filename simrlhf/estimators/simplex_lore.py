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
from simrlhf.estimators.estimator import Outcome, Request, total_weight
from simrlhf.estimators.problem import Problem, sum_over_users
from simrlhf.estimators.result import SimplexFactors
from simrlhf.estimators.simplex_solver import Mixture, objective, optimality

# what the authors divide rewards by
_TEMPERATURE = 100.0


class _Parameters(NamedTuple):
    logits: jax.Array
    vertices: jax.Array


def lore_recipe(
    *, iterations: int = 1000, learning_rate: float = 0.5
) -> Callable[[Request], Outcome]:
    """The recipe as an estimator: `sim.fit(prefs, lore_recipe(), rank=K, seed=...)`.

    The fit carries the certificate of `simplex` at the point where the recipe stops, so that its
    status says how far it came. Users with many pairs count no more than others in its objective,
    so with unequal users it aims at another point than the likelihood.

    Args:
        iterations, learning_rate: of Adam; the published values by default.
    """
    iterations = checks.integer("iterations", iterations, low=1)
    learning_rate = checks.real("learning_rate", learning_rate, above=0.0)

    def simplex_lore(request: Request) -> Outcome:
        checks.require(
            request.rank <= request.n_users,
            f"rank = {request.rank} vertices for {request.n_users} users; give at most as many",
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
        ridge = 0.5 * request.ridge * float(np.sum(delta**2)) / total_weight(request.source)
        return Outcome(
            delta=delta,
            basis=None,
            factors=SimplexFactors(vertices, weights),
            multipliers=np.zeros(request.n_users),
            loss=float(loss) + ridge,
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
    no_ridge = jnp.zeros(())

    def loss_of(parameters: _Parameters) -> jax.Array:
        weights = jax.nn.softmax(parameters.logits, axis=1)
        # `objective` is a mean over users then; the authors take the sum
        mean = objective(each, parameters.vertices / _TEMPERATURE, weights, no_ridge, link)
        return n_users * mean

    adam = optax.adam(learning_rate)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        parameters, state = carry
        updates, state = adam.update(jax.grad(loss_of)(parameters), state)
        return (optax.apply_updates(parameters, updates), state), None

    (end, _), _ = jax.lax.scan(step, (start, adam.init(start)), length=iterations)
    weights, vertices = jax.nn.softmax(end.logits, axis=1), end.vertices / _TEMPERATURE
    mixture = Mixture(vertices, jnp.sqrt(weights))
    parts = optimality(problem, mixture, no_ridge, link)
    gradient = jnp.hypot(*(jnp.linalg.norm(part) for part in parts))
    return vertices, weights, objective(problem, vertices, weights, no_ridge, link), gradient
