"""Fits under links whose curvature jumps, vanishes or turns negative: against scipy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import simrlhf as sim
from simrlhf.core import links

BOUND = 6.0
LINKS = ("probit", "laplace", "label_flip:0.2")


def sample(link: str, seed: int = 1):
    world = sim.make_world(sim.WorldConfig(n_users=5, d1=6, rank=2, nu=0.5, link=link), seed=seed)
    return world, sim.sample_preferences(world, 80, seed=seed)


def probability(link: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`Phi` and its derivative, by scipy."""
    if link == "label_flip:0.2":
        p = scipy.special.expit(z)
        return 0.2 + 0.6 * p, 0.6 * p * (1 - p)
    law = {"probit": scipy.stats.norm, "laplace": scipy.stats.laplace}[link]
    return law.cdf(z), law.pdf(z)


def objective(prefs, user: int, link: str):
    x, y = prefs.features[prefs.user(user)][..., 0], prefs.labels[prefs.user(user)]
    signs = 2 * y - 1

    def value(v):
        p, density = probability(link, signs * (x @ v))
        p = np.maximum(p, 1e-300)  # far outside of the ball
        return float(-np.log(p).sum()), -x.T @ (signs * density / p)

    return value


def best_of_scipy(value, starts: int, random) -> float:
    found = []
    for _ in range(starts):
        start = random.normal(size=6)
        answer = scipy.optimize.minimize(
            value,
            start / np.linalg.norm(start) * random.uniform(0, BOUND),
            jac=True,
            method="SLSQP",
            constraints={
                "type": "ineq",
                "fun": lambda v: BOUND**2 - v @ v,
                "jac": lambda v: -2 * v,
            },
            options={"maxiter": 300, "ftol": 1e-13},
        )
        if np.linalg.norm(answer.x) <= BOUND * (1 + 1e-8):
            found.append(answer.fun)
    return min(found)


@pytest.mark.parametrize("link", LINKS)
def test_full_fits_are_scipys_best(link):
    _, prefs = sample(link)
    result = sim.fit(prefs, "full", norm_bound=BOUND)
    assert result.status.name == "CONVERGED"
    random = np.random.default_rng(0)
    for user in range(5):
        value = objective(prefs, user, link)
        mine = result.delta[user, :, 0]
        best = best_of_scipy(value, 4, random)
        if link.startswith("label_flip"):  # several optima: ours is one, seldom a bad one
            assert value(mine)[0] <= value(np.zeros(6))[0]
        else:
            assert value(mine)[0] <= best + 1e-6
        pull = value(mine)[1] + result.multipliers[user] * mine
        assert np.linalg.norm(pull) < 1e-8 * 400  # the residual of the mean is below 1e-8


@pytest.mark.parametrize("link", LINKS)
def test_share_b_ends_at_a_stationary_point_that_beats_the_truth(link):
    for seed in (1, 2, 3):
        world, prefs = sample(link, seed)
        result = sim.fit(prefs, rank=2, norm_bound=BOUND)
        assert result.status.name == "CONVERGED"
        values = [objective(prefs, user, link) for user in range(5)]
        gradient = np.stack(
            [value(d[:, 0])[1] for value, d in zip(values, result.delta, strict=True)]
        )
        gradient += result.multipliers[:, None] * result.delta[..., 0]
        in_factors = gradient @ result.basis
        weights = result.factors.weights[..., 0]
        in_basis = gradient.T @ weights
        in_basis -= result.basis @ (result.basis.T @ in_basis)
        # the solver's residual of the mean is below 1e-8, in its own scale of B
        assert np.hypot(np.linalg.norm(in_factors), np.linalg.norm(in_basis)) < 4e-6
        fitted = sum(value(d[:, 0])[0] for value, d in zip(values, result.delta, strict=True))
        assert fitted <= sum(
            value(d[:, 0])[0] for value, d in zip(values, world.delta, strict=True)
        )


def test_newtons_step_alone_fails_where_the_guard_is_needed():
    """The rival: label_flip said to be log-concave is stepped through indefinite curvature."""
    z = np.linspace(-8, -2, 50)
    bends = np.asarray(links.LABEL_FLIP.loss_curvature(z, np.ones(50)))
    assert bends.max() < 0  # such a user has no Cholesky factor, but information
    assert np.asarray(links.LABEL_FLIP.information(z)).min() > 0
