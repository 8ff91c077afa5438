"""`fit`: the one entry to every estimator.

Each estimator is a class of matrices `Delta = [Delta_1 ... Delta_N]`; all minimise the same
objective over their class,

    F(Delta) + (ridge / 2) sum_i ||Delta_i||_F^2   subject to   ||Delta_i||_F <= norm_bound,

`F` the weighted sum of losses (the paper's (3.3) with a sign).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics, subspaces
from simrlhf.core.links import get_link
from simrlhf.estimators import rank_choice
from simrlhf.estimators.classes import ESTIMATORS, Estimator, Outcome, Request, oriented
from simrlhf.estimators.problem import PreferenceSource, Problem, load_problem
from simrlhf.estimators.result import FitResult, FitStatus

# a dense matrix of this side (2 GB) is the largest that a fit forms
_LARGEST_SIDE = 16384


def fit(
    preferences: PreferenceSource,
    estimator: str = "share_b",
    *,
    rank: int | str | None = None,
    norm_bound: float | None = None,
    ridge: float = 0.0,
    init: str | np.ndarray = "spectral",
    basis: np.ndarray | None = None,
    theta_init: np.ndarray | None = None,
    max_iterations: int = 200,
    tol: float = 1e-8,
    seed: int = 0,
) -> FitResult:
    """Fit every user's reward by maximum likelihood over an estimator's class.

    Args:
        preferences: the pairs; `Preferences` or any source with `n_users` and `chunks()`.
        estimator: a name of `list_estimators()`.
        rank: `k`, needed by `share_b` and `local`; `"auto"` chooses it by held-out likelihood with
            the one-standard-error rule. For the others it only sets how many columns `.basis` has.
        norm_bound: `R` in `||Delta_i||_F <= R` for every user, part of the class; `None` for none.
        ridge: penalty `(ridge / 2) sum_i ||Delta_i||_F^2` on the summed loss, in units of pairs.
        init: start of `share_b`: `"spectral"`, `"random"` or a `(d1, k)` basis.
        basis: the known basis `(d1, k)` of `oracle`.
        theta_init: base reward `(d1, d2)`, zero by default; `delta` is the deviation from it.
        max_iterations: limit of outer iterations; each is a Newton step.
        tol: the fit has converged when the KKT residual of the mean loss is at most this. It is
            absolute and carries the features' scale: bring them to order one (`simrlhf fit` does).
        seed: of `init="random"` and of the folds of `rank="auto"`.

    Returns:
        `FitResult`; its `status` says how the fit ended. Separated data without a bound or ridge
        return finite parameters and `SEPARATED`.

    Raises:
        InputError: for misuse only, before any computation.
    """
    checks.require(
        callable(getattr(preferences, "chunks", None)),
        f"preferences must be Preferences or a source with chunks(), got "
        f"{type(preferences).__name__}; build them with Preferences.from_pairs",
    )
    checks.integer("seed", seed, low=0, high=2**63 - 1)
    entry = ESTIMATORS[checks.choice("estimator", estimator, ESTIMATORS)]
    link = get_link(preferences.link)
    theta_init = _base(theta_init, preferences)
    radius = _radius(norm_bound)
    ridge = checks.real("ridge", ridge, low=0.0)
    tol = checks.real("tol", tol, above=0.0)
    max_iterations = checks.integer("max_iterations", max_iterations, low=1, high=2**31 - 1)
    basis = _known_basis(basis, entry, preferences)
    _check_size(preferences, entry)
    if rank == "auto":
        checks.require(
            entry.needs_rank,
            f'rank="auto" chooses the rank of share_b or local; {estimator} has none to choose: '
            "leave rank out",
        )
        rank = rank_choice.choose_rank(
            preferences,
            partial(
                fit,
                estimator=estimator,
                norm_bound=norm_bound,
                ridge=ridge,
                init=init,
                theta_init=theta_init,
                max_iterations=max_iterations,
                tol=tol,
                seed=seed,
            ),
            seed=seed,
        ).rank
    k = _rank(rank, entry, basis, preferences)
    with numerics.float64_scope():
        problem = load_problem(preferences, theta_init if theta_init.any() else None)
        outcome = entry.run(
            Request(
                problem,
                preferences.n_users,
                k,
                radius,
                ridge,
                init,
                basis,
                link,
                tol,
                max_iterations,
                seed,
            )
        )
        separated = 0
        if np.isinf(radius) and ridge == 0 and link.is_preference:
            separated = int(_separated_users(problem, jnp.asarray(outcome.delta)))
            if entry.name == "global" and separated < preferences.n_users:
                separated = 0  # one matrix for all diverges only where it is right for all
        total = float(problem.weights.sum())
    status = _status(outcome, tol, separated > 0)
    penalty = 0.5 * ridge * float(np.sum(outcome.delta**2)) / total
    top = outcome.basis
    if top is None:
        top = oriented(subspaces.top_left_space(subspaces.unfold(outcome.delta), k))
    return FitResult(
        estimator=estimator,
        delta=outcome.delta,
        basis=top,
        factors=outcome.factors,
        multipliers=outcome.multipliers,
        neg_log_likelihood=outcome.loss - penalty,
        gradient_norm=outcome.gradient,
        status=status,
        message=_message(status, outcome, separated),
        iterations=outcome.iterations,
        data_passes=outcome.data_passes + bool(theta_init.any()),
        rank=k,
        norm_bound=None if norm_bound is None else radius,
        ridge=ridge,
        link=link.name,
        theta_init=theta_init,
        user_ids=preferences.user_ids,
    )


def list_estimators() -> dict[str, Estimator]:
    """Every estimator by name, with one sentence and its reference."""
    return dict(ESTIMATORS)


def _base(theta_init: np.ndarray | None, preferences: PreferenceSource) -> np.ndarray:
    shape = (preferences.d1, preferences.d2)
    if theta_init is None:
        return np.zeros(shape)
    base = checks.numbers("theta_init", theta_init)
    base = base[:, None] if base.ndim == 1 else base
    checks.shape("theta_init", base, shape, remedy="one (d1, d2) matrix for all users")
    checks.finite("theta_init", base)
    return base


def _radius(norm_bound: float | None) -> float:
    if norm_bound is None:
        return float("inf")
    return checks.real("norm_bound", norm_bound, above=0.0, remedy="or None for no bound")


def _known_basis(
    basis: np.ndarray | None, entry: Estimator, preferences: PreferenceSource
) -> np.ndarray | None:
    if entry.name != "oracle":
        checks.require(
            basis is None,
            f"basis is the known basis of the oracle; {entry.name} takes its start as init=",
        )
        return None
    checks.require(basis is not None, "oracle needs basis=, the known (d1, k) basis")
    known = checks.numbers("basis", basis)
    checks.shape("basis", known, (preferences.d1, None), remedy="a (d1, k) matrix")
    checks.finite("basis", known)
    checks.require(
        1 <= known.shape[1] <= preferences.d1 and np.linalg.matrix_rank(known) == known.shape[1],
        f"basis {known.shape} must have 1 to d1 = {preferences.d1} independent columns",
    )
    return np.linalg.qr(known)[0]


def _check_size(preferences: PreferenceSource, entry: Estimator) -> None:
    side = preferences.d1 * preferences.d2 if entry.name == "full" else preferences.d1
    what = "d1 d2" if entry.name == "full" else "d1"
    checks.require(
        side <= _LARGEST_SIDE,
        f"{entry.name} forms a matrix of side {what} = {side}, above the limit {_LARGEST_SIDE} "
        "(2 GB); reduce the features, for instance by principal components",
    )


def _rank(
    rank: int | str | None,
    entry: Estimator,
    basis: np.ndarray | None,
    preferences: PreferenceSource,
) -> int:
    columns = preferences.n_users * preferences.d2
    largest = min(preferences.d1, columns)
    if basis is not None:
        k = basis.shape[1]
        checks.require(
            rank is None or rank == k, f"rank = {rank}, but the basis has {k} columns; drop rank"
        )
        return k
    if rank is None:
        checks.require(
            not entry.needs_rank, f'{entry.name} needs rank=: a number, or "auto" to choose it'
        )
        return min(largest, preferences.d2) if entry.name == "global" else largest
    checks.require(not isinstance(rank, str), f'rank must be an integer or "auto", got {rank!r}')
    return checks.integer(
        "rank",
        rank,
        low=1,
        high=largest,
        remedy=f"the limit is min(d1, N d2) = min({preferences.d1}, {columns})",
    )


@jax.jit
def _separated_users(problem: Problem, delta: jax.Array) -> jax.Array:
    """How many users have every label on the right side of `<delta, x>`, with nothing soft between.

    Such a user's likelihood rises for ever as his delta grows, whatever the base reward: there is
    no maximiser. Labels that only tie (rewards of zero) do not count, so separation of a user with
    such pairs goes unseen.
    """
    n_users = delta.shape[0]
    of_tile = jnp.swapaxes(delta, 1, 2)[problem.users]
    rewards = jnp.einsum("tnba,tba->tn", problem.rows, of_tile)
    right = jnp.where(problem.labels == 1, rewards > 0, (problem.labels == 0) & (rewards < 0))
    all_right = jnp.where(problem.weights > 0, right, True).all(axis=1).astype(jnp.int32)
    return jax.ops.segment_min(all_right, problem.users, n_users).sum()


def _status(outcome: Outcome, tol: float, separated: bool) -> FitStatus:
    if separated:
        return FitStatus.SEPARATED
    if outcome.gradient <= tol:
        return FitStatus.CONVERGED
    return FitStatus.STALLED if outcome.stalled else FitStatus.MAX_ITERATIONS


def _message(status: FitStatus, outcome: Outcome, separated: int) -> str:
    n_users = outcome.delta.shape[0]
    parts = [status.sentence]
    active = int((outcome.multipliers > 0).sum())
    if separated:
        parts.append(f"{separated} of {n_users} users are separated")
    if active:
        parts.append(f"the norm bound is active for {active} of {n_users} users")
    if outcome.note:
        parts.append(outcome.note)
    return "; ".join(parts)
