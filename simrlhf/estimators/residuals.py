"""The pairs of a fit seen from it: rewards, residual variance, separated users."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, links, numerics
from simrlhf.data.preferences import Preferences
from simrlhf.estimators.charts import FISHER_CLASSES, is_free
from simrlhf.estimators.result import FitResult, LocalFactors, PooledFactors, SharedFactors

# relative difference of losses by which other pairs are told from those of the fit
_SAME_LOSS = 1e-6


def rewards_of_pairs(result: FitResult, preferences: Preferences) -> np.ndarray:
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


def parameters_of(result: FitResult) -> int | None:
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
    return n_users * d1 * d2 if is_free(result) else None


def residual_variance(
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


def separated_models(result: FitResult, preferences: Preferences) -> np.ndarray:
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
    return np.asarray([every.all()]) if pooled else every
