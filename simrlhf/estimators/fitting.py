"""`fit`: the one entry to every estimator.

Each estimator is a class of matrices `Delta = [Delta_1 ... Delta_N]`; all minimise the same
objective over their class,

    F(Delta) + (ridge / 2) sum_i ||Delta_i||_F^2   subject to   ||Delta_i||_F <= norm_bound,

`F` the weighted sum of losses (the paper's (3.3) with a sign).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simrlhf.core import checks, numerics, subspaces
from simrlhf.estimators import kernels, rank_choice
from simrlhf.estimators.canonical import oriented
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.custom import custom_estimator
from simrlhf.estimators.estimator import (
    Estimator,
    FittedBase,
    Outcome,
    Request,
    full_rank,
)
from simrlhf.estimators.problem import PreferenceSource
from simrlhf.estimators.requests import check_request
from simrlhf.estimators.result import FitResult, FitStatus, PooledFactors

# Newton steps that the base reward of theta_init="global" may take at least
_BASE_ITERATIONS = 200


def fit(
    preferences: PreferenceSource,
    estimator: str | Callable[[Request], np.ndarray | Outcome] = "share_b",
    *,
    rank: int | str | None = None,
    norm_bound: float | None = None,
    ridge: float = 0.0,
    penalty: float | None = None,
    init: str | np.ndarray = "spectral",
    basis: np.ndarray | None = None,
    theta_init: np.ndarray | str | None = None,
    max_iterations: int = 200,
    tol: float = 1e-8,
    seed: int = 0,
) -> FitResult:
    """Fit every user's reward by maximum likelihood over an estimator's class.

    Args:
        preferences: the pairs; `Preferences` or any source with `n_users` and `chunks()`.
        estimator: a name of `list_estimators()`, or a function of yours: it takes the checked
            `Request` (`.source` the pairs, `.rank`, `.radius` ...) and returns `(N, d1, d2)`
            deviations, or an `Outcome` where it has a certificate. The file `custom.py` says more.
        rank: `k`, needed by the low-rank classes; `"auto"` chooses it by held-out likelihood with
            the one-standard-error rule. For the others it only sets how many columns `.basis` has.
        norm_bound: `R` in `||Delta_i||_F <= R` for every user, part of the class; `None` for none.
        ridge: penalty `(ridge / 2) sum_i ||Delta_i||_F^2` on the summed loss, in units of pairs.
        penalty: `lambda` of `nuclear`, on the summed loss.
        init: start of `share_b`, `share_a`, `shared_rep` and `least_squares`: `"spectral"`,
            `"random"`, or a basis `(d1, k)` (`(d2, k)`, `(d1 d2, k)` for the middle two). The other
            classes have starts of their own.
        basis: the known basis `(d1, k)` of `oracle`.
        theta_init: base reward `(d1, d2)`, zero by default; `delta` is the deviation from it.
            `"global"` fits it first: `global` without rank, bound or ridge, which are about the
            deviations (the paper's practice). The result then holds that base as `theta_init`.
            Where users differ the pooled base is biased, and what it misses is one more direction
            of the deviations: the error then has a floor in n that rank k + 1 without a base has
            not (N=16, d1=12, k=2, n=800, 30 seeds: .301 against .221 at a true base of norm 1).
        max_iterations: limit of outer iterations; each is a Newton step (for `nuclear` ten steps,
            for `cluster` a round, for `first_order` an epoch).
        tol: the fit has converged when the KKT residual of the mean loss is at most this. It is
            absolute and carries the features' scale: bring them to order one (`simrlhf fit` does).
        seed: of `init="random"` and of the folds of `rank="auto"`.

    Returns:
        `FitResult`; its `status` says how the fit ended. Separated data without a bound or ridge
        return finite parameters and `SEPARATED`.

    Raises:
        InputError: for misuse only, before any computation.
    """
    entry = find_estimator(estimator)
    request = check_request(
        preferences,
        entry,
        rank=rank,
        norm_bound=norm_bound,
        ridge=ridge,
        penalty=penalty,
        init=init,
        basis=basis,
        theta_init=theta_init,
        max_iterations=max_iterations,
        tol=tol,
        seed=seed,
    )
    return run_request(entry, request)


def find_estimator(estimator: str | Callable[[Request], np.ndarray | Outcome]) -> Estimator:
    """The entry of a name, or an entry made of a user's function."""
    if callable(estimator):
        return custom_estimator(estimator)
    return ESTIMATORS[checks.choice("estimator", estimator, ESTIMATORS)]


def list_estimators() -> dict[str, Estimator]:
    """Every estimator by name, with one sentence and its reference."""
    return dict(ESTIMATORS)


def run_request(entry: Estimator, request: Request) -> FitResult:
    """Fit what `check_request` has checked."""
    request = with_base(with_rank(entry, request))
    with numerics.float64_scope():
        return result_of(entry, request, entry.run(request))


def with_rank(entry: Estimator, request: Request) -> Request:
    """The request with its rank chosen, where it was to be."""
    if request.rank > 0:
        return request

    def fit_rank(preferences: PreferenceSource, rank: int) -> FitResult:
        return run_request(entry, request._replace(source=preferences, rank=rank))

    chosen = rank_choice.choose_rank(
        request.source, fit_rank, seed=request.seed, largest=entry.rank_limit(request.source)
    )
    return request._replace(rank=chosen.rank)


def with_base(request: Request) -> Request:
    """The request with its base reward fitted, where it was to be."""
    if not request.waits_for_base:
        return request
    return based_on(request, run_request(ESTIMATORS["global"], base_request(request)))


def base_request(request: Request) -> Request:
    """The fit of the base: one matrix for all users, without rank, bound or penalty."""
    return request._replace(
        rank=min(request.source.d1, request.source.d2),
        radius=float("inf"),
        ridge=0.0,
        penalty=None,
        init="spectral",
        basis=None,
        waits_for_base=False,
        # the limit of the fit may count epochs, or be meant to cut it short
        max_iterations=max(request.max_iterations, _BASE_ITERATIONS),
    )


def based_on(request: Request, base: FitResult) -> Request:
    """The request with the base that was fitted for it."""
    return request._replace(
        theta_init=base.delta[0],
        waits_for_base=False,
        fitted_base=FittedBase(base.status, base.data_passes),
    )


def result_of(entry: Estimator, request: Request, outcome: Outcome) -> FitResult:
    """What the user sees of an estimator's outcome."""
    total, separated = outcome.tally or kernels.tally_of(request, outcome.delta)
    if isinstance(outcome.factors, PooledFactors) and separated < request.n_users:
        separated = 0  # one matrix for all diverges only where it is right for all
    status = _status(outcome, request.tolerance, separated > 0)
    base = request.fitted_base
    if base is not None and status is FitStatus.CONVERGED:
        status = base.status  # what starts from an unfinished base is unfinished
    likelihood = outcome.neg_log_likelihood
    if likelihood is None:
        likelihood = outcome.loss - 0.5 * request.ridge * float(np.sum(outcome.delta**2)) / total
    top = outcome.basis
    if top is None:
        aggregate = subspaces.unfold(outcome.delta)
        columns = min(request.rank, full_rank(request.source))
        top = oriented(subspaces.top_left_space(aggregate, columns))
    return FitResult(
        estimator=entry.name,
        delta=outcome.delta,
        basis=top,
        factors=outcome.factors,
        multipliers=outcome.multipliers,
        neg_log_likelihood=likelihood,
        gradient_norm=outcome.gradient,
        status=status,
        message=_message(entry, status, outcome, separated, base),
        iterations=outcome.iterations,
        data_passes=outcome.data_passes
        + (request.base is not None)
        + (0.0 if base is None else base.data_passes),
        rank=request.rank,
        norm_bound=None if np.isinf(request.radius) else request.radius,
        ridge=request.ridge,
        link=request.link.name,
        theta_init=request.theta_init,
        user_ids=request.source.user_ids,
    )


def _status(outcome: Outcome, tol: float, separated: bool) -> FitStatus:
    if separated:
        return FitStatus.SEPARATED
    if np.isnan(outcome.gradient):
        return FitStatus.UNCERTIFIED
    if outcome.gradient <= tol:
        return FitStatus.CONVERGED
    return FitStatus.STALLED if outcome.stalled else FitStatus.MAX_ITERATIONS


def _message(
    entry: Estimator,
    status: FitStatus,
    outcome: Outcome,
    separated: int,
    base: FittedBase | None,
) -> str:
    n_users = outcome.delta.shape[0]
    holds = " or ".join(entry.accepts) or "norm_bound or ridge with another estimator"
    parts = [status.sentence.replace("norm_bound or ridge", holds)]
    active = int((outcome.multipliers > 0).sum())
    if separated:
        parts.append(f"{separated} of {n_users} users are separated")
    if active:
        parts.append(f"the norm bound is active for {active} of {n_users} users")
    if base is not None:
        end = "" if base.status is FitStatus.CONVERGED else f" and ended as {base.status.name}"
        parts.append(
            f"theta_init was fitted by global first (in {base.data_passes:g} data passes){end}"
        )
    if outcome.note:
        parts.append(outcome.note)
    return "; ".join(parts)
