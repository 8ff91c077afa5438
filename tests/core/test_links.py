"""Links: probabilities, losses and their derivatives, at ordinary and at extreme margins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from simrlhf.core import checks, links

ALL = list(links.LINKS.values())
PREFERENCE = [link for link in ALL if link.is_preference]
MARGINS = np.array([-30.0, -3.0, -0.5, 0.0, 1e-6, 0.7, 5.0, 30.0])
LABELS = np.array([0.0, 0.3, 1.0])
GRID = [grid.ravel() for grid in np.meshgrid(MARGINS, LABELS)]


def by_name(link: links.Link) -> str:
    return link.name


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_the_two_answers_have_probabilities_that_add_to_one(link):
    total = link.mean(MARGINS) + link.mean(-MARGINS)
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=3e-16)  # one unit in the last place


def test_the_logistic_mean_is_scipys():
    expected = scipy.special.expit(MARGINS)
    np.testing.assert_allclose(links.LOGISTIC.mean(MARGINS), expected, rtol=1e-15)


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_the_loss_is_minus_the_log_likelihood(link):
    z, y = GRID
    moderate = np.abs(z) < 10  # the plain formula of the right side has no digits beyond
    p = np.asarray(link.mean(z))[moderate]
    expected = -(scipy.special.xlogy(y[moderate], p) + scipy.special.xlogy(1 - y[moderate], 1 - p))
    found = np.asarray(link.loss(z, y))[moderate]
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # 1 - p loses 3 digits at z = 5


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_slope_and_curvature_are_the_derivatives_of_the_loss(link):
    z, y = (jnp.asarray(part) for part in GRID)
    slope = jax.vmap(jax.grad(link.loss))(z, y)
    curvature = jax.vmap(jax.grad(jax.grad(link.loss)))(z, y)
    # 1e-13 absolute: the derivative of softplus at 30 is 1 up to 1e-13 and cancels against a label
    np.testing.assert_allclose(link.loss_slope(z, y), slope, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(link.loss_curvature(z, y), curvature, rtol=1e-12, atol=1e-13)
    # the slope with its sign turned, or with the label of the other item, is rejected
    assert np.abs(link.loss_slope(z, 1.0 - y) - slope).max() > 0.1


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_slope_agrees_with_finite_differences(link):
    z, y = GRID
    step = 1e-5
    difference = (link.loss(z + step, y) - link.loss(z - step, y)) / (2 * step)
    # central differences: step^2 plus rounding of a loss of size 450 divided by the step
    np.testing.assert_allclose(link.loss_slope(z, y), difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_information_is_slope_squared_over_the_variance(link):
    z = jnp.asarray(MARGINS[np.abs(MARGINS) < 10])
    density = jax.vmap(jax.grad(link.mean))(z)
    p = link.mean(z)
    expected = density**2 / (p * (1.0 - p))
    np.testing.assert_allclose(link.information(z), expected, rtol=1e-12)
    # the score has this variance and mean zero: both from the slope at the two labels
    mean = p * link.loss_slope(z, jnp.ones_like(z)) + (1 - p) * link.loss_slope(z, 0.0 * z)
    np.testing.assert_allclose(mean, 0.0, atol=1e-15)


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_curvature_and_slope_respect_their_bounds_and_reach_them(link):
    z = np.linspace(-40.0, 40.0, 2001)
    for y in LABELS:
        curvature = np.asarray(link.loss_curvature(z, np.full_like(z, y)))
        slope = np.abs(link.loss_slope(z, np.full_like(z, y)))
        assert curvature.max() == pytest.approx(link.curvature_bound, abs=1e-15)
        assert slope.max() <= link.slope_bound
    if link.is_preference:
        assert np.abs(link.loss_slope(z, np.zeros_like(z))).max() > 0.999 * link.slope_bound


@pytest.mark.parametrize("link", ALL, ids=by_name)
@pytest.mark.parametrize("z", [-1e4, 1e4])
@pytest.mark.parametrize("y", LABELS)
def test_nothing_overflows_at_extreme_margins(link, z, y):
    values = [
        link.loss(z, y),
        link.loss_slope(z, y),
        link.loss_curvature(jnp.asarray(z), y),
        link.mean(z),
        link.information(jnp.asarray(z)),
        jax.grad(link.loss)(z, y),
    ]
    assert all(np.isfinite(value) for value in values)
    if link.is_preference:
        expected = abs(z) * (1.0 - y if z > 0 else y)  # the loss is linear out there
        assert float(values[0]) == pytest.approx(expected, rel=1e-15)
        with np.errstate(all="ignore"):
            plain = -np.log(1.0 / (1.0 + np.exp(1e4)))
        assert np.isinf(plain)  # the formula as written on paper


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_the_loss_has_its_minimum_where_the_mean_is_the_label(link):
    z = np.linspace(-6.0, 6.0, 4801)
    for y in (0.2, 0.5, 0.9):
        best = z[np.argmin(np.asarray(link.loss(z, np.full_like(z, y))))]
        # the grid has steps of 0.0025 and the mean a slope of at most 1
        assert float(link.mean(best)) == pytest.approx(y, abs=2.5e-3)


def test_links_are_found_by_name_only():
    assert links.get_link("identity") is links.IDENTITY
    with pytest.raises(checks.InputError, match=r"unknown link 'logit'.*logistic, identity"):
        links.get_link("logit")
    with pytest.raises(checks.InputError, match="unknown link None"):
        links.get_link(None)  # type: ignore[arg-type]
