"""The reduced loss `f(B) = min_W F(B W)`: its gradient and Hessian product equal differences."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from simrlhf.core.links import get_link
from simrlhf.estimators import problem as kernels
from simrlhf.estimators import share_b_solver

# name: whether there is a norm bound, ridge
SETTINGS = {"free": (False, 0.0), "ridge": (False, 2.0), "bound": (True, 0.0), "both": (True, 1.0)}
CASES = ["narrow", "wide", "regression"]


class Reduced:
    """`f`, its horizontal gradient and Hessian products at orthonormal bases near `basis`."""

    def __init__(self, prefs, basis: np.ndarray, *, bounded: bool, ridge: float) -> None:
        self.problem = kernels.load_problem(prefs)
        self.link, self.d2 = get_link(prefs.link), prefs.d2
        self.total = jnp.asarray(prefs.weights.sum())
        self.n_users, self.radius, self.ridge = prefs.n_users, np.inf, ridge
        if bounded:  # between the norms that the users would have, so that it is active for some
            norms = np.sort(np.linalg.norm(self.at(basis).fits.factors, axis=1))
            self.radius = float(norms[1:3].mean())

    def at(self, basis: np.ndarray):
        """The evaluated point, with the users solved to rounding."""
        return _evaluate(
            self.problem, jnp.asarray(basis), jnp.asarray(self.radius), jnp.asarray(self.ridge),
            link=self.link, n_users=self.n_users,
        )  # fmt: skip

    def gradient(self, basis: np.ndarray) -> np.ndarray:
        return horizontal(basis, np.asarray(self.at(basis).euclidean))

    def hessian(self, point, direction: np.ndarray) -> np.ndarray:
        found = share_b_solver._hessian(
            self.problem, point, jnp.asarray(direction), link=self.link, total=self.total
        )
        return np.asarray(found.product)


@partial(jax.jit, static_argnames=("link", "n_users"))
def _evaluate(problem, basis, radius, ridge, *, link, n_users):
    total = problem.weights.sum()
    start = jnp.zeros((n_users, problem.d2 * basis.shape[1]))
    projected = kernels.project_rows(problem, basis)
    return share_b_solver._evaluate(
        problem, basis, projected, start, 1e-13 * total,
        link=link, radius=radius, ridge=ridge, total=total,
    )  # fmt: skip


def horizontal(basis: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return direction - basis @ (basis.T @ direction)


def moved(basis: np.ndarray, direction: np.ndarray, length: float) -> np.ndarray:
    """The orthonormal basis nearest to `B + length K`: second order in `length`."""
    step = length * direction
    return (basis + step) @ scipy.linalg.inv(
        scipy.linalg.sqrtm(np.eye(basis.shape[1]) + step.T @ step)
    )


@pytest.fixture(params=CASES)
def prefs(request):
    return request.getfixturevalue(request.param).prefs


def frame_of(reference, d1: int):
    """A basis and a horizontal direction of length one."""
    random = np.random.default_rng(5)
    basis = reference.random_basis(random, d1, 2)
    direction = horizontal(basis, random.normal(size=(d1, 2)))
    return basis, direction / np.linalg.norm(direction)


@pytest.fixture
def frame(prefs, reference):
    return frame_of(reference, prefs.d1)


@pytest.fixture(params=SETTINGS)
def reduced(request, prefs, frame):
    bounded, ridge = SETTINGS[request.param]
    return Reduced(prefs, frame[0], bounded=bounded, ridge=ridge)


def test_the_gradient_is_the_difference_quotient(reduced, frame):
    basis, direction = frame
    h = 1e-5
    ahead, behind = (float(reduced.at(moved(basis, direction, s)).loss) for s in (h, -h))
    slope = np.sum(reduced.gradient(basis) * direction)
    # central differences: h^2 = 1e-10 of the third derivative, rounding 1e-16 / h = 1e-11
    assert (ahead - behind) / (2 * h) == pytest.approx(slope, abs=2e-9)
    assert abs(slope) > 1e-3  # a gradient of zero would pass as well


def hessian_by_differences(reduced, basis, direction) -> np.ndarray:
    h = 1e-4
    ahead, behind = (reduced.gradient(moved(basis, direction, s)) for s in (h, -h))
    return horizontal(basis, (ahead - behind) / (2 * h))


def test_the_hessian_product_is_the_difference_of_gradients(reduced, frame):
    basis, direction = frame
    expected = hessian_by_differences(reduced, basis, direction)
    found = reduced.hessian(reduced.at(basis), direction)
    # h^2 = 1e-8 of the third derivative of the gradient, rounding 1e-13 / h
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def test_the_hessian_product_without_the_users_response_is_rejected(reduced, frame):
    basis, direction = frame
    expected = hessian_by_differences(reduced, basis, direction)
    point = reduced.at(basis)
    # an infinitely stiff curvature keeps W where it is
    stiff = point._replace(fits=point.fits._replace(cholesky=1e8 * point.fits.cholesky))
    assert np.abs(reduced.hessian(stiff, direction) - expected).max() > 1e-3


def test_the_hessian_product_is_symmetric(reduced, frame):
    basis, first = frame
    second = horizontal(basis, np.random.default_rng(6).normal(size=first.shape))
    point = reduced.at(basis)
    left = np.sum(second * reduced.hessian(point, first))
    right = np.sum(first * reduced.hessian(point, second))
    assert left == pytest.approx(right, abs=1e-13)


def test_ridge_and_active_bounds_make_the_grassmannians_curvature_count(narrow, reference):
    basis, direction = frame_of(reference, 6)
    for name, (bounded, ridge) in SETTINGS.items():
        reduced = Reduced(narrow.prefs, basis, bounded=bounded, ridge=ridge)
        point = reduced.at(basis)
        curvature = direction @ (basis.T @ np.asarray(point.euclidean))
        wrong = reduced.hessian(point, direction) + curvature
        gap = np.abs(wrong - hessian_by_differences(reduced, basis, direction)).max()
        # free users leave no gradient along B, so the term is rounding; else leaving it out shows
        assert (gap > 1e-4) == (name != "free"), name


def test_in_the_bounded_cases_some_users_lie_on_the_bound_and_some_inside(prefs, frame):
    for bounded, ridge in SETTINGS.values():
        point = Reduced(prefs, frame[0], bounded=bounded, ridge=ridge).at(frame[0])
        active = np.asarray(point.fits.multiplier) > 0
        assert active.any() == bounded
        assert not active.all()
