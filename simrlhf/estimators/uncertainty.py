"""`standard_errors`: how far fitted rewards may be from the truth, by information or redraws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats

from simrlhf.core import checks, links, numerics
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import redraws
from simrlhf.estimators.charts import Pairs, chart_of
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.error_notes import notes_of_fisher, notes_of_fit, notes_of_redraws
from simrlhf.estimators.fisher import BasisErrors, FisherErrors, fisher_errors
from simrlhf.estimators.residuals import (
    parameters_of,
    residual_variance,
    rewards_of_pairs,
    separated_models,
)
from simrlhf.estimators.result import FitResult, PooledFactors

METHODS = ("fisher", "bootstrap")
# entries of `delta`, and the work for them
_LARGEST_TABLE = 2**24
_LARGEST_SQUARE = 4096
_LARGEST_WORK = 1e13


class Intervals(NamedTuple):
    """Fitted rewards `(m,)` between the ends of their confidence intervals."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class RewardUncertainty:
    """Standard errors of every reward `<Delta_i, x>` of a fit; `theta_init` counts as known.

    Attributes:
        fit: the fit.
        method: `fisher` or `bootstrap`.
        note: where the numbers do not mean what they should, in words; empty where nothing is known
            against them.
        degrees_of_freedom: of the residual variance under the identity link; infinite otherwise.
        parts: what the errors are computed from.
    """

    fit: FitResult
    method: str
    note: str
    degrees_of_freedom: float
    parts: FisherErrors | redraws.Redraws

    def of_rewards(self, users: Sequence[int] | np.ndarray, features: np.ndarray) -> np.ndarray:
        """`(m,)` standard errors of `fit.rewards(users, features)`; infinite where singular.

        Args:
            users: `(m,)` indices, or one index for all rows.
            features: `(m, d1, d2)` or `(m, d1)`.
        """
        self.fit.rewards(users, features)  # refuses what does not belong to this fit
        rows = np.asarray(features, dtype=np.float64)
        rows = rows.reshape(len(rows), *self.fit.delta.shape[1:])
        each = np.broadcast_to(np.asarray(users), rows.shape[:1]).astype(int)
        return np.sqrt(self.parts.variances(each, rows))

    def intervals(
        self, users: Sequence[int] | np.ndarray, features: np.ndarray, confidence: float = 0.95
    ) -> Intervals:
        """Fitted reward plus and minus a quantile times its standard error.

        The quantile is the normal one, under the identity link Student's. Redraws give a standard
        deviation too, not percentiles: a fit to few pairs lies too far from zero, its refits twice
        as far, and percentiles of the refits would be centred there. Coverage of 95 % intervals of
        `share_b` at N=5, d1=6, k=2, n=50 and 400, 40 worlds: information .939(10), .949(7); redraws
        .971(8), .954(7); their percentiles .897(11), .933(7).

        Args:
            users, features: as for `of_rewards`.
            confidence: between 0 and 1.
        """
        level = checks.real("confidence", confidence, above=0.0, remedy="for instance 0.95")
        checks.require(level < 1.0, f"confidence = {level:g} must be below 1; for instance 0.95")
        value = self.fit.rewards(users, features)
        quantile = float(scipy.stats.t.ppf(0.5 + level / 2.0, self.degrees_of_freedom))
        half = quantile * self.of_rewards(users, features)
        return Intervals(value, value - half, value + half)

    @cached_property
    def delta(self) -> np.ndarray:
        """`(N, d1, d2)` standard errors of the entries of `fit.delta`.

        Raises:
            InputError: so many entries that they would take hours; `of_rewards` gives those wanted.
        """
        n_users, d1, d2 = self.fit.delta.shape
        basis = self.parts.basis_errors if isinstance(self.parts, FisherErrors) else None
        side = 0 if basis is None else basis.basis.shape[1] * basis.outside.shape[1]
        entries, work = self.fit.delta.size, float(self.fit.delta.size) * side**2
        checks.require(
            entries <= _LARGEST_TABLE and d1 * d2 <= _LARGEST_SQUARE and work <= _LARGEST_WORK,
            f"{entries:,} entries, {d1 * d2:,} of each user, need about {work:.1g} products; the "
            f"limits are {_LARGEST_TABLE:,}, {_LARGEST_SQUARE:,} and {_LARGEST_WORK:.1g}: ask "
            "of_rewards for the rewards that you need",
        )
        units = np.eye(d1 * d2).reshape(-1, d1, d2)
        errors = [self.of_rewards(np.asarray(user), units) for user in range(n_users)]
        return np.stack(errors).reshape(n_users, d1, d2)


