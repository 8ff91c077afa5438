"""Maximum likelihood over `Delta_i = B W_i`, `||Delta_i||_F <= R`: the Share-B kernel.

Every `W_i` is eliminated: for a basis `B` the users' convex problems are solved exactly
(`user_newton`), which leaves the smooth function `f(B) = min_W F(B W)` on the Grassmannian. It is
minimised by a trust-region Newton method: conjugate gradients with exact Hessian products of `f`,
preconditioned by the Kronecker form `(pooled Gram) (x) (mean W_i W_i')`. A product costs two data
passes and no matrix larger than `d1 x d1` is formed, so one path serves all sizes.

Measured on two cores in float64 at N=32, n=200, d1=64, k=4 (experiments/benchmarks/fit_speed.py):
37 to 41 data passes in the median over 20 seeds, 46 at most, to a gradient of 1e-8. A pass takes
0.12 ms (projection) or 0.22 ms (collection); the users' Gram matrices, which an explicit reduced
Hessian would start from in every step, take 1.2 ms, and the Hessian itself `(d1 k)^2` memory.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from simrlhf.core.links import Link
from simrlhf.estimators import ball, trust_region
from simrlhf.estimators.problem import Problem, collect_rows, project_rows, sum_over_users
from simrlhf.estimators.user_newton import UserFits, fit_users, longest_step, tile_rewards

_MAX_PRODUCTS = 80
_FIRST_RADIUS = 1.0
_LARGEST_RADIUS = 4.0
# below this radius a step moves B by less than rounding
_SMALLEST_RADIUS = 1e-13
# conjugate gradients reduce the gradient by the first factor, near the end by the second times the
# progress made so far; of the pairs tried on the case above none took clearly fewer passes
_FORCING = 0.2
_SUPERLINEAR = 3.0
# residual left to the users: it costs no data pass, and it enters the gradient magnified by W_i,
# which is large where a user is nearly separated (a looser residual ended far from the optimum)
_INNER = 1e-9
# eigenvalue floor of the preconditioner's factors, relative to their mean
_FLOOR = 1e-8


class SharedFit(NamedTuple):
    """The kernel's answer: `basis (d1, k)`, flat factors `(N, d2 k)` and how it ended.

    `gradient` is the norm of the KKT residual of the mean loss in `(B, W)`; `stalled` says that
    the trust region shrank to rounding before the tolerance was met.
    """

    basis: jax.Array
    factors: jax.Array
    multiplier: jax.Array
    loss: jax.Array
    gradient: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    data_passes: jax.Array


class _Point(NamedTuple):
    basis: jax.Array
    projected: jax.Array
    fits: UserFits
    loss: jax.Array
    euclidean: jax.Array


class _State(NamedTuple):
    point: _Point
    radius: jax.Array
    iterations: jax.Array
    data_passes: jax.Array


@partial(jax.jit, static_argnames=("link", "n_users"))
def solve_share_b(
    problem: Problem,
    basis: jax.Array,
    *,
    link: Link,
    n_users: int,
    radius: jax.Array,
    ridge: jax.Array,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> SharedFit:
    """Minimise the mean loss over the Share-B class from the orthonormal start `basis (d1, k)`."""
    total = problem.weights.sum()
    inner = jnp.minimum(0.1 * tolerance, _INNER) * total
    metric = _pooled_metric(problem, link, ridge * n_users, total)
    setting = partial(_evaluate, problem, link=link, radius=radius, ridge=ridge, total=total)

    def gradient_norm(point: _Point) -> jax.Array:
        return jnp.hypot(
            jnp.linalg.norm(horizontal(point.basis, point.euclidean)),
            point.fits.residual / total,
        )

    def unfinished(state: _State) -> jax.Array:
        return (
            (gradient_norm(state.point) > tolerance)
            & (state.iterations < max_iterations)
            & (state.radius > _SMALLEST_RADIUS)
        )

    def outer_step(state: _State) -> _State:
        old = state.point
        gradient = horizontal(old.basis, old.euclidean)
        norm = jnp.linalg.norm(gradient)
        # superlinear forcing: the gradient that this step aims at
        aim = norm * jnp.minimum(_FORCING, _SUPERLINEAR * norm / first_norm)
        step = trust_region.steihaug(
            gradient,
            partial(_hessian, problem, old, link=link, total=total),
            partial(_precondition, metric, old, n_users),
            no_move=(jnp.zeros_like(old.projected), jnp.zeros_like(old.fits.factors)),
            radius=state.radius,
            tolerance=jnp.maximum(aim, 0.3 * tolerance),
            max_products=_MAX_PRODUCTS,
        )
        basis, projected, factors = _retract(problem, old, step, link)
        new = setting(basis, projected, clip_to_ball(factors, radius), inner)
        accept, region = trust_region.judge(
            step,
            losses=(old.loss, new.loss),
            gradients=(gradient_norm(old), gradient_norm(new)),
            radius=state.radius,
            largest=_LARGEST_RADIUS,
        )
        point = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)
        passes = state.data_passes + 2 * step.products + 1
        return _State(point, region, state.iterations + 1, passes)

    start = setting(
        basis,
        project_rows(problem, basis),
        jnp.zeros((n_users, problem.d2 * basis.shape[1])),
        inner,
    )
    first_norm = jnp.linalg.norm(horizontal(start.basis, start.euclidean))
    # one pass each: pooled Gram, projection, gradient
    state = _State(start, jnp.asarray(_FIRST_RADIUS), jnp.asarray(0), jnp.asarray(3))
    end = jax.lax.while_loop(unfinished, outer_step, state)
    return SharedFit(
        basis=end.point.basis,
        factors=end.point.fits.factors,
        multiplier=end.point.fits.multiplier,
        loss=end.point.loss,
        gradient=gradient_norm(end.point),
        stalled=end.radius <= _SMALLEST_RADIUS,
        iterations=end.iterations,
        data_passes=end.data_passes,
    )


def _evaluate(
    problem: Problem,
    basis: jax.Array,
    projected: jax.Array,
    factors: jax.Array,
    tolerance: jax.Array,
    *,
    link: Link,
    radius: jax.Array,
    ridge: jax.Array,
    total: jax.Array,
) -> _Point:
    """Users' minimisers at a basis, the mean loss, and its derivative in B (envelope theorem)."""
    fits = fit_users(
        problem, projected, factors, link=link, radius=radius, ridge=ridge, tolerance=tolerance
    )
    slopes = problem.weights * link.loss_slope(fits.rewards, problem.labels)
    spread = slopes[:, :, None] * fits.factors[problem.users][:, None, :]
    euclidean = collect_rows(problem, spread) / total
    return _Point(basis, projected, fits, fits.loss.sum() / total, euclidean)


