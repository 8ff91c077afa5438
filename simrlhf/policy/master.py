"""The pessimistic value over finitely many policies: a small convex problem for every user.

    min t   over u, t   subject to   c_j + a_j' u <= t,   room_c(u) >= 0

with `c_j` the value of policy j under the set's origin, `a_j = zeta M' g_j`, and the rooms those of
the set (`policy.regions`; `1 - ||u||^2` for an ellipsoid). Its Lagrange multipliers are the weights
`lambda` of the policies' mixture, whose own worst value is `c' lambda - ||sum_j lambda_j a_j||`
over an ellipsoid. Solved by Newton's method on the central path of

    t / mu - sum_j log(t - c_j - a_j' u) - sum_c log room_c(u),

warm from the last point: a new policy needs a few steps, and a point in the middle of what is left
is a better question to the oracle than the corner that minimises.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from simrlhf.policy.regions import Region

# Newton steps of one call; warm starts take fewer
_STEPS = 40
# the decrement at which a point is central enough: the multipliers are then feasible after scaling
_CENTRAL = 1e-2
_SHRINK = 0.5


class Cuts(NamedTuple):
    """Policies of every user: `slopes a (n, m, q)`, `offsets c (n, m)`, `there (n, m)`."""

    slopes: jax.Array
    offsets: jax.Array
    there: jax.Array


class Centre(NamedTuple):
    """`u (n, q)`, the mixtures `weights (n, m)` and `lower (n,)`, below their worst values."""

    u: jax.Array
    weights: jax.Array
    lower: jax.Array


@jax.jit
def centres(cuts: Cuts, region: Region, u: jax.Array, mu: jax.Array) -> Centre:
    """Central points for `mu (n,)`, from `u (n, q)` strictly inside the users' sets."""
    return jax.vmap(_centre)(cuts, region, u, mu)


def _centre(cuts: Cuts, region: Region, u: jax.Array, mu: jax.Array) -> Centre:
    slopes = jnp.where(cuts.there[:, None], cuts.slopes, 0.0)
    count = jnp.sum(cuts.there.astype(u.dtype))

    def slack(u: jax.Array, t: jax.Array) -> jax.Array:
        # a policy that is not there has a slack of one, and no part in any sum
        return jnp.where(cuts.there, t - cuts.offsets - slopes @ u, 1.0)

    def barrier(u: jax.Array, t: jax.Array) -> jax.Array:
        room = jnp.concatenate([slack(u, t), region.rooms(u)])
        feasible = room.min() > 0.0
        value = t / mu - jnp.sum(jnp.log(jnp.where(feasible, room, 1.0)))
        return jnp.where(feasible, value, jnp.inf)

    def newton(u: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        pull = jnp.where(cuts.there, 1.0 / slack(u, t), 0.0)
        push = 1.0 / region.rooms(u)
        steep = push[:, None] * region.slopes(u)
        gradient = slopes.T @ pull - steep.sum(axis=0)
        along = 1.0 / mu - pull.sum()
        scaled = pull[:, None] * slopes
        curvature = scaled.T @ scaled + steep.T @ steep - region.bend(u, push)
        # eliminate t: its row is (-sum d^2 a, sum d^2)
        corner = jnp.sum(pull**2)
        edge = -(scaled.T @ pull)
        reduced = curvature - jnp.outer(edge, edge) / corner
        factor = jax.scipy.linalg.cho_factor(reduced)
        step = -jax.scipy.linalg.cho_solve(factor, gradient - edge * along / corner)
        last = -(along + edge @ step) / corner
        decrement = -(gradient @ step + along * last)
        return step, last, decrement

    def more(state: tuple) -> jax.Array:
        *_, decrement, count = state
        return (decrement > _CENTRAL) & (count < _STEPS)

    def iterate(state: tuple) -> tuple:
        u, t, _, count = state
        step, last, decrement = newton(u, t)
        here = barrier(u, t)

        def too_far(size: jax.Array) -> jax.Array:
            wanted = here - 0.1 * size * decrement
            return ~(barrier(u + size * step, t + size * last) <= wanted) & (size > 1e-10)

        size = jax.lax.while_loop(too_far, lambda size: _SHRINK * size, jnp.asarray(1.0))
        moved = jnp.where(jnp.isfinite(decrement) & (size > 1e-10), size, 0.0)
        # a step that leads nowhere ends the search: rounding, or a corner of the problem
        decrement = jnp.where(moved > 0.0, decrement, 0.0)
        return (
            u + jnp.where(moved > 0.0, moved * step, 0.0),
            t + jnp.where(moved > 0.0, moved * last, 0.0),
            decrement,
            count + 1,
        )

    top = jnp.max(jnp.where(cuts.there, cuts.offsets + slopes @ u, -jnp.inf))
    start = (u, top + mu * count, jnp.asarray(jnp.inf), jnp.asarray(0))
    u, t, *_ = jax.lax.while_loop(more, iterate, start)
    pull = jnp.where(cuts.there, 1.0 / slack(u, t), 0.0)
    weights = pull / pull.sum()
    offsets = jnp.where(cuts.there, cuts.offsets, 0.0)
    multipliers = 1.0 / (pull.sum() * region.rooms(u))
    lower = region.least(offsets @ weights, slopes.T @ weights, u, multipliers)
    return Centre(u, weights, lower)
