"""Links: probabilities, losses and their derivatives, at ordinary and at extreme margins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

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
    total = np.asarray(link.mean(MARGINS) + link.mean(-MARGINS))
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=3e-16)  # one unit in the last place


def test_the_logistic_mean_is_scipys():
    expected = scipy.special.expit(MARGINS)
    np.testing.assert_allclose(links.LOGISTIC.mean(MARGINS), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("probit", scipy.stats.norm),
        ("laplace", scipy.stats.laplace),
        ("label_flip", None),
        ("label_flip:0.3", None),
    ],
)
def test_the_new_links_have_scipys_distribution_functions(name, distribution):
    link = links.get_link(name)
    rate = 0.3 if name.endswith("0.3") else 0.1

    def cdf(z):
        if distribution is not None:
            return distribution.cdf(z)
        return rate + (1 - 2 * rate) * scipy.special.expit(z)

    z = np.linspace(-6.0, 6.0, 49)
    np.testing.assert_allclose(link.mean(z), cdf(z), rtol=1e-13)
    # the logarithm of a number near 1 has no digits left: some roundings of 1
    np.testing.assert_allclose(
        link.loss(z, np.ones_like(z)), -np.log(cdf(z)), rtol=1e-13, atol=1e-15
    )
    # another rate, or the logistic link at the same slope, is told apart
    assert np.abs(np.asarray(link.mean(z)) - scipy.special.expit(z)).max() > 0.01


def test_probit_keeps_its_digits_far_from_zero():
    z = np.array([-300.0, -40.0, -20.1, -5.0, -4.9, 0.0, 5.0])
    ones = np.ones_like(z)
    np.testing.assert_allclose(links.PROBIT.loss(z, ones)[:-1], -scipy.stats.norm.logcdf(z)[:-1])
    # phi / Phi without a difference of large numbers
    ratio = np.sqrt(2 / np.pi) / scipy.special.erfcx(-z / np.sqrt(2))
    np.testing.assert_allclose(links.PROBIT.loss_slope(z, ones), -ratio, rtol=1e-13)
    curvature = np.asarray(links.PROBIT.loss_curvature(z, ones))
    assert curvature[0] == pytest.approx(1 - 1 / 300**2, rel=1e-9)  # psi'' = 1 - 1/t^2 + O(t^-4)
    assert float(links.PROBIT.loss(-1e200, 1.0)) > 1e299  # clipped, where a square overflows
    assert float(links.PROBIT.loss(1e200, 1.0)) == 0.0


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_a_link_is_log_concave_where_it_says_so_and_only_there(link):
    z = np.linspace(-40.0, 40.0, 4001)
    least = np.asarray(link.loss_curvature(z, np.ones_like(z))).min()
    assert (least >= 0.0) == link.is_log_concave
    if not link.is_log_concave:
        assert least < -0.01


def test_label_flip_takes_its_rate_from_the_name():
    assert links.get_link("label_flip:0.1") is links.LABEL_FLIP
    assert links.get_link("label_flip:0.20") is links.get_link("label_flip:0.2")
    assert links.get_link("label_flip:0.2").name == "label_flip:0.2"
    assert float(links.get_link("label_flip:0.2").mean(-50.0)) == pytest.approx(0.2, rel=1e-12)
    for name, message in (
        ("label_flip:0.5", r"rate = 0\.5 must be below 0\.5"),
        ("label_flip:0", r"rate = 0 must be greater than 0; 0 is the logistic"),
        ("label_flip:x", r"'label_flip:x' has no number behind the colon"),
        ("label_flip=0.2", r"unknown link 'label_flip=0.2'.*rate as in label_flip:0.2"),
    ):
        with pytest.raises(checks.InputError, match=message):
            links.get_link(name)


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_the_loss_is_minus_the_log_likelihood(link):
    z, y = GRID
    moderate = np.abs(z) < 4  # the plain formula of the right side has no digits beyond
    p = np.asarray(link.mean(z))[moderate]
    expected = -(scipy.special.xlogy(y[moderate], p) + scipy.special.xlogy(1 - y[moderate], 1 - p))
    found = np.asarray(link.loss(z, y))[moderate]
    np.testing.assert_allclose(found, expected, rtol=1e-11)  # 1 - p loses 3 digits at z = 3


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_slope_and_curvature_are_the_derivatives_of_the_loss(link):
    z, y = (jnp.asarray(part) for part in GRID)
    slope = jax.vmap(jax.grad(link.loss))(z, y)
    curvature = jax.vmap(jax.grad(jax.grad(link.loss)))(z, y)
    # 1e-13 absolute: the derivative of softplus at 30 is 1 up to 1e-13 and cancels against a label
    # probit's phi at 30 is exp(-450), whose rounding is 450 roundings
    np.testing.assert_allclose(link.loss_slope(z, y), slope, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(link.loss_curvature(z, y), curvature, rtol=1e-12, atol=1e-12)
    # the slope with its sign turned, or with the label of the other item, is rejected
    assert np.abs(link.loss_slope(z, 1.0 - y) - slope).max() > 0.1


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_slope_agrees_with_finite_differences(link):
    z, y = GRID
    step = 1e-5
    difference = (link.loss(z + step, y) - link.loss(z - step, y)) / (2 * step)
    # central differences: step^2 plus rounding of a loss of size 450 divided by the step
    # or, at a jump of the curvature by 2, half the step times the jump
    np.testing.assert_allclose(
        link.loss_slope(z, y), difference, rtol=0, atol=1e-8 if link.is_smooth else 1.1e-5
    )


@pytest.mark.parametrize("link", PREFERENCE, ids=by_name)
def test_information_is_slope_squared_over_the_variance(link):
    z = jnp.asarray(MARGINS[(np.abs(MARGINS) < 4) & (MARGINS != 0)])
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
        assert curvature.max() <= link.curvature_bound + 1e-15
        assert slope.max() <= link.slope_bound + 1e-15
    # probit's tends to 1 as 1 - 1 / z^2; the grid has steps of 0.04
    assert curvature.max() == pytest.approx(link.curvature_bound, rel=1e-3)
    if np.isfinite(link.slope_bound):
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
        # what the label that z speaks against costs out there
        cost = {
            "logistic": abs(z),
            "laplace": abs(z) + np.log(2),
            "probit": 0.5 * z**2 + np.log(abs(z) * np.sqrt(2 * np.pi)),
            "label_flip": -np.log(0.1),
        }[link.name]
        other = -np.log(0.9) if link.name == "label_flip" else 0.0
        wrong = 1.0 - y if z > 0 else y
        assert float(values[0]) == pytest.approx(wrong * cost + (1 - wrong) * other, rel=1e-12)
        with np.errstate(all="ignore"):
            plain = -np.log(1.0 / (1.0 + np.exp(1e4)))
        assert np.isinf(plain)  # the formula as written on paper


@pytest.mark.parametrize("link", ALL, ids=by_name)
def test_the_loss_has_its_minimum_where_the_mean_is_the_label(link):
    z = np.linspace(-6.0, 6.0, 4801)
    for y in (0.2, 0.5, 0.85):
        best = z[np.argmin(np.asarray(link.loss(z, np.full_like(z, y))))]
        # the grid has steps of 0.0025 and the mean a slope of at most 1
        assert float(link.mean(best)) == pytest.approx(y, abs=2.5e-3)


def test_links_are_found_by_name_only():
    assert links.get_link("identity") is links.IDENTITY
    with pytest.raises(checks.InputError, match=r"unknown link 'logit'.*logistic, identity"):
        links.get_link("logit")
    with pytest.raises(checks.InputError, match="unknown link None"):
        links.get_link(None)  # type: ignore[arg-type]
