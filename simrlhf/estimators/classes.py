"""The estimators: classes of `Delta = [Delta_1 ... Delta_N]` and how each is fitted.

A new estimator is one function from `Request` to `Outcome` and one entry in `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core.links import Link
from simrlhf.estimators import starts, users_apart
from simrlhf.estimators.problem import Problem, project_rows, unflatten_factors
from simrlhf.estimators.result import (
    Factors,
    FreeFactors,
    LocalFactors,
    PooledFactors,
    SharedFactors,
)
from simrlhf.estimators.share_b_solver import SharedFit, solve_share_b
from simrlhf.estimators.user_newton import UserFits, fit_users


class Request(NamedTuple):
    """A checked call of `fit`, as every estimator receives it."""

    problem: Problem
    n_users: int
    rank: int
    radius: float
    ridge: float
    init: str | np.ndarray
    basis: np.ndarray | None
    link: Link
    tolerance: float
    max_iterations: int
    seed: int


class Outcome(NamedTuple):
    """What every estimator answers; `loss` and `gradient` of the penalised mean."""

    delta: np.ndarray
    basis: np.ndarray | None
    factors: Factors
    multipliers: np.ndarray
    loss: float
    gradient: float
    stalled: bool
    iterations: int
    data_passes: float
    note: str = ""


@dataclass(frozen=True)
class Estimator:
    """An entry of `list_estimators()`: what it is, where it comes from, how it is run."""

    name: str
    sentence: str
    reference: str
    run: Callable[[Request], Outcome]
    needs_rank: bool = False


def _share_b(request: Request) -> Outcome:
    problem, k, d2 = request.problem, request.rank, request.problem.d2
    start, passes = starts.starting_basis(
        problem,
        k,
        init=request.init,
        link=request.link,
        n_users=request.n_users,
        seed=request.seed,
    )
    found = jax.device_get(_run_share_b(problem, start, request, request.n_users, request.ridge))
    basis, weights = canonical(found.basis, unflatten_factors(found.factors, d2))
    return Outcome(
        delta=basis @ weights,
        basis=basis,
        factors=SharedFactors(basis, weights),
        multipliers=found.multiplier,
        loss=float(found.loss),
        gradient=float(found.gradient),
        stalled=bool(found.stalled),
        iterations=int(found.iterations),
        data_passes=float(found.data_passes) + passes,
    )


def _local(request: Request) -> Outcome:
    d1, d2 = request.problem.d1, request.problem.d2
    if request.rank >= min(d1, d2):
        note = f"rank {request.rank} >= min(d1, d2) = {min(d1, d2)}: local is the full model"
        return _full(request)._replace(note=note)
    found = users_apart.fit_local(request.problem, rank=request.rank, **_apart_settings(request))
    assert found.bases is not None
    assert found.weights is not None
    return _apart_outcome(request, found, LocalFactors(found.bases, found.weights))


def _full(request: Request) -> Outcome:
    found = users_apart.fit_full(request.problem, **_apart_settings(request))
    return _apart_outcome(request, found, FreeFactors(found.delta))


def _global(request: Request) -> Outcome:
    """One `Delta` for all: every tile belongs to a single user, the penalty counts N times."""
    problem = request.problem
    d1, d2 = problem.d1, problem.d2
    k = min(request.rank, d1, d2)
    pooled = problem._replace(users=jnp.zeros_like(problem.users))
    start = starts.spectral_basis(pooled, link=request.link, n_users=1, rank=k)
    found = jax.device_get(_run_share_b(pooled, start, request, 1, request.ridge * request.n_users))
    basis, weights = canonical(found.basis, unflatten_factors(found.factors, d2))
    shape = (request.n_users, d1, d2)
    return Outcome(
        delta=np.broadcast_to(basis @ weights, shape).copy(),
        basis=None,
        factors=PooledFactors(basis, weights[0]),
        multipliers=np.full(request.n_users, found.multiplier[0] / request.n_users),
        loss=float(found.loss),
        gradient=float(found.gradient),
        stalled=bool(found.stalled),
        iterations=int(found.iterations),
        data_passes=float(found.data_passes) + 1,
        note=f"at d2 = {d2} one rank-{k} matrix serves all users" if k < request.rank else "",
    )


def _oracle(request: Request) -> Outcome:
    assert request.basis is not None
    found = jax.device_get(
        _fit_on_basis(
            request.problem,
            jnp.asarray(request.basis),
            link=request.link,
            n_users=request.n_users,
            radius=jnp.asarray(request.radius),
            ridge=jnp.asarray(request.ridge),
            tolerance=jnp.asarray(request.tolerance),
            max_iterations=jnp.asarray(request.max_iterations),
        )
    )
    total = float(request.problem.weights.sum())
    weights = unflatten_factors(found.factors, request.problem.d2)
    basis, weights = canonical(request.basis, weights)
    gradient = float(found.residual) / total
    return Outcome(
        delta=basis @ weights,
        basis=basis,
        factors=SharedFactors(basis, weights),
        multipliers=found.multiplier,
        loss=float(found.loss.sum()) / total,
        gradient=gradient,
        stalled=int(found.steps) < request.max_iterations,
        iterations=int(found.steps),
        data_passes=1.0,
    )


ESTIMATORS = {
    entry.name: entry
    for entry in (
        Estimator(
            "share_b",
            "Delta_i = B W_i: one basis for all, factors per user (P-ShareLoRA).",
            "P-ShareLoRA (3.3), Algorithm 1",
            _share_b,
            needs_rank=True,
        ),
        Estimator(
            "local",
            "Delta_i = B_i W_i: one rank-k LoRA per user, nothing shared.",
            "P-ShareLoRA Algorithm 4",
            _local,
            needs_rank=True,
        ),
        Estimator(
            "global",
            "Delta_i = Delta: one LoRA for all users.",
            "P-ShareLoRA Algorithm 3",
            _global,
        ),
        Estimator(
            "full",
            "Delta_i free: every user alone, no rank constraint.",
            "full fine-tuning, P-ShareLoRA Remark 3",
            _full,
        ),
        Estimator(
            "oracle",
            "Delta_i = B W_i with the basis known: what perfect sharing would give.",
            "theory.md L2, first term",
            _oracle,
        ),
    )
}


@partial(jax.jit, static_argnames=("link", "n_users"))
def _fit_on_basis(
    problem: Problem,
    basis: jax.Array,
    *,
    link: Link,
    n_users: int,
    radius: jax.Array,
    ridge: jax.Array,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> UserFits:
    projected = project_rows(problem, basis)
    start = jnp.zeros((n_users, projected.shape[2]))
    return fit_users(
        problem,
        projected,
        start,
        link=link,
        radius=radius,
        ridge=ridge,
        tolerance=tolerance * problem.weights.sum(),
        max_steps=max_iterations,
    )


def _run_share_b(
    problem: Problem, start: jax.Array, request: Request, n_users: int, ridge: float
) -> SharedFit:
    return solve_share_b(
        problem,
        start,
        link=request.link,
        n_users=n_users,
        radius=jnp.asarray(request.radius),
        ridge=jnp.asarray(ridge),
        tolerance=jnp.asarray(request.tolerance),
        max_iterations=jnp.asarray(request.max_iterations),
    )


def _apart_settings(request: Request) -> dict[str, Any]:
    names = ("link", "n_users", "radius", "ridge", "tolerance", "max_iterations")
    return {name: getattr(request, name) for name in names}


def _apart_outcome(request: Request, found: users_apart.ApartFit, factors: Factors) -> Outcome:
    total = float(request.problem.weights.sum())
    return Outcome(
        delta=found.delta,
        basis=None,
        factors=factors,
        multipliers=found.multipliers,
        loss=float(found.losses.sum()) / total,
        gradient=found.residual / total,
        stalled=found.stalled,
        iterations=found.iterations,
        data_passes=found.data_passes,
    )


def canonical(basis: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate `B, W` without changing `B W_i` so that B's columns are singular directions in order.

    Args:
        basis: `(d1, k)` orthonormal.
        weights: `(N, k, d2)`.
    """
    aggregate = np.moveaxis(weights, 0, 1).reshape(basis.shape[1], -1)
    if aggregate.shape[1] > aggregate.shape[0]:
        aggregate = np.asarray(np.linalg.qr(aggregate.T, mode="r")).T
    turn = oriented(np.linalg.svd(aggregate)[0], basis)
    return basis @ turn, np.einsum("kj,nkb->njb", turn, weights)


def oriented(columns: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
    """Flip columns so that the largest entry of each (seen in `frame`) is positive."""
    seen = columns if frame is None else frame @ columns
    largest = np.take_along_axis(seen, np.abs(seen).argmax(axis=0)[None], axis=0)[0]
    return columns * np.where(largest < 0, -1.0, 1.0)