def _hessian(
    problem: Problem, point: _Point, direction: jax.Array, *, link: Link, total: jax.Array
) -> trust_region.HessianProduct:
    """Riemannian Hessian of the reduced loss along a horizontal `direction (d1, k)`.

    `W` answers the move of `B`: differentiating the users' KKT conditions gives the response
    `(A_i + mu_i I) v = -d(gradient)`, kept tangent to the sphere where the bound is active. The
    last term is the Grassmannian's curvature; it vanishes without ridge and active bounds.
    """
    fits, users = point.fits, problem.users
    factors = fits.factors[users]
    slopes = problem.weights * link.loss_slope(fits.rewards, problem.labels)
    bends = problem.weights * link.loss_curvature(fits.rewards, problem.labels)
    moved = project_rows(problem, direction)
    change = tile_rewards(moved, factors)
    per_tile = jnp.einsum("tn,tna->ta", bends * change, point.projected)
    per_tile += jnp.einsum("tn,tna->ta", slopes, moved)
    response = respond(fits, sum_over_users(problem, per_tile, fits.factors.shape[0]))
    change += tile_rewards(point.projected, response[users])
    spread = (bends * change)[:, :, None] * factors[:, None, :]
    spread += slopes[:, :, None] * response[users][:, None, :]
    product = horizontal(point.basis, collect_rows(problem, spread) / total)
    product -= direction @ (point.basis.T @ point.euclidean)
    return trust_region.HessianProduct(product, (moved, response))


