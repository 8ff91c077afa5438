"""Nuclear-norm penalised likelihood by accelerated proximal gradients, to a certified duality gap.

    P(Delta) = sum_j w_j f_j(<x_j, Delta>) + lambda ||[Delta_1 ... Delta_N]||_*

with `f_j` the loss of pair j, its base reward inside. Steps are those of Beck and Teboulle (2009)
with backtracking, restarted where the momentum points uphill (O'Donoghue and Candes 2015).

Certificate. For any `a_j` with `||sum_j w_j a_j x_j||_op <= lambda`, Fenchel's duality gives
`P(Delta') >= -sum_j w_j f_j*(a_j)` for every `Delta'`. With `u_j = f_j'(t_j)`, `t = <x, Delta>`,
the choice `a = s u`, `s = min(1, lambda / ||G||_op)`, `G = sum_j w_j u_j x_j`, is allowed. Since
`f*` is convex, `f*(u) = t u - f(t)` and `f*(0) = -inf f`,

    f*(s u) <= s (t u - f(t)) - (1 - s) inf f,

so no conjugate is needed in closed form, and the gap vanishes as `s -> 1`. It bounds how far
`Delta` is from the optimum, wherever it came from.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from simrlhf.core.links import Link
from simrlhf.estimators.problem import Problem, rewards_of, stacked_score

# the gap costs two data passes: it is looked at after so many steps
_STEPS_PER_CHECK = 10
_GROW, _SHRINK = 2.0, 0.9
# rounding of the mean loss in the backtracking test, relative
_ROUNDING = 1e-14
_MAX_BACKTRACKS = 60


class NuclearFit(NamedTuple):
    """`delta (N, d1, d2)`, mean objective and loss, duality gap of the mean, work done."""

    delta: jax.Array
    objective: jax.Array
    loss: jax.Array
    gap: jax.Array
    steps: jax.Array
    data_passes: jax.Array


class _State(NamedTuple):
    delta: jax.Array
    ahead: jax.Array
    momentum: jax.Array
    curvature: jax.Array
    passes: jax.Array


class _Progress(NamedTuple):
    state: _State
    objective: jax.Array
    loss: jax.Array
    gap: jax.Array
    checks: jax.Array


def solve_nuclear(
    problem: Problem,
    penalty: jax.Array,
    *,
    link: Link,
    n_users: int,
    tolerance: jax.Array,
    max_checks: jax.Array,
) -> NuclearFit:
    """Minimise from zero until the gap of the mean objective is at most `tolerance`.

    Args:
        penalty: `lambda`, for the summed loss.
        max_checks: limit on rounds of ten steps.
    """
    total = problem.weights.sum()
    weight = penalty / total

    def check(state: _State, checks: jax.Array) -> _Progress:
        objective, loss, gap = _certify(problem, state.delta, weight, link=link, total=total)
        return _Progress(state._replace(passes=state.passes + 2), objective, loss, gap, checks)

    def unfinished(progress: _Progress) -> jax.Array:
        return (progress.gap > tolerance) & (progress.checks < max_checks)

    def ten_steps(progress: _Progress) -> _Progress:
        state = jax.lax.fori_loop(
            0,
            _STEPS_PER_CHECK,
            lambda _, now: _step(problem, now, weight, link=link, total=total),
            progress.state,
        )
        return check(state, progress.checks + 1)

    zero = jnp.zeros((n_users, problem.d1, problem.d2))
    one = jnp.ones(())
    first = _State(zero, zero, one, _curvature_scale(problem, link, total), jnp.zeros(()))
    end = jax.lax.while_loop(unfinished, ten_steps, check(first, jnp.asarray(0)))
    return NuclearFit(
        end.state.delta,
        end.objective,
        end.loss,
        end.gap,
        _STEPS_PER_CHECK * end.checks,
        end.state.passes,
    )


def operator_norm(blocks: jax.Array) -> jax.Array:
    """`||[X_1 ... X_N]||_op` of `(N, d1, d2)` blocks."""
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(_small_gram(_unfold(blocks)))[-1], 0.0))


def _step(
    problem: Problem, state: _State, weight: jax.Array, *, link: Link, total: jax.Array
) -> _State:
    rewards = _rewards(problem, state.ahead)
    here = _mean_loss(problem, rewards, link, total)
    gradient = _gradient(problem, rewards, state.delta.shape[0], link, total)

    def at(curvature: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = _shrink_values(state.ahead - gradient / curvature, weight / curvature)
        return new, _mean_loss(problem, _rewards(problem, new), link, total)

    def too_flat(carry: tuple) -> jax.Array:
        curvature, new, loss, count = carry
        move = new - state.ahead
        model = here + jnp.sum(gradient * move) + 0.5 * curvature * jnp.sum(move**2)
        return (loss > model + _ROUNDING * jnp.abs(here)) & (count < _MAX_BACKTRACKS)

    def steeper(carry: tuple) -> tuple:
        curvature = _GROW * carry[0]
        return (curvature, *at(curvature), carry[3] + 1)

    start = _SHRINK * state.curvature
    curvature, new, _, count = jax.lax.while_loop(too_flat, steeper, (start, *at(start), 0))
    uphill = jnp.sum((state.ahead - new) * (new - state.delta)) > 0
    now = jnp.where(uphill, 1.0, state.momentum)
    following = 0.5 * (1.0 + jnp.sqrt(1.0 + 4.0 * now**2))
    ahead = new + jnp.where(uphill, 0.0, (now - 1.0) / following) * (new - state.delta)
    return _State(new, ahead, following, curvature, state.passes + 3 + count)


def _certify(
    problem: Problem, delta: jax.Array, weight: jax.Array, *, link: Link, total: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean objective, mean loss and duality gap (see the module)."""
    rewards = _rewards(problem, delta)
    losses = link.loss(rewards, problem.labels)
    slopes = link.loss_slope(rewards, problem.labels)
    norm = operator_norm(_gradient(problem, rewards, delta.shape[0], link, total))
    share = jnp.where(norm > weight, weight / jnp.where(norm > weight, norm, 1.0), 1.0)
    least = _smallest_loss(problem.labels, link)
    conjugates = share * ((rewards - problem.offsets) * slopes - losses) - (1.0 - share) * least
    loss = jnp.sum(problem.weights * losses) / total
    objective = loss + weight * _nuclear_norm(delta)
    return objective, loss, objective + jnp.sum(problem.weights * conjugates) / total


