"""Two small instances that most tests share (one compilation each), and NumPy's own arithmetic.

The reference functions below are written from the definitions, pair by pair and user by user, and
share no code with the package.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from simrlhf.core import subspaces
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world


def _case(n_pairs: int, **settings):
    world = make_world(WorldConfig(**settings), seed=1)
    return SimpleNamespace(
        world=world,
        rank=world.config.rank,
        prefs=sample_preferences(world, n_pairs, seed=2),
        soft=sample_preferences(world, n_pairs, seed=2, soft=True),
    )


@pytest.fixture(scope="session")
def narrow():
    """N = 5, d1 = 6, d2 = 1, k = 2, 40 pairs each."""
    return _case(40, n_users=5, d1=6, rank=2, nu=0.5)


@pytest.fixture(scope="session")
def wide():
    """N = 4, d1 = 5, d2 = 3, k = 2, 100 pairs each; N d2 > d1."""
    return _case(100, n_users=4, d1=5, d2=3, rank=2, nu=0.5)


@pytest.fixture(scope="session")
def regression():
    """N = 5, d1 = 6, d2 = 1, k = 2, 40 pairs each, identity link."""
    return _case(40, n_users=5, d1=6, rank=2, nu=0.5, link="identity", noise=0.5)


def _rewards(prefs, delta, theta_init=0.0):
    return np.array(
        [
            np.sum((theta_init + delta[user]) * x)
            for user, x in zip(prefs.users, prefs.features, strict=True)
        ]
    )


def _loss(prefs, delta, theta_init=0.0):
    """Weighted mean loss per pair."""
    z, y = _rewards(prefs, delta, theta_init), prefs.labels
    if prefs.link == "identity":
        losses = (z - y) ** 2 / 2
    else:
        losses = y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
    return float(np.sum(prefs.weights * losses) / np.sum(prefs.weights))


def _penalised(prefs, result):
    """The objective of a fit, per pair."""
    penalty = result.ridge / 2 * np.sum(result.delta**2) / prefs.weights.sum()
    return _loss(prefs, result.delta, result.theta_init) + penalty


def _score(prefs, delta, theta_init=0.0):
    """`(N, d1, d2)` gradient of the summed loss in every user's matrix."""
    z, y = _rewards(prefs, delta, theta_init), prefs.labels
    slope = z - y if prefs.link == "identity" else expit(z) - y
    score = np.zeros_like(delta)
    for user, weight, x in zip(prefs.users, prefs.weights * slope, prefs.features, strict=True):
        score[user] += weight * x
    return score


def _residual(prefs, result):
    """KKT residual of the mean loss in the estimator's own parameters."""
    theta_init = result.theta_init
    pull = (result.ridge + result.multipliers)[:, None, None] * result.delta
    gradient = _score(prefs, result.delta, theta_init) + pull
    factors, name = result.factors, type(result.factors).__name__
    if name == "FreeFactors":
        parts = [gradient]
    elif name == "LocalFactors":
        parts = [
            part
            for i in range(result.n_users)
            for part in _in_factors(gradient[i], factors.bases[i], factors.weights[i])
        ]
    elif name == "PooledFactors":
        parts = _in_factors(gradient.sum(axis=0), factors.basis, factors.weights)
    else:
        stacked = np.hstack(list(factors.weights))
        parts = _in_factors(np.hstack(list(gradient)), factors.basis, stacked)
        if result.estimator == "oracle":
            parts = parts[1:]  # the basis is not a parameter
    total = prefs.weights.sum()
    return float(np.sqrt(sum(np.sum(part**2) for part in parts)) / total)


def _in_factors(gradient, basis, weights):
    """Gradient in `B` (without its part along `B`, where orthonormal bases cannot move) and `W`."""
    in_basis = gradient @ weights.T
    return [in_basis - basis @ (basis.T @ in_basis), basis.T @ gradient]


def _random_basis(random, d, k):
    return np.linalg.qr(random.normal(size=(d, k)))[0]


@pytest.fixture(scope="session")
def reference():
    """NumPy's loss, score and KKT residual, and small helpers."""
    return SimpleNamespace(
        rewards=_rewards,
        loss=_loss,
        penalised=_penalised,
        score=_score,
        residual=_residual,
        random_basis=_random_basis,
        distance=subspaces.subspace_distance,
    )
