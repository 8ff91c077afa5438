"""`shared_rep`: one linear representation for all, a linear head per user (Park et al. 2024).

The whole reward is `vec Theta_i = Psi w_i` with `Psi (d1 d2, k)` shared: no base model and no
matrix structure. It is Share-B of the features as vectors. Without a base and at `d2 = 1` the two
classes are one; otherwise `Psi W` may have `d2` times the rank of a `B W_i`, and a base reward
takes one of its k directions.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from simrlhf.estimators import starts
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides, total_weight
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model, Start
from simrlhf.estimators.problem import PreferenceSource, Problem, unflatten_factors
from simrlhf.estimators.result import RepresentationFactors
from simrlhf.estimators.share_b import share_b


def _shared_rep(problem: Problem, start: jax.Array | None, limits: Limits, model: Model) -> Answer:
    n_tiles, height, d2, d1 = problem.rows.shape
    # C order of a (d1, d2) matrix, as `vec` everywhere in this package
    vectors = jnp.swapaxes(problem.rows, 2, 3).reshape(n_tiles, height, 1, d1 * d2)
    found = share_b(problem._replace(rows=vectors), start, limits, model)
    return found._replace(delta=found.delta.reshape(-1, d1, d2))


def _start(request: Request) -> Start:
    size = request.source.d1 * request.source.d2
    return starts.given_basis(request.init, d1=size, rank=request.rank, seed=request.seed)


def _finish(request: Request, answer: Answer) -> Outcome:
    basis, flat = answer.parts
    basis, weights = canonical(basis, unflatten_factors(flat, 1))
    outcome = answer.outcome(RepresentationFactors(basis, weights[:, :, 0]))
    theta = outcome.delta
    ridge = 0.5 * request.ridge * float((theta**2).sum()) / total_weight(request.source)
    note = ""
    if request.source.d2 == 1 and not request.theta_init.any():
        note = "at d2 = 1 and without a base reward shared_rep is share_b"
    return outcome._replace(
        delta=theta - request.theta_init, neg_log_likelihood=outcome.loss - ridge, note=note
    )


def _limit(source: PreferenceSource) -> int:
    return min(source.d1 * source.d2, source.n_users)


SHARED_REP = Estimator(
    "shared_rep",
    "vec Theta_i = Psi w_i: one linear representation, linear heads; bound and ridge on Theta_i.",
    "Park et al. 2024, Algorithm 1 with linear Psi",
    Kernel(_shared_rep, _finish, start=_start),
    needs_rank=True,
    rank_limit=_limit,
    side=both_sides,
    reads_base=False,
)
