"""`global`: one `Delta` for all users."""

from __future__ import annotations

import jax.numpy as jnp

from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.result import PooledFactors
from simrlhf.estimators.share_b import share_b, shared_factors


def _global(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    return one_matrix(problem, limits, model)


def one_matrix(problem: Problem, limits: Limits, model: Model) -> Answer:
    """Share-B of a single user who owns every tile; the penalty counts N times."""
    n_users = model.n_users
    rank = min(model.rank, problem.d1, problem.d2)
    pooled = problem._replace(users=jnp.zeros_like(problem.users))
    penalty = limits._replace(ridge=limits.ridge * n_users)
    found = share_b(pooled, None, penalty, Model(model.link, n_users=1, rank=rank))
    return found._replace(
        delta=jnp.repeat(found.delta, n_users, axis=0),
        multipliers=jnp.repeat(found.multipliers / n_users, n_users),
    )


def _finish(request: Request, answer: Answer) -> Outcome:
    basis, weights = shared_factors(request, answer)
    k, d2, note = basis.shape[1], request.source.d2, ""
    if k < request.rank:
        note = f"at d2 = {d2} one rank-{k} matrix serves all users"
    return answer.outcome(PooledFactors(basis, weights[0]), note=note)


GLOBAL = Estimator(
    "global",
    "Delta_i = Delta: one LoRA for all users.",
    "P-ShareLoRA Algorithm 3",
    Kernel(_global, _finish),
)
