"""`shared_diag`: `Delta_i = U diag(w_i) V'`, rank-one rewards for all, k numbers per user."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, streams
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import PreferenceSource, Problem
from simrlhf.estimators.result import DiagonalFactors
from simrlhf.estimators.shared_core import Sides, both_spaces
from simrlhf.estimators.variable_projection import Shape, solve_projected

# the best of so many starts, each to this tolerance or so many steps, is taken to the end: where
# rank-one rewards approach one another (degeneracy), a start would crawl for ever
_STARTS = 10
_ROUGH = 1e-4
_ROUGH_STEPS = 20
# added to the Gram matrix of the rank-one rewards, which degenerate where two become one
_FLOOR = 1e-12


def _gram(sides: Sides) -> jax.Array:
    """Inner products of the `u_r v_r'`: `(U'U) o (V'V)`, with unit diagonal."""
    left, right = sides
    return (left.T @ left) * (right.T @ right) + _FLOOR * jnp.eye(left.shape[1])


def _features(problem: Problem, sides: Sides) -> tuple[jax.Array, None]:
    """`L^{-1} (u_r' x v_r)_r` with `L L'` the Gram matrix: `||w||` is then `||Delta_i||_F`."""
    left, right = sides
    half = jnp.einsum("tnba,ar->tnbr", problem.rows, left)
    inner = jnp.einsum("tnbr,br->tnr", half, right)
    factor = jnp.linalg.cholesky(_gram(sides))
    flat = inner.reshape(-1, inner.shape[2]).T
    return jax.scipy.linalg.solve_triangular(factor, flat, lower=True).T.reshape(inner.shape), None


def _unit(columns: jax.Array) -> jax.Array:
    return columns / jnp.sqrt(jnp.sum(columns**2, axis=0))


def _tangent(sides: Sides, steps: Sides) -> Sides:
    left, right = (k - b * jnp.sum(b * k, axis=0) for b, k in zip(sides, steps, strict=True))
    return left, right


def _retract(sides: Sides, steps: Sides) -> Sides:
    left, right = (_unit(b + k) for b, k in zip(sides, _tangent(sides, steps), strict=True))
    return left, right


_SHAPE = Shape(_features, _retract, _tangent, size=lambda _, rank: rank)


def _shared_diag(problem: Problem, turns: jax.Array, limits: Limits, model: Model) -> Answer:
    """The best of several starts inside the top spaces of the score, `turns (S, 2, k, k)`.

    A minimum need not exist: two rank-one rewards may grow ever more alike while their weights grow
    with opposite signs (degeneracy of CP). The fit then ends STALLED or at `max_iterations`.
    """
    link, n_users, rank = model
    spaces = both_spaces(problem, link=link, n_users=n_users, rank=rank)

    rough = limits._replace(
        tolerance=jnp.maximum(limits.tolerance, _ROUGH),
        max_iterations=jnp.minimum(limits.max_iterations, _ROUGH_STEPS),
    )

    def from_turn(turn: jax.Array):
        start = (spaces[0] @ turn[0], spaces[1] @ turn[1])
        return solve_projected(problem, start, _SHAPE, rough, model)

    found = jax.lax.map(from_turn, turns)
    first = jnp.argmin(jnp.where(jnp.isfinite(found.loss), found.loss, jnp.inf))
    start = jax.tree.map(lambda array: array[first], found.shared)
    best = solve_projected(problem, start, _SHAPE, limits, model)
    left, right = best.shared
    factor = jnp.linalg.cholesky(_gram(best.shared))
    weights = jax.scipy.linalg.solve_triangular(factor.T, best.factors.T, lower=False).T
    delta = jnp.einsum("ar,nr,br->nab", left, weights, right)
    return best.answer(delta, (left, weights, right), passes=found.data_passes.sum() + 2)


def _turns(request: Request) -> np.ndarray:
    """Random rotations of both spaces: which rank-one rewards to begin with."""
    random = streams.generator(request.seed, "rank-one starts")
    k = request.rank
    return np.linalg.qr(random.standard_normal((_STARTS, 2, k, k)))[0]


def _finish(_: Request, answer: Answer) -> Outcome:
    left, weights, right = map(np.asarray, answer.parts)
    order = np.argsort(-np.sum(weights**2, axis=0), kind="stable")
    left, weights, right = left[:, order], weights[:, order], right[:, order]
    places = np.arange(left.shape[1])
    flip = np.sign(left[np.abs(left).argmax(axis=0), places])
    turn = np.sign(right[np.abs(right).argmax(axis=0), places])
    factors = DiagonalFactors(left * flip, weights * flip * turn, right * turn)
    return answer.outcome(factors, note=f"the best of {_STARTS} starts")


def _limit(source: PreferenceSource) -> int:
    return min(source.d1, source.d2)


def _check(request: Request) -> None:
    d1, d2 = request.source.d1, request.source.d2
    checks.require(
        min(d1, d2) > 1,
        f"shared_diag at d1 x d2 = {d1} x {d2}: matrices of one column are rank one anyway, so it "
        "is share_b (share_a for one row); ask for that",
    )


SHARED_DIAG = Estimator(
    "shared_diag",
    "Delta_i = U diag(w_i) V': k rank-one rewards for all, k numbers per user; needs d1, d2 > 1.",
    "CP decomposition, Hitchcock 1927; VeRA, Kopiczko et al. 2024",
    Kernel(_shared_diag, _finish, start=_turns),
    needs_rank=True,
    rank_limit=_limit,
    side=max,
    check=_check,
)
