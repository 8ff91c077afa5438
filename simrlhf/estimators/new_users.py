"""`adapt_users`: new users of a fitted model, their factors on its frozen basis."""

from __future__ import annotations

import numpy as np

from simrlhf.core import checks
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.fitting import run_request
from simrlhf.estimators.kernels import Answer, Kernel, Start
from simrlhf.estimators.oracle import ORACLE, factors_on
from simrlhf.estimators.problem import PreferenceSource, unflatten_factors
from simrlhf.estimators.requests import check_request
from simrlhf.estimators.result import FitResult, PooledFactors, SharedFactors


def _frozen_basis(request: Request) -> Start:
    return request.basis


def _finish(request: Request, answer: Answer) -> Outcome:
    """Factors in the frame of the basis as it was given: another fit's errors refer to it."""
    assert request.basis is not None
    weights = unflatten_factors(answer.parts[1], request.source.d2)
    return answer.outcome(SharedFactors(request.basis, np.ascontiguousarray(weights)))


ADAPTED = Estimator(
    "adapted",
    "Delta_i = B W_i for new users, B frozen at an earlier fit's basis.",
    "Park et al., Theorem 3.2; theory.md S6, L5",
    Kernel(factors_on, _finish, start=_frozen_basis, ranked=False),
)


def adapt_users(
    result: FitResult,
    preferences: PreferenceSource,
    *,
    max_iterations: int = 200,
    tol: float = 1e-8,
) -> FitResult:
    """Fit new users' factors on the basis of an earlier fit, which stays as it is.

        Delta_0 = B_hat W_0,   W_0 = argmin sum_j w_j loss(<B_hat W_0 + Theta_init, x_j>, y_j)

    with the earlier fit's norm bound, ridge and base reward: convex problems, any number of users
    at once, one data pass. The basis is `result.basis`, which every estimator has: of `full` or
    `local` it is the top-k left space of what they fitted.

    Fails when a new user's truth leaves the span of the basis (S6): his error has a floor that no
    number of his pairs lowers.

    Args:
        result: the earlier fit, of rank below d1.
        preferences: pairs of the new users, of the same link and shape; their ids are kept, and may
            be those of old users.
        max_iterations, tol: as in `fit`.

    Returns:
        A `FitResult` of the new users, `estimator` "adapted"; `standard_errors` takes it, with
        `basis_errors=` the record of the earlier fit.

    Raises:
        InputError: another link or shape, a basis of rank d1 (nothing would be frozen: fit the new
            users by `full`), a fit of one matrix for all users (nothing is personal in it).

    Source: Park et al. (2405.00254), Theorem 3.2; theory.md S6 and L5.
    """
    checks.require(
        isinstance(result, FitResult), f"result must come from fit, got {type(result).__name__}"
    )
    d1, k = result.basis.shape
    checks.require(
        not isinstance(result.factors, PooledFactors),
        f"{result.estimator} has one matrix for all users, and new users have it as they come: use "
        "result.delta[0], or adapt to a share_b fit",
    )
    checks.require(
        k < d1,
        f"the basis has rank {k} = d1: it freezes nothing, and every user would be fitted alone; "
        'fit them with estimator="full", or give the first fit a lower rank',
    )
    # a source without these attributes is refused by check_request, in its own words
    link = getattr(preferences, "link", result.link)
    checks.require(
        link == result.link,
        f"the fit has the {result.link} link, the new users' data the {link} link; give data of "
        "the same kind",
    )
    shape = (getattr(preferences, "d1", d1), getattr(preferences, "d2", result.delta.shape[2]))
    checks.require(
        shape == result.delta.shape[1:],
        f"the fit has features of (d1, d2) = {result.delta.shape[1:]}, the new users' data "
        f"{shape}; give features of the same kind",
    )
    request = check_request(
        preferences,
        ORACLE,
        rank=None,
        norm_bound=result.norm_bound,
        ridge=result.ridge,
        penalty=None,
        init="spectral",
        basis=result.basis,
        theta_init=result.theta_init,
        max_iterations=max_iterations,
        tol=tol,
        seed=0,
    )
    return run_request(ADAPTED, request._replace(basis=result.basis))
