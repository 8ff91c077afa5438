"""`share_b`: `Delta_i = B W_i`, one basis for all users, factors per user."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.estimators import starts
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model, Start
from simrlhf.estimators.problem import Problem, unflatten_factors
from simrlhf.estimators.result import SharedFactors
from simrlhf.estimators.share_b_solver import solve_share_b


def share_b(problem: Problem, start: jax.Array | None, limits: Limits, model: Model) -> Answer:
    """The joint fit from `start (d1, k)`, or from the spectral basis."""
    link, n_users, rank = model
    passes = 0
    if start is None:
        start = starts.spectral_basis(problem, link=link, n_users=n_users, rank=rank)
        passes = 1
    found = solve_share_b(problem, start, link=link, n_users=n_users, **limits._asdict())
    return Answer(
        delta=deltas(found.basis, found.factors, problem.d2),
        parts=(found.basis, found.factors),
        multipliers=found.multiplier,
        loss=found.loss,
        gradient=found.gradient,
        stalled=found.stalled,
        iterations=found.iterations,
        data_passes=found.data_passes + passes,
    )


def given_start(request: Request) -> Start:
    """The basis that `init` asks for, `None` for the spectral one."""
    d1 = request.source.d1
    return starts.given_basis(request.init, d1=d1, rank=request.rank, seed=request.seed)


def deltas(basis: jax.Array, flat: jax.Array, d2: int) -> jax.Array:
    """`B W_i` `(N, d1, d2)` of flat factors `(N, d2 k)`."""
    return jnp.einsum("ak,nbk->nab", basis, flat.reshape(flat.shape[0], d2, -1))


def shared_factors(request: Request, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """`B (d1, k)` and `W (N, k, d2)` of an answer whose parts are a basis and flat factors."""
    basis, flat = answer.parts
    return canonical(basis, unflatten_factors(flat, request.source.d2))


def finish_shared(request: Request, answer: Answer) -> Outcome:
    """The outcome of such an answer."""
    return answer.outcome(SharedFactors(*shared_factors(request, answer)))


SHARE_B = Estimator(
    "share_b",
    "Delta_i = B W_i: one basis for all, factors per user (P-ShareLoRA).",
    "P-ShareLoRA (3.3), Algorithm 1",
    Kernel(share_b, finish_shared, start=given_start),
    needs_rank=True,
)
