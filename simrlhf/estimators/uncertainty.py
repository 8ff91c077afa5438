"""`standard_errors`: how far the fitted rewards may be from the truth, by information or redraws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.stats

from simrlhf.core import checks, links, numerics, subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import redraws
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.fisher import BasisErrors, Chart, FisherErrors, Pairs, fisher_errors
from simrlhf.estimators.result import (
    FitResult,
    FitStatus,
    FreeFactors,
    LocalFactors,
    PooledFactors,
    SharedFactors,
)

METHODS = ("fisher", "bootstrap")
# classes whose information is worked out here
FISHER_CLASSES = ("share_b", "oracle", "adapted", "full", "global")
# entries of `delta`, and the work for them
_LARGEST_TABLE = 2**24
_LARGEST_SQUARE = 4096
_LARGEST_WORK = 1e13
# relative difference of losses by which other pairs are told from those of the fit
_SAME_LOSS = 1e-6


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
        """`(m,)` standard errors of `fit.rewards(users, features)`; infinite where nothing is known.

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
        as far, and percentiles of the refits would be centred there; and a few hundred redraws
        settle a standard deviation, not a quantile.

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
        errors = [self.of_rewards(user, units) for user in range(n_users)]
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
    `adapted` have the first term only. A ridge gives the sandwich: the spread around a mean that the
    ridge has shrunk, without the shrinkage. Under the identity link the residual variance is
    `sum w r^2 / (sum w - p)`, p the parameters of the class, one for all users.

    `bootstrap` draws labels from the fitted rewards (same features), refits with the same class,
    rank, bound, ridge and base, and takes standard deviations; it serves every estimator.

    Fails when the users have few pairs (the limit is one of many), the norm bound is active, the
    truth lies outside the class or the users are separated: `note` tells those that can be seen.
    Singular informations give infinite errors.

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
    rewards = _rewards_of_pairs(result, preferences)
    parameters = _parameters(result)
    freedom, variance = _residual_variance(preferences, rewards, parameters)
    notes = _notes_of_fit(result)
    if method == "bootstrap":
        checks.require(
            basis_errors is None, 'basis_errors belongs to method="fisher"; leave it out'
        )
        drawn, counts = redraws.redraw(
            result,
            preferences,
            rewards,
            estimator=_refitter(result, estimator),
            variance=variance if np.isfinite(variance) else 0.0,
            n_bootstrap=checks.integer("n_bootstrap", n_bootstrap, low=2),
            seed=seed,
            penalty=penalty,
            max_iterations=max_iterations,
            tol=tol,
        )
        parts: FisherErrors | redraws.Redraws = drawn
        notes += _notes_of_redraws(result, preferences, counts, parameters)
    else:
        parts = _fisher(result, preferences, rewards, variance, basis_errors)
        notes += _notes_of_fisher(result, parts, basis_errors)
    return RewardUncertainty(
        fit=result,
        method=method,
        note="; ".join(notes),
        degrees_of_freedom=freedom,
        parts=parts,
    )


def _rewards_of_pairs(result: FitResult, preferences: Preferences) -> np.ndarray:
    """`(P,)` fitted rewards; refuses other pairs than those of the fit."""
    checks.require(
        isinstance(preferences, Preferences),
        f"standard errors need the pairs in memory, got {type(preferences).__name__}; give the "
        "Preferences that the fit was made on",
    )
    shape = (preferences.n_users, preferences.d1, preferences.d2)
    checks.require(
        shape == result.delta.shape and preferences.link == result.link,
        f"the fit has {result.delta.shape} (users, d1, d2) and the {result.link} link, the data "
        f"{shape} and {preferences.link}; give the pairs that the fit was made on",
    )
    theta = result.theta_init + result.delta
    rewards = np.concatenate(
        [
            preferences.features[preferences.user(user)].reshape(-1, theta[user].size)
            @ theta[user].reshape(-1)
            for user in range(result.n_users)
        ]
    )
    with numerics.float64_scope():
        losses = links.get_link(result.link).loss(
            jnp.asarray(rewards), jnp.asarray(preferences.labels)
        )
    loss, told = float(np.average(losses, weights=preferences.weights)), result.neg_log_likelihood
    checks.require(
        abs(loss - told) <= _SAME_LOSS * max(abs(told), 1.0),
        f"these pairs have a mean loss of {loss:.9g} under the fit, those that it was made on "
        f"{told:.9g}; give the pairs that the fit was made on",
    )
    return rewards


def _parameters(result: FitResult) -> int | None:
    """Free parameters of the class, `None` where the class is not known here."""
    n_users, d1, d2 = result.delta.shape
    factors = result.factors
    if isinstance(factors, PooledFactors):
        k = factors.basis.shape[1]
        return k * (d1 + d2 - k)
    if isinstance(factors, LocalFactors):
        k = factors.bases.shape[2]
        return n_users * k * (d1 + d2 - k)
    if isinstance(factors, SharedFactors) and result.estimator in FISHER_CLASSES:
        k = factors.basis.shape[1]
        return k * n_users * d2 + (k * (d1 - k) if result.estimator == "share_b" else 0)
    return n_users * d1 * d2 if _is_free(result) else None