def _smallest_loss(labels: jax.Array, link: Link) -> jax.Array:
    """`inf_z loss(z, y)`: the entropy of a soft label, for a link that takes every probability."""
    if not link.is_preference:
        return jnp.zeros_like(labels)
    return -jax.scipy.special.xlogy(labels, labels) - jax.scipy.special.xlogy(
        1.0 - labels, 1.0 - labels
    )


def _rewards(problem: Problem, delta: jax.Array) -> jax.Array:
    return rewards_of(problem, delta) + problem.offsets


def _mean_loss(problem: Problem, rewards: jax.Array, link: Link, total: jax.Array) -> jax.Array:
    return jnp.sum(problem.weights * link.loss(rewards, problem.labels)) / total


def _gradient(
    problem: Problem, rewards: jax.Array, n_users: int, link: Link, total: jax.Array
) -> jax.Array:
    slopes = problem.weights * link.loss_slope(rewards, problem.labels) / total
    return jnp.swapaxes(stacked_score(problem, slopes, n_users), 1, 2)


def _unfold(blocks: jax.Array) -> jax.Array:
    return jnp.moveaxis(blocks, 0, 1).reshape(blocks.shape[1], -1)


def _small_gram(matrix: jax.Array) -> jax.Array:
    return matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix


def _shrink_values(blocks: jax.Array, amount: jax.Array) -> jax.Array:
    """Proximal map of `amount ||.||_*`: singular values lowered by `amount`, none below zero."""
    matrix = _unfold(blocks)
    squares, vectors = jnp.linalg.eigh(_small_gram(matrix))
    values = jnp.sqrt(jnp.maximum(squares, 0.0))
    kept = jnp.maximum(1.0 - amount / jnp.where(values > amount, values, amount), 0.0)
    turned = (vectors * kept) @ vectors.T
    shrunk = turned @ matrix if matrix.shape[0] <= matrix.shape[1] else matrix @ turned
    n_users, d1, d2 = blocks.shape
    return jnp.moveaxis(shrunk.reshape(d1, n_users, d2), 1, 0)


def _curvature_scale(problem: Problem, link: Link, total: jax.Array) -> jax.Array:
    """A first guess of the gradient's Lipschitz constant; backtracking finds the right one."""
    squares = jnp.einsum("tnba,tnba->tn", problem.rows, problem.rows)
    bend = problem.weights * link.information(problem.offsets)
    return jnp.sum(bend * squares) / (total * problem.d1 * problem.d2)


def _nuclear_norm(blocks: jax.Array) -> jax.Array:
    return jnp.linalg.svd(_unfold(blocks), compute_uv=False).sum()
