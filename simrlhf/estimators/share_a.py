"""`share_a`: `Delta_i = B_i A`, one input side for all users, output sides per user."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks
from simrlhf.estimators import starts
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model, Start
from simrlhf.estimators.problem import PreferenceSource, Problem, unflatten_factors
from simrlhf.estimators.result import InputSharedFactors
from simrlhf.estimators.share_b import share_b


def _share_a(problem: Problem, start: jax.Array | None, limits: Limits, model: Model) -> Answer:
    """Share-B of the transposed features: `Delta_i' = A' B_i'`."""
    transposed = problem._replace(rows=jnp.swapaxes(problem.rows, 2, 3))
    found = share_b(transposed, start, limits, model)
    return found._replace(delta=jnp.swapaxes(found.delta, 1, 2))


def _start(request: Request) -> Start:
    return starts.given_basis(
        request.init, d1=request.source.d2, rank=request.rank, seed=request.seed
    )


def _finish(request: Request, answer: Answer) -> Outcome:
    basis, flat = answer.parts
    basis, weights = canonical(basis, unflatten_factors(flat, request.source.d1))
    return answer.outcome(InputSharedFactors(np.swapaxes(weights, 1, 2), basis.T))


def _limit(source: PreferenceSource) -> int:
    return max(1, min(source.d2 - 1, source.n_users * source.d1))


def _check(request: Request) -> None:
    d2, k = request.source.d2, request.rank
    checks.require(
        k < d2,
        f"share_a with rank {k} >= d2 = {d2} leaves every Delta_i free: it is the full model; "
        + ("ask for full" if d2 == 1 else f"give a rank below {d2}, or ask for full"),
    )


SHARE_A = Estimator(
    "share_a",
    "Delta_i = B_i A: one input side for all, output sides per user; needs d2 > k.",
    "P-ShareLoRA section 5, Share A",
    Kernel(_share_a, _finish, start=_start),
    needs_rank=True,
    rank_limit=_limit,
    side=max,
    check=_check,
)
