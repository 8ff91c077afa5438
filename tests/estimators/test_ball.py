"""Quadratic problems over a ball: against the eigenvalue form of the secular equation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from simrlhf.estimators import ball

Q = 4


def by_eigenvalues(matrix: np.ndarray, right: np.ndarray, radius: float):
    """The solution and multiplier from scipy's root finder in the eigenbasis."""
    values, vectors = np.linalg.eigh(matrix)
    turned = vectors.T @ right

    def excess(mu: float) -> float:
        return float(np.linalg.norm(turned / (values + mu)) / radius - 1)

    mu = 0.0
    if excess(0.0) > 0:
        high = np.linalg.norm(right) / radius  # there ||v|| <= ||b|| / mu = R
        mu = scipy.optimize.brentq(excess, 0.0, high, xtol=1e-300, rtol=1e-14)
    return vectors @ (turned / (values + mu)), mu


def random_batch(condition: float, count: int = 30):
    random = np.random.default_rng(0)
    frames = np.linalg.qr(random.normal(size=(count, Q, Q)))[0]
    values = condition ** -np.linspace(0, 1, Q)
    matrix = np.einsum("nab,b,ncb->nac", frames, values, frames)
    return matrix, random.normal(size=(count, Q)) * random.uniform(0.01, 10, (count, 1))


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e10])
@pytest.mark.parametrize("radius", [1e-6, 1.0, 1e3])
def test_the_minimiser_over_the_ball_is_the_one_of_the_secular_equation(condition, radius):
    matrix, right = random_batch(condition)
    found = ball.solve_in_ball(jnp.asarray(matrix), jnp.asarray(right), jnp.asarray(radius))
    v, mu = np.asarray(found.v), np.asarray(found.mu)
    assert np.linalg.norm(v, axis=1).max() <= radius * (1 + 1e-11)
    for i in range(len(right)):
        expected, expected_mu = by_eigenvalues(matrix[i], right[i], radius)
        # the norm is met to 1e-12; v is known to the conditioning of A + mu I
        rounding = 1e-13 * (1 + expected_mu) / (1 / condition + expected_mu)
        np.testing.assert_allclose(v[i], expected, rtol=0, atol=radius * (1e-11 + rounding))
        assert mu[i] == pytest.approx(expected_mu, rel=1e-9, abs=1e-12)


def test_without_a_bound_it_is_the_linear_system():
    matrix, right = random_batch(100.0)
    found = ball.solve_in_ball(jnp.asarray(matrix), jnp.asarray(right), jnp.asarray(np.inf))
    expected = np.linalg.solve(matrix, right[..., None])[..., 0]
    np.testing.assert_allclose(found.v, expected, rtol=1e-11)
    assert not np.asarray(found.mu).any()


def test_a_multiplier_needs_the_sphere_and_an_outward_pull():
    point = jnp.asarray([[2.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    gradient = jnp.asarray([[-3.0, 0.5], [3.0, 0.5], [-3.0, 0.5], [-3.0, 0.5]])
    found = ball.multipliers(point, gradient, jnp.asarray(2.0))
    np.testing.assert_array_equal(found, [1.5, 0.0, 0.0, 0.0])
    assert not np.asarray(ball.multipliers(point, gradient, jnp.asarray(np.inf))).any()