def _is_free(result: FitResult) -> bool:
    """`full`, and `local` of a rank that is no constraint."""
    return isinstance(result.factors, FreeFactors) and result.estimator in ("full", "local")


def _residual_variance(
    preferences: Preferences, rewards: np.ndarray, parameters: int | None
) -> tuple[float, float]:
    """Degrees of freedom and variance of a label's noise; `inf, 1` for preferences."""
    if links.get_link(preferences.link).is_preference:
        return np.inf, 1.0
    freedom = float(preferences.weights.sum()) - (parameters or 0)
    if freedom <= 0:
        return np.inf, np.inf
    squares = float(np.sum(preferences.weights * (preferences.labels - rewards) ** 2))
    return freedom, squares / freedom


def _refitter(result: FitResult, estimator: Callable[..., Any] | None) -> Any:
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
    return result.estimator


def _fisher(
    result: FitResult,
    preferences: Preferences,
    rewards: np.ndarray,
    variance: float,
    basis_errors: RewardUncertainty | None,
) -> FisherErrors:
    chart = _chart(result)
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
    errors.infinite[:] |= _separated(result, preferences) | np.isinf(variance)
    return errors


def _chart(result: FitResult) -> Chart:
    factors = result.factors
    if _is_free(result):
        return Chart(None, None, None)
    checks.require(
        result.estimator in FISHER_CLASSES,
        f"the information of {result.estimator} is not worked out (it is for "
        f'{", ".join(FISHER_CLASSES)}); use method="bootstrap"',
    )
    if isinstance(factors, PooledFactors):
        if factors.basis.shape[1] >= min(result.delta.shape[1:]):
            return Chart(None, None, None)  # one matrix without a constraint
        weights = factors.weights[None]
    else:
        assert isinstance(factors, SharedFactors)
        if result.estimator != "share_b":
            return Chart(factors.basis, None, factors.weights)
        weights = factors.weights
    return Chart(factors.basis, subspaces.orthonormal_complement(factors.basis), weights)


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


def _separated(result: FitResult, preferences: Preferences) -> np.ndarray:
    """Models whose labels are all fitted without error, with neither bound nor ridge."""
    pooled = isinstance(result.factors, PooledFactors)
    link = links.get_link(result.link)
    if not link.is_preference or result.norm_bound is not None or result.ridge > 0:
        return np.zeros(1 if pooled else result.n_users, bool)
    right = np.empty(preferences.n_total, bool)
    for user, delta in enumerate(result.delta):
        mine = preferences.user(user)
        scores = preferences.features[mine].reshape(-1, delta.size) @ delta.reshape(-1)
        labels = preferences.labels[mine]
        right[mine] = np.where(labels == 1, scores > 0, (labels == 0) & (scores < 0))
    right |= preferences.weights == 0
    every = np.logical_and.reduceat(right, preferences.offsets[:-1])
    return every.all(keepdims=True) if pooled else every


def _notes_of_fit(result: FitResult) -> list[str]:
    notes, active = [], int((result.multipliers > 0).sum())
    if result.status in (FitStatus.MAX_ITERATIONS, FitStatus.STALLED):
        notes.append(f"the fit ended as {result.status.name}, not at an optimum")
    if active:
        notes.append(
            f"the norm bound is active for {active} of {result.n_users} users: their errors are "
            "not those of a maximum inside the ball, and intervals need not cover"
        )
    if result.ridge > 0:
        notes.append("with a ridge: spread around a shrunken mean, without the shrinkage")
    return notes


def _notes_of_fisher(
    result: FitResult, parts: FisherErrors, basis_errors: RewardUncertainty | None
) -> list[str]:
    notes, lost = [], int(parts.infinite.sum())
    if lost:
        whom = "all users" if parts.pooled else f"{lost} of {result.n_users} users"
        notes.append(
            f"infinite for {whom}: separated labels, or too few pairs for their parameters"
        )
    basis = parts.basis_errors
    if basis is not None and basis.covariance is None:
        notes.append("infinite for all users: the pairs do not identify the basis; lower the rank")
    if parts.pooled:
        notes.append("one matrix for all: holds where the users agree, not for what they differ in")
    if result.estimator == "adapted" and basis_errors is None:
        notes.append("the basis counts as known; pass basis_errors to add its error")
    return notes


def _notes_of_redraws(
    result: FitResult, preferences: Preferences, counts: Any, parameters: int | None
) -> list[str]:
    notes, total = [], sum(counts.values())
    good = counts[FitStatus.CONVERGED.name] + counts[FitStatus.UNCERTIFIED.name]
    if good < total:
        others = {FitStatus.CONVERGED.name, FitStatus.UNCERTIFIED.name}
        ends = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if name not in others)
        notes.append(f"{total - good} of {total} refits did not converge ({ends})")
    if result.status is FitStatus.SEPARATED:
        notes.append("the fit is SEPARATED: labels were redrawn from arbitrary rewards")
    weights, preference = preferences.weights, links.get_link(result.link).is_preference
    if preference and not (weights == np.rint(weights)).all():
        notes.append("weights are not whole numbers: one label was drawn for each pair")
    if not preference and parameters is None:
        notes.append("the noise is the mean square residual: the parameters are not counted")
    if result.estimator == "adapted":
        notes.append("the basis counts as known")
    return notes
