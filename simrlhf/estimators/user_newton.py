"""Newton's method for every user's own convex problem, all users at once.

Given projected features `z_ij` (`(T, n, q)`), minimise for each user
`sum_j weight_j loss(<z_ij, w_i> + offset_ij, y_ij) + ridge ||w_i||^2 / 2` over `||w_i|| <= R`.
Each step minimises the quadratic model over the ball exactly, so the bound costs no accuracy and
the method stays quadratic at an active bound; a backtracking search per user makes it global.
It reads the small `z_ij`, never the features: it costs no data pass.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from simrlhf.core.links import Link
from simrlhf.estimators import ball
from simrlhf.estimators.problem import Problem, sum_over_users

_MAX_STEPS = 100
_MAX_HALVINGS = 40
# sufficient decrease, and what counts as rounding of the objective in that test
_ARMIJO = 1e-4
_ROUNDING = 1e-14
# a preference's loss is far from its quadratic model where a reward changes by more than this and
# more than doubles; separated labels leave no curvature, and a free step would end at a million
_LARGEST_CHANGE = 10.0
# curvature added relative to its own scale: keeps Cholesky alive when a user has few pairs
_CURVATURE_FLOOR = 1e-12
# a step that leaves more of the residual than this is at rounding level: Newton's is quadratic, but
# scoring, which goes on at an active bound, is not
_QUADRATIC, _LINEAR = 0.5, 0.999
# share of the information that the curvature must hold in every direction to be trusted
_LEAST_SHARE = 0.05


class UserFits(NamedTuple):
    """Every user's minimiser and what second-order methods need around it.

    Attributes:
        factors: `w (N, q)`.
        rewards: `(T, n)` reward differences at the minimiser, offsets included.
        loss: `(N,)` penalised loss of each user.
        multiplier: `(N,)` of the norm bound.
        cholesky: `(N, q, q)` of the curvature plus ridge and multiplier; of the information for a
            user whose curvature is not to be trusted.
        residual: Frobenius norm of all KKT residuals (sums over pairs, not means).
        steps: Newton steps taken.
    """

    factors: jax.Array
    rewards: jax.Array
    loss: jax.Array
    multiplier: jax.Array
    cholesky: jax.Array
    residual: jax.Array
    steps: jax.Array


class _State(NamedTuple):
    factors: jax.Array
    rewards: jax.Array
    loss: jax.Array
    gradient: jax.Array
    curvature: jax.Array
    residuals: jax.Array
    steps: jax.Array
    moving: jax.Array


def tile_rewards(projected: jax.Array, factors_of_tile: jax.Array) -> jax.Array:
    """`<z_ij, w_i>` of every pair: `(T, n, q)`, `(T, q)` to `(T, n)`."""
    return jnp.einsum("tna,ta->tn", projected, factors_of_tile)


def longest_step(
    problem: Problem, rewards: jax.Array, change: jax.Array, *, link: Link, n_users: int
) -> jax.Array:
    """Share `(N,)` of a step that may be taken when it would change the rewards by `change`.

    Args:
        rewards, change: `(T, n)`.
    """
    if not link.is_preference:  # a least-squares step is exact at any length
        return jnp.ones(n_users)

    def largest(values: jax.Array) -> jax.Array:
        seen = jnp.where(problem.weights > 0, jnp.abs(values), 0.0).max(axis=1)
        return jax.ops.segment_max(seen, problem.users, n_users, indices_are_sorted=True)

    allowed = jnp.maximum(_LARGEST_CHANGE, largest(rewards))
    return allowed / jnp.maximum(largest(change), allowed)


def fit_users(
    problem: Problem,
    projected: jax.Array,
    start: jax.Array,
    *,
    link: Link,
    radius: jax.Array,
    ridge: jax.Array,
    tolerance: jax.Array,
    max_steps: jax.Array | int = _MAX_STEPS,
) -> UserFits:
    """Minimise every user's loss from `start (N, q)` until the KKT residual is below `tolerance`.

    `ridge` is one number, or one for each user `(N,)`.

    `tolerance` is for the Frobenius norm over users of the residual of the summed (not mean) loss.
    A user who stops making progress at rounding level keeps his point; `residual` tells.
    """
    n_users = start.shape[0]
    ridge_of = jnp.broadcast_to(ridge, (n_users,))[:, None]
    plain_newton = link.is_log_concave and link.is_smooth
    progress = _QUADRATIC if plain_newton else _LINEAR

    def objective(factors: jax.Array, rewards: jax.Array) -> jax.Array:
        losses = problem.weights * link.loss(rewards, problem.labels)
        fit = sum_over_users(problem, losses.sum(axis=1), n_users)
        return fit + 0.5 * ridge * jnp.sum(factors**2, axis=1)

    def expand(
        factors: jax.Array,
        rewards: jax.Array,
        loss: jax.Array,
        steps: jax.Array,
        moving: jax.Array,
    ) -> _State:
        slopes = problem.weights * link.loss_slope(rewards, problem.labels)
        bends = problem.weights * link.loss_curvature(rewards, problem.labels)
        gradient = sum_over_users(problem, jnp.einsum("tn,tna->ta", slopes, projected), n_users)
        gradient += ridge_of * factors
        per_tile = jnp.einsum("tn,tna,tnb->tab", bends, projected, projected)
        curvature = sum_over_users(problem, per_tile, n_users)
        if not plain_newton:
            curvature = _guarded(problem, projected, rewards, curvature, ridge, link=link)
        mu = ball.multipliers(factors, gradient, radius)
        residuals = jnp.linalg.norm(gradient + mu[:, None] * factors, axis=1)
        return _State(factors, rewards, loss, gradient, curvature, residuals, steps, moving)

    def newton_step(state: _State) -> _State:
        matrix = _regular(state.curvature, ridge)
        right = jnp.einsum("uab,ub->ua", matrix, state.factors) - state.gradient
        move = ball.solve_in_ball(matrix, right, radius).v - state.factors
        slope = jnp.sum(state.gradient * move, axis=1)
        bend = tile_rewards(projected, move[problem.users])

        def at(length: jax.Array) -> tuple[jax.Array, jax.Array]:
            return (
                state.factors + length[:, None] * move,
                state.rewards + length[problem.users][:, None] * bend,
            )

        def too_high(length: jax.Array, loss: jax.Array) -> jax.Array:
            allowed = state.loss + _ARMIJO * length * slope
            return loss > allowed + _ROUNDING * (1.0 + jnp.abs(state.loss))

        def halve(carry: tuple[jax.Array, jax.Array, int]) -> tuple[jax.Array, jax.Array, int]:
            length, loss, count = carry
            length = jnp.where(too_high(length, loss), 0.5 * length, length)
            return length, objective(*at(length)), count + 1

        whole = longest_step(problem, state.rewards, bend, link=link, n_users=n_users)
        length, loss, _ = jax.lax.while_loop(
            lambda carry: too_high(carry[0], carry[1]).any() & (carry[2] < _MAX_HALVINGS),
            halve,
            (whole, objective(*at(whole)), 0),
        )
        length = jnp.where(too_high(length, loss), 0.0, length)
        loss = jnp.where(length > 0, loss, state.loss)
        new = expand(*at(length), loss, state.steps + 1, state.moving)
        # at rounding level a step changes neither the loss nor, any more, the residual
        lower = loss < state.loss - _ROUNDING * (1.0 + jnp.abs(state.loss))
        nearer = jnp.linalg.norm(new.residuals) < progress * jnp.linalg.norm(state.residuals)
        return new._replace(moving=lower.any() | nearer)

    def unfinished(state: _State) -> jax.Array:
        total = jnp.linalg.norm(state.residuals)
        return (total > tolerance) & (state.steps < max_steps) & state.moving

    rewards = tile_rewards(projected, start[problem.users]) + problem.offsets
    first = expand(start, rewards, objective(start, rewards), jnp.asarray(0), jnp.asarray(True))
    last = jax.lax.while_loop(unfinished, newton_step, first)
    mu = ball.multipliers(last.factors, last.gradient, radius)
    return UserFits(
        factors=last.factors,
        rewards=last.rewards,
        loss=last.loss,
        multiplier=mu,
        cholesky=ball.shifted_cholesky(_regular(last.curvature, ridge), mu),
        residual=jnp.linalg.norm(last.residuals),
        steps=last.steps,
    )


def _guarded(
    problem: Problem,
    projected: jax.Array,
    rewards: jax.Array,
    curvature: jax.Array,
    ridge: jax.Array,
    *,
    link: Link,
) -> jax.Array:
    """The users' curvature where a Newton step may trust it, Fisher's information elsewhere.

    A loss that is not convex, or whose curvature jumps to zero, has points without a Newton step;
    scoring has none. Near a minimum both lead to it, and the curvature is the faster.
    """
    bends = problem.weights * link.information(rewards)
    per_tile = jnp.einsum("tn,tna,tnb->tab", bends, projected, projected)
    information = sum_over_users(problem, per_tile, curvature.shape[0])
    factor = jnp.linalg.cholesky(_regular(curvature - _LEAST_SHARE * information, ridge))
    trusted = jnp.isfinite(factor).all(axis=(1, 2))  # it is not a number where a root is not real
    return jnp.where(trusted[:, None, None], curvature, information)


def _regular(curvature: jax.Array, ridge: jax.Array) -> jax.Array:
    q = curvature.shape[-1]
    scale = jnp.trace(curvature, axis1=1, axis2=2) / q
    floor = ridge + _CURVATURE_FLOOR * scale + jnp.finfo(curvature.dtype).tiny
    return curvature + floor[:, None, None] * jnp.eye(q)
