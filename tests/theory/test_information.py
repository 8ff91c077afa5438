"""Fisher information under isotropic features: against simulation and another quadrature."""

from __future__ import annotations

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special

from simrlhf import theory
from simrlhf.core import checks, links
from simrlhf.core.statistics import mean_and_error

NORMS = [0.0, 1e-3, 0.5, 3.0, 12.0, 50.0]
LAPLACE = dataclasses.replace(
    links.LOGISTIC,
    name="laplace",
    # Phi' = exp(-|z|) / 2 and Phi = 1 - exp(-|z|) / 2 for z > 0: a kink at 0
    information=lambda z: 0.5 * jnp.exp(-jnp.abs(z)) / (2.0 - jnp.exp(-jnp.abs(z))),
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def logistic_information(z: float) -> float:
    return float(scipy.special.expit(z) * scipy.special.expit(-z))


def laplace_information(z: float) -> float:
    return 0.5 * np.exp(-abs(z)) / (2.0 - np.exp(-abs(z)))


def along_and_across(information, norm: float, density, reach: float, across=lambda t: 1.0):
    """`E[I(norm t) t^2]` and `E[I(norm t) b(t)]` by adaptive quadrature, split where I varies."""
    cuts = np.array([0.0, 1.0, 4.0, 16.0, 40.0]) / max(norm, 1.0)
    cuts = np.append(cuts[cuts < reach], reach)

    def integral(function) -> float:
        pieces = [
            scipy.integrate.quad(function, a, b, epsabs=0, epsrel=1e-12, limit=200)[0]
            for a, b in itertools.pairwise(cuts)
        ]
        return 2.0 * sum(pieces)

    total = integral(density)
    first = integral(lambda t: density(t) * information(norm * t) * t * t)
    second = integral(lambda t: density(t) * information(norm * t) * across(t))
    return first / total, second / total


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("link", "information"),
    [(links.LOGISTIC, logistic_information), (LAPLACE, laplace_information)],
)
def test_gaussian_information_equals_scipys_quadrature(norm, link, information):
    theta = np.zeros((2, 2))
    theta[1, 0] = norm
    found = theory.isotropic_fisher(theta, link)[0]
    # beyond 9 standard deviations the normal density is below 1e-18 of its top
    along, across = along_and_across(information, norm, lambda t: np.exp(-0.5 * t * t), 9.0)
    expected = np.diag([across, across, along, across])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-16)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("p", [3, 4, 7, 100])
def test_sphere_information_equals_scipys_quadrature(norm, p):
    theta = np.zeros((p, 1))
    theta[1, 0] = norm
    found = theory.isotropic_fisher(theta, links.LOGISTIC, "sphere")[0]
    along, across = along_and_across(
        logistic_information,
        norm,
        lambda t: max(1.0 - t * t / p, 0.0) ** ((p - 3) / 2),
        float(min(np.sqrt(p), 9.5)),  # for p = 100 the density is below 1e-20 beyond
        lambda t: (p - t * t) / (p - 1),
    )
    expected = np.diag([across, along, *[across] * (p - 2)])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-16)


def test_the_sphere_of_a_circle_and_of_a_point():
    found = theory.isotropic_fisher(np.array([[2.0, 0.0]]), links.LOGISTIC, "sphere")[0]

    def average(square) -> float:
        def integrand(angle: float) -> float:
            t = np.sqrt(2.0) * np.cos(angle)
            return logistic_information(2.0 * t) * 2.0 * square(angle) ** 2

        return scipy.integrate.quad(integrand, 0.0, 2.0 * np.pi, epsrel=1e-12)[0] / (2.0 * np.pi)

    np.testing.assert_allclose(found, np.diag([average(np.cos), average(np.sin)]), rtol=1e-10)
    point = theory.isotropic_fisher(np.array([[-1.5]]), links.LOGISTIC, "sphere")
    np.testing.assert_allclose(point, [[[logistic_information(1.5)]]], rtol=1e-14)


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 4)])
def test_regression_has_the_identity_as_information(rng, law, shape):
    found = theory.isotropic_fisher(rng.normal(size=(3, *shape)), links.IDENTITY, law)
    p = shape[0] * shape[1]
    np.testing.assert_allclose(found, np.broadcast_to(np.eye(p), (3, p, p)), atol=1e-13)


@pytest.mark.parametrize("law", ["gaussian", "sphere"])
def test_information_lies_within_four_standard_errors_of_simulation(rng, law):
    theta = rng.normal(size=(2, 3)) * np.array([[2.0, 0.3, 1.0]])
    x = rng.normal(size=(200_000, 2, 3))
    if law == "sphere":
        x *= np.sqrt(6.0) / np.linalg.norm(x, axis=(1, 2), keepdims=True)
    z = np.einsum("nab,ab->n", x, theta)
    weight = scipy.special.expit(z) * scipy.special.expit(-z)
    found = theory.isotropic_fisher(theta, links.LOGISTIC, law)[0]

    def worst(order: str) -> float:
        rows = x.reshape(x.shape[0], -1) if order == "C" else np.swapaxes(x, 1, 2).reshape(-1, 6)
        gaps = []
        for a in range(6):
            for b in range(a + 1):
                estimate = mean_and_error(weight * rows[:, a] * rows[:, b])
                gaps.append(abs(found[a, b] - estimate.mean) / estimate.standard_error)
        return max(gaps)

    assert worst("C") < 4.0
    assert worst("F") > 8.0  # vec by columns is another matrix


def test_users_are_independent_of_each_other(rng):
    theta = rng.normal(size=(4, 3, 2)) * np.array([0.0, 0.1, 2.0, 30.0])[:, None, None]
    together = theory.isotropic_fisher(theta, links.LOGISTIC)
    alone = np.concatenate([theory.isotropic_fisher(matrix, links.LOGISTIC) for matrix in theta])
    # the panels differ with the largest norm: both are right to some 1e-14
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-13)


def test_bad_input_is_refused(rng):
    with pytest.raises(checks.InputError, match="did you mean 'sphere'"):
        theory.isotropic_fisher(rng.normal(size=(2, 1)), links.LOGISTIC, "spere")
    with pytest.raises(checks.InputError, match="theta has shape"):
        theory.isotropic_fisher(rng.normal(size=3), links.LOGISTIC)
    with pytest.raises(checks.InputError, match="not finite"):
        theory.isotropic_fisher(np.array([[np.inf]]), links.LOGISTIC)
