"""`nuclear`: the convex relaxation, a penalty on the nuclear norm in the place of a rank."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, streams, subspaces
from simrlhf.core.links import Link
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.nuclear_solver import operator_norm, solve_nuclear
from simrlhf.estimators.problem import Problem, stacked_score
from simrlhf.estimators.result import FreeFactors

# the chosen penalty is this quantile of the noise's norm over so many draws
_QUANTILE = 0.95
_DRAWS = 40
# singular values below this fraction of the largest are rounding
_RANK_TOLERANCE = 1e-6


def _nuclear(problem: Problem, penalty: jax.Array, limits: Limits, model: Model) -> Answer:
    found = solve_nuclear(
        problem,
        penalty,
        link=model.link,
        n_users=model.n_users,
        tolerance=limits.tolerance,
        max_checks=limits.max_iterations,
    )
    return Answer(
        delta=found.delta,
        parts=(found.loss, penalty),
        multipliers=jnp.zeros(model.n_users),
        loss=found.objective,
        gradient=found.gap,
        stalled=jnp.asarray(False),
        iterations=found.steps,
        data_passes=found.data_passes,
        growing=jnp.zeros_like(found.delta),
    )


def _penalty(request: Request) -> np.ndarray | jax.Array:
    """`lambda` as given, or as large as pure noise asks for.

    With labels redrawn under the base reward alone the score is noise, and a penalty below its
    operator norm would fit it. The choice is the 95 % quantile of that norm over 40 draws; for
    regression the noise has the labels' mean square about the base, which counts signal too.
    """
    if request.penalty is not None:
        return np.asarray(request.penalty)
    key = streams.stream(request.seed, "nuclear penalty")
    return _noise_norm(request.problem, key, link=request.link, n_users=request.n_users)


@partial(jax.jit, static_argnames=("link", "n_users"))
def _noise_norm(problem: Problem, key: jax.Array, *, link: Link, n_users: int) -> jax.Array:
    total = problem.weights.sum()
    squares = problem.weights * (problem.labels - problem.offsets) ** 2

    def norm(draw: jax.Array) -> jax.Array:
        mean = link.mean(problem.offsets)
        if link.is_preference:
            labels = (jax.random.uniform(draw, mean.shape) < mean).astype(mean.dtype)
        else:
            spread = jnp.sqrt(squares.sum() / total)
            labels = mean + spread * jax.random.normal(draw, mean.shape)
        slopes = problem.weights * link.loss_slope(problem.offsets, labels)
        return operator_norm(jnp.swapaxes(stacked_score(problem, slopes, n_users), 1, 2))

    return jnp.quantile(jax.lax.map(norm, jax.random.split(key, _DRAWS)), _QUANTILE)


def _finish(request: Request, answer: Answer) -> Outcome:
    loss, penalty = answer.parts
    outcome = answer.outcome(FreeFactors(np.asarray(answer.delta)))
    values = np.linalg.svd(subspaces.unfold(outcome.delta), compute_uv=False)
    rank = int(np.sum(values > _RANK_TOLERANCE * values[0]))
    chosen = "" if request.penalty is not None else " (95 % quantile of the noise)"
    return outcome._replace(
        neg_log_likelihood=float(loss),
        data_passes=outcome.data_passes + (_DRAWS if request.penalty is None else 0),
        note=f"lambda = {float(penalty):.4g}{chosen}, rank {rank}; the certificate is the duality "
        "gap of the mean objective",
    )


def _check(request: Request) -> None:
    checks.require(
        request.link.is_log_concave,
        f"nuclear is convex for log-concave links only, and {request.link.name} is not one: its "
        "duality gap would certify nothing; use share_b",
    )


NUCLEAR = Estimator(
    "nuclear",
    "Penalty lambda ||[Delta_1 ... Delta_N]||_* for a rank: convex, certified by a duality gap.",
    "Fazel 2002; Negahban and Wainwright 2011",
    Kernel(_nuclear, _finish, start=_penalty, ranked=False),
    accepts=("penalty",),
    check=_check,
)