def respond(fits: UserFits, push: jax.Array) -> jax.Array:
    """How users' factors `(N, q)` answer when their gradients are pushed by `push (N, q)`."""
    free = -ball.solve_cholesky(fits.cholesky, push)
    normal = ball.solve_cholesky(fits.cholesky, fits.factors)
    size = jnp.sum(fits.factors * normal, axis=1)
    outward = jnp.sum(fits.factors * free, axis=1) / jnp.where(size > 0, size, 1.0)
    return free - jnp.where(fits.multiplier > 0, outward, 0.0)[:, None] * normal


def _pooled_metric(problem: Problem, link: Link, ridge: jax.Array, total: jax.Array) -> jax.Array:
    """Inverse of the pooled curvature `(d1, d1)` at zero reward, per unit weight."""
    d1, d2 = problem.d1, problem.d2
    bend = link.information(jnp.zeros(()))
    weights = jnp.repeat(problem.weights.reshape(-1), d2)[:, None]
    flat = problem.rows.reshape(-1, d1)
    gram = bend * (flat * weights).T @ flat / (total * d2)
    floor = _FLOOR * jnp.trace(gram) / d1 + ridge / total
    return jnp.linalg.inv(gram + floor * jnp.eye(d1))


def _precondition(metric: jax.Array, point: _Point, n_users: int, residual: jax.Array) -> jax.Array:
    """Inverse of `K -> G K S` on horizontal `K`: G pooled curvature, S the mean of `W_i W_i'`."""
    basis, k = point.basis, point.basis.shape[1]
    stacked = point.fits.factors.reshape(-1, k)
    spread = stacked.T @ stacked / n_users
    floor = _FLOOR * jnp.trace(spread) / k + jnp.finfo(spread.dtype).tiny
    spread_inverse = jnp.linalg.inv(spread + floor * jnp.eye(k))
    along = metric @ basis
    raw = metric @ residual
    raw -= along @ jnp.linalg.solve(basis.T @ along, basis.T @ raw)
    return horizontal(basis, raw @ spread_inverse)


def horizontal(basis: jax.Array, direction: jax.Array) -> jax.Array:
    """The part of a step that moves the space of `basis (..., d, k)`."""
    return direction - basis @ (jnp.swapaxes(basis, -1, -2) @ direction)


def _retract(
    problem: Problem, point: _Point, step: trust_region.Step, link: Link
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Orthonormal basis of `B + K`, its projected features and predicted factors.

    With `I + K'K = L L'` the new basis is `(B + K) L'^{-1}`; projected features follow by the
    same small map, factors by its inverse, so no data pass is needed.
    """
    moved, response = step.linear
    change = tile_rewards(point.projected, response[problem.users])
    share = longest_step(problem, point.fits.rewards, change, link=link, n_users=response.shape[0])
    response *= share[:, None]
    k = point.basis.shape[1]
    gram = jnp.eye(k) + step.step.T @ step.step
    factor = jnp.linalg.cholesky(gram)

    def rotate(right: jax.Array) -> jax.Array:
        flat = right.reshape(-1, k).T
        return jax.scipy.linalg.solve_triangular(factor, flat, lower=True).T.reshape(right.shape)

    factors = (point.fits.factors + response).reshape(-1, k) @ factor
    return (
        rotate(point.basis + step.step),
        rotate(point.projected + moved),
        factors.reshape(response.shape),
    )


def clip_to_ball(factors: jax.Array, radius: jax.Array) -> jax.Array:
    """Factors `(N, q)` shortened to the norm bound where they exceed it."""
    norm = jnp.linalg.norm(factors, axis=1, keepdims=True)
    return jnp.where(norm > radius, factors * (radius / jnp.where(norm > 0, norm, 1.0)), factors)
