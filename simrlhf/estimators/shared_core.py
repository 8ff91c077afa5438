"""`shared_core`: `Delta_i = U C_i V'`, both sides shared, a small core per user."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import Link
from simrlhf.estimators.canonical import oriented
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import PreferenceSource, Problem
from simrlhf.estimators.result import CoreFactors
from simrlhf.estimators.share_b_solver import horizontal
from simrlhf.estimators.starts import spectral_basis
from simrlhf.estimators.variable_projection import (
    Shape,
    orthonormal_step,
    solve_projected,
)

Sides = tuple[jax.Array, jax.Array]


def both_spaces(problem: Problem, *, link: Link, n_users: int, rank: int) -> Sides:
    """Top left and right spaces `(d1, k)`, `(d2, k)` of the users' scores at zero (HOSVD)."""
    transposed = problem._replace(rows=jnp.swapaxes(problem.rows, 2, 3))
    left, right = (
        spectral_basis(side, link=link, n_users=n_users, rank=rank)
        for side in (problem, transposed)
    )
    return left, right


def between(problem: Problem, left: jax.Array, right: jax.Array) -> jax.Array:
    """`U' x V` of every pair: `(T, n, k, k)`."""
    half = jnp.einsum("tnba,ak->tnbk", problem.rows, left)
    return jnp.einsum("tnbk,bl->tnkl", half, right)


def _features(problem: Problem, sides: Sides) -> tuple[jax.Array, None]:
    inner = between(problem, *sides)
    return inner.reshape(*inner.shape[:2], -1), None


def _retract(sides: Sides, steps: Sides) -> Sides:
    left, right = map(orthonormal_step, sides, map(horizontal, sides, steps))
    return left, right


def _tangent(sides: Sides, steps: Sides) -> Sides:
    left, right = map(horizontal, sides, steps)
    return left, right


_SHAPE = Shape(_features, _retract, _tangent, size=lambda _, rank: rank**2)


def _shared_core(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    link, n_users, rank = model
    start = both_spaces(problem, link=link, n_users=n_users, rank=rank)
    found = solve_projected(problem, start, _SHAPE, limits, model)
    left, right = found.shared
    cores = found.factors.reshape(n_users, rank, rank)
    delta = jnp.einsum("ak,nkl,bl->nab", left, cores, right)
    return found.answer(delta, (left, cores, right), passes=2)


def _finish(_: Request, answer: Answer) -> Outcome:
    left, cores, right = map(np.asarray, answer.parts)
    turn, other = (
        oriented(_directions(np.moveaxis(cores, mode, 0)), side)
        for mode, side in ((1, left), (2, right))
    )
    cores = np.einsum("kp,nkl,lq->npq", turn, cores, other)
    return answer.outcome(CoreFactors(left @ turn, cores, right @ other))


def _directions(cores: np.ndarray) -> np.ndarray:
    """Left singular vectors of an unfolding: `(k, ...)` to `(k, k)`."""
    return np.linalg.svd(cores.reshape(cores.shape[0], -1), full_matrices=True)[0]


def _limit(source: PreferenceSource) -> int:
    return max(1, min(source.d1, source.d2) - 1)


def _check(request: Request) -> None:
    d1, d2, k = request.source.d1, request.source.d2, request.rank
    checks.require(
        k < min(d1, d2),
        f"shared_core with rank {k} needs d1 and d2 above it, got {d1} and {d2}: a side of "
        f"dimension {k} has nothing to share; ask for " + ("share_b" if k >= d2 else "share_a"),
    )


SHARED_CORE = Estimator(
    "shared_core",
    "Delta_i = U C_i V': both sides shared, a k x k core per user; needs d1, d2 > k.",
    "Tucker 1966 (two modes); LoRA-XS, Balazy et al. 2024",
    Kernel(_shared_core, _finish),
    needs_rank=True,
    rank_limit=_limit,
    side=max,
    check=_check,
)
