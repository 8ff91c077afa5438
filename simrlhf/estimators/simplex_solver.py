"""Maximum likelihood over `Delta_i = sum_j a_ij V_j`, `a_i` in the probability simplex.

The weights are `a_i = s_i^2 / ||s_i||^2`, so that nothing is constrained: a stationary point whose
Hessian has no negative direction satisfies the optimality conditions of the simplex. `(V, s)` is
moved by Newton's method in a trust region, with derivatives by JAX. Where a weight is zero its `s`
feels no gradient, though raising it may pay; the projected gradient of the simplex tells, and such
weights are set off anew.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from simrlhf.core.links import Link
from simrlhf.estimators import trust_region
from simrlhf.estimators.kernels import Limits, Model
from simrlhf.estimators.problem import Problem

_MAX_PRODUCTS = 150
_LARGEST_RADIUS = 1e3
_SMALLEST_RADIUS = 1e-13
_ACCEPT = 0.05
_ROUNDING = 1e-13
_FORCING = 0.1
# weight that a user gives to a vertex which he left too early
_FRESH = 1e-2
_PASSES_PER_PRODUCT = 4
_PASSES_PER_POINT = 3


class Mixture(NamedTuple):
    """`vertices (K, d1, d2)` and `roots (N, K)`, whose squares are the weights up to scale."""

    vertices: jax.Array
    roots: jax.Array

    @property
    def weights(self) -> jax.Array:
        squares = self.roots**2
        return squares / squares.sum(axis=1, keepdims=True)


class SimplexFit(NamedTuple):
    """A mixture and how it ended, as in `Answer`."""

    mixture: Mixture
    loss: jax.Array
    gradient: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    data_passes: jax.Array


class _State(NamedTuple):
    mixture: Mixture
    loss: jax.Array
    slope: jax.Array
    residual: jax.Array
    radius: jax.Array
    iterations: jax.Array
    data_passes: jax.Array


def solve_simplex(problem: Problem, start: Mixture, limits: Limits, model: Model) -> SimplexFit:
    """Minimise the penalised mean loss from `start`.

    The certificate is `||(grad_V, P(a - grad_a) - a)||` of that mean, `P` the projection of every
    user's weights onto the simplex: zero exactly at points that satisfy the optimality conditions.
    """
    unravel = ravel_pytree(start)[1]

    def loss_of(flat: jax.Array) -> jax.Array:
        mixture = unravel(flat)
        return objective(problem, mixture.vertices, mixture.weights, limits.ridge, model.link)

    def measured(mixture: Mixture, *, radius, iterations, passes) -> _State:
        flat = ravel_pytree(mixture)[0]
        loss, slope = jax.value_and_grad(loss_of)(flat)
        in_vertices, gap = optimality(problem, mixture, limits.ridge, model.link)
        residual = jnp.hypot(jnp.linalg.norm(in_vertices), jnp.linalg.norm(gap))
        return _State(mixture, loss, slope, residual, radius, iterations, passes)

    def unfinished(state: _State) -> jax.Array:
        return (
            (state.residual > limits.tolerance)
            & (state.iterations < limits.max_iterations)
            & (state.radius > _SMALLEST_RADIUS)
        )

    def outer_step(old: _State) -> _State:
        flat = ravel_pytree(old.mixture)[0]
        size = jnp.linalg.norm(old.slope)
        step = trust_region.steihaug(
            old.slope,
            lambda p: trust_region.HessianProduct(
                jax.jvp(jax.grad(loss_of), (flat,), (p,))[1], jnp.zeros(())
            ),
            lambda residual: residual,
            no_move=jnp.zeros(()),
            radius=old.radius,
            tolerance=jnp.maximum(
                _FORCING * size * jnp.minimum(1.0, size), 1e-3 * limits.tolerance
            ),
            max_products=_MAX_PRODUCTS,
        )
        new = measured(
            _balanced(unravel(flat + step.step)),
            radius=old.radius,
            iterations=old.iterations + 1,
            passes=old.data_passes + _PASSES_PER_PRODUCT * step.products + _PASSES_PER_POINT,
        )
        slack = _ROUNDING * jnp.maximum(1.0, jnp.abs(old.loss))
        ratio = (old.loss - new.loss + slack) / (slack - step.model_change)
        invisible = step.model_change > -0.01 * slack
        stuck = invisible & (new.residual > 0.9 * old.residual)
        length = jnp.linalg.norm(step.step)
        grown = jnp.where(
            (ratio > 0.75) & (length > 0.99 * old.radius),
            jnp.minimum(2.0 * old.radius, _LARGEST_RADIUS),
            old.radius,
        )
        region = jnp.where(stuck, 0.0, jnp.where(ratio >= 0.25, grown, 0.25 * length))
        accept = (ratio > _ACCEPT) & ~stuck
        kept = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)
        return kept._replace(radius=region, iterations=new.iterations, data_passes=new.data_passes)

    zero = jnp.asarray(0)
    first = measured(
        _balanced(start),
        radius=jnp.ones(()),
        iterations=zero,
        passes=jnp.asarray(_PASSES_PER_POINT),
    )

    def again(state: _State) -> _State:
        """Weights that left too early are set off anew; then Newton's method once more."""
        _, gap = optimality(problem, state.mixture, limits.ridge, model.link)
        early = (state.mixture.weights < _FRESH) & (gap > 0.1 * limits.tolerance)
        roots = jnp.where(early, jnp.sqrt(_FRESH), state.mixture.roots)
        fresh = measured(
            _balanced(state.mixture._replace(roots=roots)),
            radius=jnp.ones(()),
            iterations=state.iterations,
            passes=state.data_passes + 2 * _PASSES_PER_POINT,
        )
        ended = jax.lax.while_loop(unfinished, outer_step, fresh)
        return jax.tree.map(
            lambda a, b: jnp.where(ended.loss <= state.loss, a, b),
            ended,
            state._replace(iterations=ended.iterations, data_passes=ended.data_passes),
        )

    end = jax.lax.while_loop(unfinished, outer_step, first)
    end = jax.lax.while_loop(
        lambda pair: (
            (pair[0].residual > limits.tolerance)
            & (pair[0].iterations < limits.max_iterations)
            & (pair[1] < 5)
        ),
        lambda pair: (again(pair[0]), pair[1] + 1),
        (end, zero),
    )[0]
    return SimplexFit(
        end.mixture,
        end.loss,
        end.residual,
        end.iterations < limits.max_iterations,
        end.iterations,
        end.data_passes,
    )


