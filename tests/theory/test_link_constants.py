"""Constants of links against dense grids of derivatives that JAX takes of `-log(mean)`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks, links

NAMES = ("logistic", "probit", "laplace", "label_flip", "label_flip:0.02", "label_flip:0.4")
MARGINS = (0.05, 0.8, 3.0, 6.0)


def reference(name: str, margin: float) -> dict[str, float]:
    """Every constant by its definition on 20,002 points that leave 0 out (where laplace jumps)."""
    mean = links.get_link(name).mean
    z = jnp.asarray(np.linspace(-margin, margin, 20_002))
    psi = lambda x: -jnp.log(mean(x))  # noqa: E731
    p, q, slope = mean(z), mean(-z), jax.vmap(jax.grad(mean))(z)
    curvature = jax.vmap(jax.grad(jax.grad(psi)))(z)
    information = slope**2 / (p * q)
    return {
        "kappa": float(1 / slope.min()),
        "xi": float(jnp.abs(slope / p).max()),
        "eta": float(curvature.min()),
        "score_width": float((slope / (p * q)).max()),
        "smallest_information": float(information.min()),
        "largest_information": float(information.max()),
        "lipschitz_mean": float(slope.max()),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("margin", MARGINS)
def test_constants_are_the_extremes_over_a_dense_grid(name, margin):
    found = theory.link_constants(links.get_link(name), margin=margin)
    # interior extremes lie between two points of the grid; laplace's at 0 is a corner
    for constant, value in reference(name, margin).items():
        tolerance = 1e-3 if name == "laplace" else 1e-6
        assert getattr(found, constant) == pytest.approx(value, rel=tolerance, abs=1e-11), constant


def test_the_floor_of_a_link_moves_extremes_inside_the_interval():
    link = links.get_link("label_flip:0.1")
    found = theory.link_constants(link, margin=6.0)
    ends = jnp.asarray([-6.0, 6.0])
    at_ends = np.asarray(link.loss_curvature(ends, jnp.ones(2)))
    # the rival looks at the ends only
    assert found.eta < at_ends.min() - 0.1
    assert found.xi > 2.0 * np.abs(np.asarray(link.loss_slope(ends, jnp.ones(2)))).max()
    assert found.xi == pytest.approx(link.slope_bound, rel=1e-14)


def test_kappa_and_eta_of_the_logistic_link_are_reciprocal():
    for margin in (0.0, 0.5, 2.0, 10.0):
        found = theory.link_constants(links.LOGISTIC, margin=margin)
        assert found.kappa == pytest.approx(2.0 + math.exp(margin) + math.exp(-margin), rel=1e-13)
        assert found.kappa * found.eta == pytest.approx(1.0, rel=1e-13)
        # what Park et al. print is that they are equal
        assert found.kappa > 15.9 * found.eta


def test_the_scores_of_laplace_range_over_twice_their_largest_size():
    found = theory.link_constants(links.LAPLACE, margin=1.0)
    assert (found.xi, found.score_width, found.eta) == (1.0, 2.0, 0.0)
    assert found.score_width == 2.0 * links.LAPLACE.slope_bound
    # at margin 0 the curvature jumps, and the smaller side counts
    assert theory.link_constants(links.LAPLACE, margin=0.0).eta == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_margin_gives_the_limits(name):
    link = links.get_link(name)
    found = theory.link_constants(link, margin=math.inf)
    far = theory.link_constants(link, margin=30.0)
    assert found.kappa == math.inf
    assert found.smallest_information == 0.0
    assert found.xi == (math.inf if name == "probit" else pytest.approx(link.slope_bound))
    assert found.eta == pytest.approx(far.eta, abs=1e-12)
    assert found.largest_information == far.largest_information


def test_other_links_and_margins_are_refused():
    with pytest.raises(checks.InputError, match="no probabilities"):
        theory.link_constants(links.IDENTITY, margin=1.0)
    with pytest.raises(checks.InputError, match="margin"):
        theory.link_constants(links.LOGISTIC, margin=-1.0)
    with pytest.raises(checks.InputError, match="margin"):
        theory.link_constants(links.LOGISTIC, margin=math.nan)
