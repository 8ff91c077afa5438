"""Truncated conjugate gradients: against dense linear algebra."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf.estimators import trust_region

D = 7


def solve(matrix, gradient, *, radius=np.inf, tolerance=1e-12, inverse=None, products=50):
    matrix, gradient = jnp.asarray(matrix), jnp.asarray(gradient)
    inverse = jnp.eye(D) if inverse is None else jnp.asarray(inverse)
    return trust_region.steihaug(
        gradient,
        lambda p: trust_region.HessianProduct(matrix @ p, 3.0 * p),
        lambda r: inverse @ r,
        no_move=jnp.zeros(D),
        radius=jnp.asarray(radius),
        tolerance=jnp.asarray(tolerance),
        max_products=products,
    )


@pytest.fixture
def problem():
    random = np.random.default_rng(3)
    root = random.normal(size=(D, D))
    return root @ root.T + 0.1 * np.eye(D), random.normal(size=D)


def test_inside_the_region_it_is_the_newton_step(problem):
    matrix, gradient = problem
    found = solve(matrix, gradient)
    expected = -np.linalg.solve(matrix, gradient)
    np.testing.assert_allclose(found.step, expected, rtol=1e-8)
    change = gradient @ expected + expected @ matrix @ expected / 2
    assert float(found.model_change) == pytest.approx(change, rel=1e-10)
    # side results are accumulated along the way and belong to the whole step
    np.testing.assert_allclose(found.linear, 3.0 * np.asarray(found.step), rtol=1e-12)


def test_with_the_exact_inverse_as_preconditioner_one_product_is_enough(problem):
    matrix, gradient = problem
    found = solve(matrix, gradient, inverse=np.linalg.inv(matrix), tolerance=1e-9)
    assert int(found.products) == 1
    assert int(solve(matrix, gradient, tolerance=1e-9).products) > 1


def test_a_far_minimum_stops_at_the_boundary_below_the_cauchy_point(problem):
    matrix, gradient = problem
    radius = 0.3 * np.linalg.norm(np.linalg.solve(matrix, gradient))
    found = solve(matrix, gradient, radius=radius)
    assert float(jnp.linalg.norm(found.step)) == pytest.approx(radius, rel=1e-12)
    size = np.linalg.norm(gradient)
    length = min(radius / size, size**2 / (gradient @ matrix @ gradient))
    cauchy = -length * size**2 + length**2 * (gradient @ matrix @ gradient) / 2
    assert float(found.model_change) <= cauchy * (1 - 1e-12)


def test_negative_curvature_is_followed_to_the_boundary(problem):
    matrix, gradient = problem
    found = solve(matrix - 100 * np.eye(D), gradient, radius=2.0)
    assert float(jnp.linalg.norm(found.step)) == pytest.approx(2.0, rel=1e-12)
    assert float(found.model_change) < 0


def test_it_stops_when_the_products_are_spent_or_nothing_is_to_do(problem):
    matrix, gradient = problem
    assert int(solve(matrix, gradient, products=2).products) == 2
    idle = solve(matrix, 0 * gradient)
    assert int(idle.products) == 0
    assert not np.asarray(idle.step).any()