def objective(
    problem: Problem, vertices: jax.Array, weights: jax.Array, ridge: jax.Array, link: Link
) -> jax.Array:
    """Mean loss plus `(ridge / 2) sum_i ||Delta_i||^2` per pair."""
    delta = jnp.einsum("nk,kab->nab", weights, vertices)
    of_tile = jnp.swapaxes(delta, 1, 2)[problem.users]
    rewards = jnp.einsum("tnba,tba->tn", problem.rows, of_tile) + problem.offsets
    losses = problem.weights * link.loss(rewards, problem.labels)
    return (losses.sum() + 0.5 * ridge * jnp.sum(delta**2)) / problem.weights.sum()


def optimality(
    problem: Problem, mixture: Mixture, ridge: jax.Array, link: Link
) -> tuple[jax.Array, jax.Array]:
    """Gradient in the vertices, and `P(a - grad_a) - a` `(N, K)` on the simplex."""
    weights = mixture.weights
    in_vertices, in_weights = jax.grad(objective, argnums=(1, 2))(
        problem, mixture.vertices, weights, ridge, link
    )
    return in_vertices, project(weights - in_weights) - weights


def project(points: jax.Array) -> jax.Array:
    """Nearest points `(N, K)` of the probability simplex (sort and threshold)."""
    k = points.shape[1]
    ordered = -jnp.sort(-points, axis=1)
    excess = jnp.cumsum(ordered, axis=1) - 1.0
    counts = jnp.arange(1, k + 1, dtype=points.dtype)[None]
    inside = (ordered - excess / counts > 0).sum(axis=1, keepdims=True)
    level = jnp.take_along_axis(excess, inside - 1, axis=1) / inside.astype(points.dtype)
    return jnp.maximum(points - level, 0.0)


def _balanced(mixture: Mixture) -> Mixture:
    """Roots of unit length: their scale changes nothing."""
    length = jnp.sqrt(jnp.sum(mixture.roots**2, axis=1, keepdims=True))
    return mixture._replace(roots=mixture.roots / length)
