"""`simplex`: every user a convex mixture of K shared rewards (the class of LoRe)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import streams
from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import PreferenceSource, Problem
from simrlhf.estimators.result import SimplexFactors
from simrlhf.estimators.share_b import share_b
from simrlhf.estimators.simplex_solver import Mixture, solve_simplex

_RANDOM_STARTS = 5
# tolerance of the common fit that the starts are taken from; and of the starts, times 1 / N
_ROUGH = 1e-3
# share of a start's weights that is spread evenly: on the edge of the simplex nothing would move
_SPREAD = 0.3


def _simplex(problem: Problem, picks: jax.Array, limits: Limits, model: Model) -> Answer:
    """The best of several starts: the extreme users of a rough shared fit, and random users."""
    n_tiles, height, d2, d1 = problem.rows.shape
    k, n_users = model.rank, model.n_users
    vectors = jnp.swapaxes(problem.rows, 2, 3).reshape(n_tiles, height, 1, d1 * d2)
    rough = share_b(
        problem._replace(rows=vectors),
        None,
        # a ridge of one pair: at zero, separated users would send the start away
        limits._replace(tolerance=jnp.asarray(_ROUGH), ridge=limits.ridge + 1.0),
        model,
    )
    points = rough.delta[:, :, 0]
    chosen = jnp.concatenate([_extremes(points, k)[None], picks])

    def from_users(users: jax.Array):
        first = limits._replace(tolerance=jnp.maximum(limits.tolerance, _ROUGH / n_users))
        return solve_simplex(problem, _start(points, users, (d1, d2)), first, model)

    found = jax.lax.map(from_users, chosen)
    first = jax.tree.map(lambda array: array[jnp.argmin(found.loss)], found)
    best = solve_simplex(problem, first.mixture, limits, model)
    passes = rough.data_passes + found.data_passes.sum() + best.data_passes
    weights = best.mixture.weights
    return Answer(
        delta=jnp.einsum("nk,kab->nab", weights, best.mixture.vertices),
        parts=(best.mixture.vertices, weights),
        multipliers=jnp.zeros(n_users),
        loss=best.loss,
        gradient=best.gradient,
        stalled=best.stalled,
        iterations=first.iterations + best.iterations,
        data_passes=passes,
    )


def _extremes(points: jax.Array, k: int) -> jax.Array:
    """Users far out, one after the other (successive projections): `(k,)` indices."""
    left, found = points - points.mean(axis=0, keepdims=True), []
    for _ in range(k):
        sizes = jnp.sum(left**2, axis=1)
        user = jnp.argmax(sizes)
        direction = left[user] / jnp.sqrt(jnp.maximum(sizes[user], jnp.finfo(left.dtype).tiny))
        left = left - (left @ direction)[:, None] * direction[None]
        found.append(user)
    return jnp.stack(found)


def _start(points: jax.Array, users: jax.Array, shape: tuple[int, int]) -> Mixture:
    """Vertices at these users, weights by nearness, spread out."""
    vertices = points[users]
    apart = jnp.sum((points[:, None] - vertices[None]) ** 2, axis=2)
    near = jax.nn.softmax(-apart / jnp.maximum(apart.mean(), 1e-300), axis=1)
    k = users.shape[0]
    return Mixture(vertices.reshape(k, *shape), jnp.sqrt((1 - _SPREAD) * near + _SPREAD / k))


def _picks(request: Request) -> np.ndarray:
    """Users whose rewards are the first vertices, for each random start."""
    random = streams.generator(request.seed, "vertices")
    return np.stack(
        [random.permutation(request.n_users)[: request.rank] for _ in range(_RANDOM_STARTS)]
    )


def _finish(_: Request, answer: Answer) -> Outcome:
    vertices, weights = map(np.asarray, answer.parts)
    order = np.argsort(-weights.sum(axis=0), kind="stable")
    return answer.outcome(
        SimplexFactors(vertices[order], weights[:, order]),
        note=f"the best of {1 + _RANDOM_STARTS} starts",
    )


def _limit(source: PreferenceSource) -> int:
    return min(source.n_users, source.d1 * source.d2)


SIMPLEX = Estimator(
    "simplex",
    "Delta_i = sum_j a_ij V_j: convex mixtures of K shared rewards; rank is K.",
    "LoRe, Bose et al. 2025",
    Kernel(_simplex, _finish, start=_picks),
    needs_rank=True,
    rank_limit=_limit,
    accepts=("ridge",),
    side=both_sides,
)
