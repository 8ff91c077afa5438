"""The general solver's Hessian product, against differences of the reduced gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf.core import numerics
from simrlhf.core.links import LOGISTIC
from simrlhf.estimators import shared_core, variable_projection
from simrlhf.estimators.kernels import Limits, Model
from simrlhf.estimators.problem import load_problem
from simrlhf.estimators.user_newton import fit_users


@pytest.mark.parametrize("bound", [np.inf, 1.2])
def test_the_hessian_product_is_the_change_of_the_reduced_gradient(wide, bound):
    """The rival keeps the users where they were, as a solver without elimination would."""
    model = Model(LOGISTIC, 4, 2)
    limits = Limits(*map(np.float64, (bound, 0.5, 1e-8)), np.int64(50))
    with numerics.float64_scope():
        problem = load_problem(wide.prefs)
        start = shared_core.both_spaces(problem, link=LOGISTIC, n_users=4, rank=2)
        slopes = variable_projection._Slopes(
            problem, start, shared_core._SHAPE, limits.ridge, model
        )
        users = jax.jit(fit_users, static_argnames="link")

        def fits_at(xi):
            projected, _ = shared_core._SHAPE.features(problem, slopes.moved(xi))
            return users(
                problem, projected, jnp.zeros((4, 4)), link=LOGISTIC, radius=limits.radius,
                ridge=limits.ridge, tolerance=jnp.asarray(1e-11),
            )  # fmt: skip

        gradient = jax.jit(slopes.in_shared)

        def reduced(xi):
            return slopes.tangent(gradient(xi, fits_at(xi).factors))

        zero = jnp.zeros(slopes.size)
        fits = fits_at(zero)
        assert bool((fits.multiplier > 0).any()) == np.isfinite(bound)
        random = np.random.default_rng(0)
        direction = slopes.tangent(jnp.asarray(random.normal(size=slopes.size)))
        direction /= jnp.linalg.norm(direction)
        found = slopes.hessian(direction, fits).product
        step = 1e-5  # central differences: rounding 1e-11 / step, and step^2 beyond it
        expected = (reduced(step * direction) - reduced(-step * direction)) / (2 * step)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        still = jax.jvp(lambda xi: slopes.in_shared(xi, fits.factors), (zero,), (direction,))[1]
        assert np.abs(slopes.tangent(still) - expected).max() > 1e-3
