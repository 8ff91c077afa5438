"""Quadratic problems over a ball, one per user, solved exactly and all at once.

`min_v v'A v / 2 - b'v` subject to `||v|| <= R` for positive definite `A`: either the free minimiser
is inside, or `(A + mu I) v = b` with `||v|| = R`. The multiplier is found by Newton's method on
`1/||v(mu)|| - 1/R`, which is nearly linear and concave, so the iteration rises monotonically to the
root from `mu = 0` (Conn, Gould and Toint, Trust Region Methods, section 7.3).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

# relative excess of ||v|| over R at which the secular iteration stops: rounding of the norm
_NORM_TOLERANCE = 1e-12
_MAX_STEPS = 40


class BallSolution(NamedTuple):
    """Minimisers `v (N, q)`, multipliers `mu (N,)`, Cholesky factors of `A + mu I` `(N, q, q)`."""

    v: jax.Array
    mu: jax.Array
    cholesky: jax.Array


def solve_cholesky(cholesky: jax.Array, right: jax.Array) -> jax.Array:
    """Solve `L L' v = right` for batches: `(N, q, q)`, `(N, q)` to `(N, q)`."""
    return jax.scipy.linalg.cho_solve((cholesky, True), right[..., None])[..., 0]


def shifted_cholesky(matrix: jax.Array, shift: jax.Array) -> jax.Array:
    """Cholesky factors of `A + shift I`, `(N, q, q)` and `(N,)`."""
    return jnp.linalg.cholesky(matrix + shift[:, None, None] * jnp.eye(matrix.shape[-1]))


def solve_in_ball(matrix: jax.Array, right: jax.Array, radius: jax.Array) -> BallSolution:
    """Minimise `v'A v / 2 - b'v` over `||v|| <= radius`, a batch of `N` problems.

    Args:
        matrix: `A (N, q, q)` positive definite.
        right: `b (N, q)`.
        radius: scalar `R`; infinity leaves the problems free.
    """

    def outside(v: jax.Array) -> jax.Array:
        return jnp.linalg.norm(v, axis=-1) > radius * (1.0 + _NORM_TOLERANCE)

    def solve(mu: jax.Array) -> BallSolution:
        factor = shifted_cholesky(matrix, mu)
        return BallSolution(solve_cholesky(factor, right), mu, factor)

    def step(carry: tuple[BallSolution, int]) -> tuple[BallSolution, int]:
        now, count = carry
        norm = jnp.linalg.norm(now.v, axis=-1)
        half = jax.scipy.linalg.solve_triangular(now.cholesky, now.v[..., None], lower=True)
        rise = (norm / radius - 1.0) * norm**2 / jnp.sum(half[..., 0] ** 2, axis=-1)
        return solve(now.mu + jnp.where(outside(now.v), rise, 0.0)), count + 1

    start = solve(jnp.zeros(matrix.shape[0]))
    found, _ = jax.lax.while_loop(
        lambda carry: outside(carry[0].v).any() & (carry[1] < _MAX_STEPS), step, (start, 0)
    )
    return found


def multipliers(point: jax.Array, gradient: jax.Array, radius: jax.Array) -> jax.Array:
    """Multipliers `(N,)` of `||v|| <= R` at `point (N, q)`: `max(0, -<g, v>/R^2)` on the sphere."""
    squared = jnp.sum(point**2, axis=-1)
    on_sphere = squared >= (radius * (1.0 - 1e-9)) ** 2
    pull = -jnp.sum(gradient * point, axis=-1) / jnp.where(squared > 0, squared, 1.0)
    return jnp.where(on_sphere, jnp.maximum(pull, 0.0), 0.0)
