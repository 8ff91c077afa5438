"""`global_plus_local`: `Delta_i = G + L_i`, one deviation for all and a LoRA per user on top."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks
from simrlhf.estimators.estimator import (
    Estimator,
    Outcome,
    Request,
    both_sides,
    require_matrices,
    total_weight,
)
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import PreferenceSource, Problem, stacked_score
from simrlhf.estimators.result import GlobalLocalFactors
from simrlhf.estimators.share_b_solver import horizontal
from simrlhf.estimators.variable_projection import (
    Shape,
    orthonormal_step,
    solve_projected,
)

# G (d1, d2), and the users' bases (N, d1, k), empty where L_i is free
Common = tuple[jax.Array, jax.Array]


def _features(problem: Problem, common: Common) -> tuple[jax.Array, jax.Array]:
    shared, bases = common
    offsets = jnp.einsum("tnba,ab->tn", problem.rows, shared)
    n_tiles, height = problem.labels.shape
    if bases.size == 0:
        return problem.rows.reshape(n_tiles, height, -1), offsets
    inner = jnp.einsum("tnba,tak->tnbk", problem.rows, bases[problem.users])
    return inner.reshape(n_tiles, height, -1), offsets


def _tangent(common: Common, steps: Common) -> Common:
    return steps[0], horizontal(common[1], steps[1])


def _retract(common: Common, steps: Common) -> Common:
    shared, bases = common
    turned = bases if bases.size == 0 else orthonormal_step(bases, horizontal(bases, steps[1]))
    return shared + steps[0], turned


def _size(problem: Problem, rank: int) -> int:
    return (
        problem.d2 * min(rank, problem.d1)
        if rank < min(problem.d1, problem.d2)
        else (problem.d1 * problem.d2)
    )


_SHAPE = Shape(_features, _retract, _tangent, size=_size)


def _global_plus_local(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    """Bound and ridge act on `L_i`: at an infinite ridge this is `global`, at none nearly `local`.

    With `k >= min(d1, d2)` the `L_i` are free and the problem is convex.
    """
    n_users, rank = model.n_users, model.rank
    d1, d2 = problem.d1, problem.d2
    free = rank >= min(d1, d2)
    bases = jnp.zeros((n_users, d1, 0)) if free else _own_spaces(problem, model)
    start = (jnp.zeros((d1, d2)), bases)
    found = solve_projected(problem, start, _SHAPE, limits, model)
    shared, bases = found.shared
    flat = found.factors.reshape(n_users, d2, -1)
    own = jnp.swapaxes(flat, 1, 2) if free else jnp.einsum("nak,nbk->nab", bases, flat)
    return found.answer(
        shared[None] + own,
        (shared, own),
        passes=0 if free else 1,
        growing=own,
        # nothing holds the common part
        together=jnp.broadcast_to(shared[None], own.shape),
    )


def _own_spaces(problem: Problem, model: Model) -> jax.Array:
    """Top left space of every user's score at zero, without the mean of all: `(N, d1, k)`."""
    slopes = problem.weights * model.link.loss_slope(problem.offsets, problem.labels)
    score = jnp.swapaxes(stacked_score(problem, slopes, model.n_users), 1, 2)
    score -= score.mean(axis=0, keepdims=True)
    return jnp.linalg.svd(score, full_matrices=False)[0][:, :, : model.rank]


def _finish(request: Request, answer: Answer) -> Outcome:
    shared, own = map(np.asarray, answer.parts)
    ridge = 0.5 * request.ridge * float(np.sum(own**2)) / total_weight(request.source)
    return answer.outcome(
        GlobalLocalFactors(shared, own), note="bound and ridge are those of the users' own part"
    )._replace(neg_log_likelihood=float(answer.loss) - ridge)


def _limit(source: PreferenceSource) -> int:
    return max(source.d1, source.d2)


def _check(request: Request) -> None:
    d1, d2, k, n_users = request.source.d1, request.source.d2, request.rank, request.n_users
    free = k >= min(d1, d2)
    checks.require(
        not free or request.ridge > 0 or np.isfinite(request.radius),
        f"global_plus_local with rank {k} >= min(d1, d2) = {min(d1, d2)} and neither ridge nor "
        "norm_bound: free users' parts leave nothing to the common one, it is the full model; "
        "give ridge",
    )
    # three copies live at once
    require_matrices("global_plus_local", 3 * n_users, side=d1 * d2 if free else k * d2)


GLOBAL_PLUS_LOCAL = Estimator(
    "global_plus_local",
    "Delta_i = G + L_i: one deviation for all, and a LoRA per user that bound and ridge hold.",
    "Evgeniou and Pontil 2004 (free L_i)",
    Kernel(_global_plus_local, _finish),
    needs_rank=True,
    rank_limit=_limit,
    side=both_sides,
    check=_check,
)
