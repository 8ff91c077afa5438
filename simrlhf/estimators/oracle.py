"""`oracle`: `Delta_i = B W_i` with the basis known."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from simrlhf.estimators.estimator import Estimator, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model, Start
from simrlhf.estimators.problem import PreferenceSource, Problem, project_rows
from simrlhf.estimators.share_b import deltas, finish_shared
from simrlhf.estimators.user_newton import fit_users


def factors_on(problem: Problem, basis: jax.Array, limits: Limits, model: Model) -> Answer:
    """Every user's factors on a given orthonormal basis: convex problems, one data pass."""
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
        delta=deltas(basis, found.factors, problem.d2),
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


def _side(source: PreferenceSource) -> int:
    return source.d1


ORACLE = Estimator(
    "oracle",
    "Delta_i = B W_i with the basis known: what perfect sharing would give.",
    "theory.md L2, first term",
    Kernel(factors_on, finish_shared, start=_known_basis, ranked=False),
    # a known basis asks for no number of users: one new user has all its directions
    rank_limit=_side,
)