def standard_errors(
    result: FitResult,
    preferences: Preferences,
    *,
    method: str = "fisher",
    basis_errors: RewardUncertainty | None = None,
    n_bootstrap: int = 200,
    seed: int = 0,
    estimator: Callable[..., Any] | None = None,
    penalty: float | None = None,
    max_iterations: int = 200,
    tol: float = 1e-8,
) -> RewardUncertainty:
    """Standard errors of the rewards of a fit, from the pairs that it was fitted to.

    `fisher` puts the fit into the limit of theory.md L2, sums over pairs in the place of
    expectations over features:

        Var <Delta_i, x> = p' A_i^{-1} p + u' S^{-1} u,   u = q - C_i A_i^{-1} p

    (`fisher.py` defines these; the second term is the basis's own error). `oracle`, `full` and
    `adapted` have the first term only. A ridge gives the sandwich: the spread around a mean that
    the ridge has shrunk, without the shrinkage. Under the identity link the residual variance is
    `sum w r^2 / (sum w - p)`, p the parameters of the class, one for all users.

    `bootstrap` draws labels from the fitted rewards (same features), refits with the same class,
    rank, bound, ridge and base, and takes standard deviations; it serves every estimator.
    `theta_init` counts as known in both, also where `fit` found it.

    Fails when the users have few pairs, the norm bound is active, the truth lies outside the class
    or the users are separated: `note` tells those that can be seen. Singular informations give
    infinite errors. What few pairs do, by the study `coverage` (N=16, d1=10, k=2, 40 worlds, 95 %):
    `share_b` .890(9), .912(6), .930(6), .943(4), .951(5) at n = 25, 50, 100, 400, 1600.

    Args:
        preferences: the pairs of the fit, in memory.
        method: `fisher` for share_b, oracle, full, global and adapted users; `bootstrap`.
        basis_errors: for users of `adapt_users`: the record of the fit that gave the basis, whose
            error is then added. Both sets of users are independent.
        n_bootstrap, seed: redraws, and the root of their randomness (stream `bootstrap labels`).
        estimator: your function, where the fit came from one.
        penalty, max_iterations, tol: for the refits, as in `fit`; a fit does not keep them.

    Returns:
        A `RewardUncertainty`.

    Raises:
        InputError: other pairs than those of the fit, a class or a size that `fisher` does not
            take, refits that would not fit into memory.

    Source: theory.md L2 and L5.
    """
    checks.choice("method", method, METHODS)
    checks.require(
        isinstance(result, FitResult), f"result must come from fit, got {type(result).__name__}"
    )
    rewards = rewards_of_pairs(result, preferences)
    parameters = parameters_of(result)
    freedom, variance = residual_variance(preferences, rewards, parameters)
    notes = notes_of_fit(result)
    if method == "bootstrap":
        checks.require(
            basis_errors is None, 'basis_errors belongs to method="fisher"; leave it out'
        )
        checks.require(
            np.isfinite(variance),
            f"{parameters} parameters for pairs of weight {preferences.weights.sum():g} leave no "
            "residual to draw noise from; lower the rank, or bring more pairs",
        )
        drawn, counts = redraws.redraw(
            result,
            preferences,
            rewards,
            estimator=_refitter(result, estimator, penalty),
            variance=variance,
            n_bootstrap=checks.integer("n_bootstrap", n_bootstrap, low=2),
            seed=seed,
            penalty=penalty,
            max_iterations=max_iterations,
            tol=tol,
        )
        parts: FisherErrors | redraws.Redraws = drawn
        notes += notes_of_redraws(result, preferences, counts, parameters)
    else:
        parts = _fisher(result, preferences, rewards, variance, basis_errors)
        notes += notes_of_fisher(result, parts, basis_errors is not None)
    return RewardUncertainty(
        fit=result,
        method=method,
        note="; ".join(notes),
        degrees_of_freedom=freedom,
        parts=parts,
    )


def _refitter(
    result: FitResult, estimator: Callable[..., Any] | None, penalty: float | None
) -> Any:
    """What the refits are made with."""
    if estimator is not None:
        checks.require(
            callable(estimator),
            f"estimator is for a function of yours, got {estimator!r}; the name of a class is in "
            "the fit",
        )
        return estimator
    if result.estimator == "adapted":
        return "oracle"
    checks.require(
        result.estimator in ESTIMATORS,
        f"the fit came from {result.estimator}, a function of yours; pass it as estimator=",
    )
    checks.require(
        result.estimator != "nuclear" or penalty is not None,
        "a fit does not keep the penalty of nuclear: give penalty=, the lambda of its message",
    )
    return result.estimator


def _fisher(
    result: FitResult,
    preferences: Preferences,
    rewards: np.ndarray,
    variance: float,
    basis_errors: RewardUncertainty | None,
) -> FisherErrors:
    chart = chart_of(result)
    known = _known_basis(result, basis_errors)
    pooled = isinstance(result.factors, PooledFactors)
    link = links.get_link(result.link)
    with numerics.float64_scope():
        information = np.asarray(link.information(jnp.asarray(rewards)))
    offsets = np.asarray([0, preferences.n_total]) if pooled else preferences.offsets
    pairs = Pairs(preferences.features, preferences.weights * information, offsets)
    if known is not None:
        chart = chart._replace(outside=known.outside)
    errors = fisher_errors(
        pairs,
        chart,
        ridge=result.ridge * (result.n_users if pooled else 1),
        variance=variance if np.isfinite(variance) else 1.0,
        known=known,
        pooled=pooled,
    )
    errors.infinite[:] |= separated_models(result, preferences) | np.isinf(variance)
    return errors


def _known_basis(result: FitResult, given: RewardUncertainty | None) -> BasisErrors | None:
    if given is None:
        return None
    checks.require(
        result.estimator == "adapted",
        f"basis_errors is for users of adapt_users; the basis of {result.estimator} is part of its "
        "own fit: leave it out",
    )
    parts = given.parts if isinstance(given, RewardUncertainty) else None
    checks.require(
        isinstance(parts, FisherErrors)
        and parts.basis_errors is not None
        and np.array_equal(parts.basis_errors.basis, result.basis),
        'basis_errors must be standard_errors(first, pairs, method="fisher") of the share_b fit '
        "whose basis these users were adapted to",
    )
    assert isinstance(parts, FisherErrors)
    errors = parts.basis_errors
    assert errors is not None
    return BasisErrors(errors.basis, errors.outside, errors.covariance)
