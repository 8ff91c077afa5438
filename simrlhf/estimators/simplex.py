"""`simplex`: every user a convex mixture of K shared rewards (the class of LoRe).

    Delta_i = sum_j a_ij V_j,   a_ij >= 0,   sum_j a_ij = 1

With the K vertices free the constraint on `a` never binds: any points of an affine space of
dimension K - 1 lie inside some simplex of it. So the class is `Delta_i = M + sum_r w_ir B_r`, an
affine space of dimension K - 1 that users share; the likelihood does not determine the vertices,
and the optimum is found as that of `share_b` is: users eliminated, `(M, B)` moved by Newton's
method. Vertices are then drawn around the users.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.one_for_all import one_matrix
from simrlhf.estimators.problem import PreferenceSource, Problem, stacked_score
from simrlhf.estimators.result import SimplexFactors
from simrlhf.estimators.share_b_solver import horizontal
from simrlhf.estimators.variable_projection import (
    Shape,
    orthonormal_step,
    solve_projected,
)

# M and B as vectors of C order, `(d1 d2, 1)` and `(d1 d2, K - 1)`; M is orthogonal to B
Affine = tuple[jax.Array, jax.Array]


def _vectors(problem: Problem) -> jax.Array:
    """Features as vectors: `(T, n, d1 d2)`."""
    n_tiles, height, d2, d1 = problem.rows.shape
    return jnp.swapaxes(problem.rows, 2, 3).reshape(n_tiles, height, d1 * d2)


def _features(problem: Problem, affine: Affine) -> tuple[jax.Array, jax.Array]:
    centre, directions = affine
    flat = _vectors(problem)
    return flat @ directions, (flat @ centre)[:, :, 0]


def _tangent(affine: Affine, steps: Affine) -> Affine:
    _, directions = affine
    return horizontal(directions, steps[0]), horizontal(directions, steps[1])


def _retract(affine: Affine, steps: Affine) -> Affine:
    centre, directions = affine
    turned = orthonormal_step(directions, horizontal(directions, steps[1]))
    return horizontal(turned, centre + steps[0]), turned


def _penalty(affine: Affine, n_users: int) -> jax.Array:
    """`sum_i ||M||^2 / 2`; the rest of `||Delta_i||^2` is `||w_i||^2`."""
    return 0.5 * n_users * jnp.sum(affine[0] ** 2)


_SHAPE = Shape(_features, _retract, _tangent, size=lambda _, rank: rank - 1, penalty=_penalty)


def _simplex(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    d1, d2, k, n_users = problem.d1, problem.d2, model.rank, model.n_users
    if k == 1:
        pooled = one_matrix(problem, limits, model._replace(rank=min(d1, d2)))
        parts = (pooled.delta[0].reshape(-1, 1), None, jnp.zeros((n_users, 0)))
        return pooled._replace(
            parts=parts,
            multipliers=jnp.zeros(n_users),
            growing=jnp.zeros_like(pooled.delta),
            together=_unless_held(pooled.delta, limits),
        )
    start = _start(problem, model)
    found = solve_projected(problem, start, _SHAPE, limits, model)
    centre, directions = found.shared
    own = found.factors @ directions.T
    delta = (centre.T + own).reshape(n_users, d1, d2)
    return found.answer(
        delta,
        (centre, directions, found.factors),
        passes=1,
        growing=own.reshape(n_users, d1, d2),
        together=_unless_held(delta, limits),
    )


def _unless_held(delta: jax.Array, limits: Limits) -> jax.Array:
    """What all users may scale together, unless the ridge holds it."""
    return jnp.where(limits.ridge > 0, 0.0, delta)


def _start(problem: Problem, model: Model) -> Affine:
    """No centre, and the leading directions in which users' mean scores at zero differ."""
    slopes = problem.weights * model.link.loss_slope(problem.offsets, problem.labels)
    score = jnp.swapaxes(stacked_score(problem, slopes, model.n_users), 1, 2)
    flat = score.reshape(model.n_users, -1)
    directions = jnp.linalg.svd(flat - flat.mean(axis=0, keepdims=True), full_matrices=False)[2]
    return jnp.zeros((flat.shape[1], 1)), directions[: model.rank - 1].T


def _finish(request: Request, answer: Answer) -> Outcome:
    centre, directions, factors = answer.parts
    shape = (request.rank, request.source.d1, request.source.d2)
    if request.rank == 1:
        found = SimplexFactors(centre.reshape(shape), np.ones((request.n_users, 1)))
        return answer.outcome(found, note="one vertex: everybody has the same reward")
    corners, weights = enclosing_simplex(np.asarray(factors))
    vertices = centre.T + corners @ directions.T
    order = np.argsort(-weights.sum(axis=0), kind="stable")
    return answer.outcome(
        SimplexFactors(vertices.reshape(shape)[order], weights[:, order]),
        note="the vertices are drawn around the users: the likelihood does not determine them",
    )


def enclosing_simplex(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A regular simplex around `points (N, q)`: `(q + 1, q)` corners and `(N, q + 1)` weights.

    It is centred at their mean and as small as holds all of them; weights are non-negative, sum to
    1, and give the points back.
    """
    q = points.shape[1]
    corners = np.linalg.svd(np.eye(q + 1) - 1.0 / (q + 1))[0][
        :, :q
    ]  # regular, centred, side sqrt 2
    centre = points.mean(axis=0)
    # corners' corners = I on the q dimensions: barycentric coordinates of a unit simplex
    shares = (points - centre) @ corners.T
    size = max(float(-(q + 1) * shares.min()), np.finfo(float).tiny)
    weights = np.maximum(1.0 / (q + 1) + shares / size, 0.0)
    return centre + size * corners, weights / weights.sum(axis=1, keepdims=True)


def _limit(source: PreferenceSource) -> int:
    return min(source.n_users, source.d1 * source.d2)


SIMPLEX = Estimator(
    "simplex",
    "Delta_i = sum_j a_ij V_j: convex mixtures of K shared rewards; rank is K.",
    "LoRe, Bose et al. 2025",
    Kernel(_simplex, _finish),
    needs_rank=True,
    rank_limit=_limit,
    accepts=("ridge",),
    side=both_sides,
)
