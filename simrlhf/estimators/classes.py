"""The estimators: classes of `Delta = [Delta_1 ... Delta_N]` and how each is fitted.

A new estimator is one function from `Request` to `Outcome` and one entry in `ESTIMATORS`. Where
its work is one function of arrays, a `Kernel` in the function's place lets batches run at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.estimators import starts, users_apart
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model, Start
from simrlhf.estimators.problem import Problem, project_rows, unflatten_factors
from simrlhf.estimators.result import FreeFactors, LocalFactors, PooledFactors, SharedFactors
from simrlhf.estimators.share_b_solver import solve_share_b
from simrlhf.estimators.user_newton import fit_users


def _share_b(problem: Problem, start: jax.Array | None, limits: Limits, model: Model) -> Answer:
    link, n_users, rank = model
    passes = 0
    if start is None:
        start = starts.spectral_basis(problem, link=link, n_users=n_users, rank=rank)
        passes = 1
    found = solve_share_b(problem, start, link=link, n_users=n_users, **limits._asdict())
    return Answer(
        delta=_delta(found.basis, found.factors, problem.d2),
        parts=(found.basis, found.factors),
        multipliers=found.multiplier,
        loss=found.loss,
        gradient=found.gradient,
        stalled=found.stalled,
        iterations=found.iterations,
        data_passes=found.data_passes + passes,
    )


def _share_b_start(request: Request) -> Start:
    d1 = request.source.d1
    return starts.given_basis(request.init, d1=d1, rank=request.rank, seed=request.seed)


def _global(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    """One `Delta` for all: every tile belongs to a single user, the penalty counts N times."""
    n_users = model.n_users
    rank = min(model.rank, problem.d1, problem.d2)
    pooled = problem._replace(users=jnp.zeros_like(problem.users))
    penalty = limits._replace(ridge=limits.ridge * n_users)
    found = _share_b(pooled, None, penalty, Model(model.link, n_users=1, rank=rank))
    return found._replace(
        delta=jnp.repeat(found.delta, n_users, axis=0),
        multipliers=jnp.repeat(found.multipliers / n_users, n_users),
    )


def _oracle(problem: Problem, basis: jax.Array, limits: Limits, model: Model) -> Answer:
    projected = project_rows(problem, basis)
    total = problem.weights.sum()
    found = fit_users(
        problem,
        projected,
        jnp.zeros((model.n_users, projected.shape[2])),
        link=model.link,
        radius=limits.radius,
        ridge=limits.ridge,
        tolerance=limits.tolerance * total,
        max_steps=limits.max_iterations,
    )
    return Answer(
        delta=_delta(basis, found.factors, problem.d2),
        parts=(basis, found.factors),
        multipliers=found.multiplier,
        loss=found.loss.sum() / total,
        gradient=found.residual / total,
        stalled=found.steps < limits.max_iterations,
        iterations=found.steps,
        data_passes=jnp.ones(()),
    )


def _known_basis(request: Request) -> Start:
    return request.basis


def _delta(basis: jax.Array, flat: jax.Array, d2: int) -> jax.Array:
    """`B W_i` `(N, d1, d2)` of flat factors `(N, d2 k)`."""
    return jnp.einsum("ak,nbk->nab", basis, flat.reshape(flat.shape[0], d2, -1))


def _finish_shared(request: Request, answer: Answer) -> Outcome:
    return answer.outcome(SharedFactors(*_factors(request, answer)))


def _finish_global(request: Request, answer: Answer) -> Outcome:
    basis, weights = _factors(request, answer)
    k, d2, note = basis.shape[1], request.source.d2, ""
    if k < request.rank:
        note = f"at d2 = {d2} one rank-{k} matrix serves all users"
    return answer.outcome(PooledFactors(basis, weights[0]), note=note)


def _finish_full(_: Request, answer: Answer) -> Outcome:
    return answer.outcome(FreeFactors(np.asarray(answer.delta)))


def _finish_local(request: Request, answer: Answer) -> Outcome:
    side = min(request.source.d1, request.source.d2)
    if request.rank >= side:
        note = f"rank {request.rank} >= min(d1, d2) = {side}: local is the full model"
        return _finish_full(request, answer)._replace(note=note)
    return answer.outcome(LocalFactors(*answer.parts))


def _factors(request: Request, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    basis, flat = answer.parts
    return canonical(basis, unflatten_factors(flat, request.source.d2))


def _apart(
    each: users_apart.Each, finish: Callable[[Request, Answer], Outcome], *, ranked: bool
) -> Kernel:
    """A kernel for users who share nothing; many or unequal ones are solved in groups."""
    return Kernel(
        solve=partial(users_apart.solve_together, each=each),
        finish=finish,
        ranked=ranked,
        takes=users_apart.is_one_group,
        otherwise=partial(users_apart.solve_in_groups, each=each),
        memory=users_apart.bytes_of_users,
    )


ESTIMATORS = {
    entry.name: entry
    for entry in (
        Estimator(
            "share_b",
            "Delta_i = B W_i: one basis for all, factors per user (P-ShareLoRA).",
            "P-ShareLoRA (3.3), Algorithm 1",
            Kernel(_share_b, _finish_shared, start=_share_b_start),
            needs_rank=True,
        ),
        Estimator(
            "local",
            "Delta_i = B_i W_i: one rank-k LoRA per user, nothing shared.",
            "P-ShareLoRA Algorithm 4",
            _apart(users_apart.local_each, _finish_local, ranked=True),
            needs_rank=True,
        ),
        Estimator(
            "global",
            "Delta_i = Delta: one LoRA for all users.",
            "P-ShareLoRA Algorithm 3",
            Kernel(_global, _finish_global),
        ),
        Estimator(
            "full",
            "Delta_i free: every user alone, no rank constraint.",
            "full fine-tuning, P-ShareLoRA Remark 3",
            _apart(users_apart.full_each, _finish_full, ranked=False),
        ),
        Estimator(
            "oracle",
            "Delta_i = B W_i with the basis known: what perfect sharing would give.",
            "theory.md L2, first term",
            Kernel(_oracle, _finish_shared, start=_known_basis, ranked=False),
        ),
    )
}
