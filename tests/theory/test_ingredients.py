"""Ingredients of S2 against eigenvalues, searches and integrals computed another way."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.integrate

from simrlhf import theory
from simrlhf.core import checks, links


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize(("d1", "columns", "rank"), [(6, 9, 1), (6, 9, 2), (3, 9, 2), (7, 3, 2)])
def test_noise_norm_is_the_best_that_a_matrix_of_rank_2k_reaches(rng, d1, columns, rank):
    scores = rng.normal(size=(d1, columns))
    left, values, right = np.linalg.svd(scores, full_matrices=False)
    r = min(2 * rank, d1, columns)
    best = (left[:, :r] * values[:r]) @ right[:r]
    reached = np.sum(scores * best) / np.linalg.norm(best)
    value = theory.noise_norm(scores, rank)
    assert value == pytest.approx(reached, rel=1e-12)
    assert value <= math.sqrt(r) * values[0] * (1 + 1e-12)
    for _ in range(50):
        other = rng.normal(size=(d1, r)) @ rng.normal(size=(r, columns))
        assert abs(np.sum(scores * other)) <= value * np.linalg.norm(other) * (1 + 1e-12)
    if r > rank:  # the rival counts k directions, and the best matrix of rank 2k refutes it
        assert reached > np.linalg.norm(values[:rank]) * (1 + 1e-6)


def test_design_extremes_equal_eigenvalues_of_each_users_weighted_sum(rng):
    counts = np.array([9, 14, 8])
    offsets = np.concatenate([[0], np.cumsum(counts)])
    features, weights = rng.normal(size=(31, 3, 2)), rng.uniform(0.5, 2.0, size=31)
    sums = [
        sum(weights[j] * np.outer(features[j].ravel(), features[j].ravel()) for j in range(a, b))
        for a, b in itertools.pairwise(offsets)
    ]
    values = np.linalg.eigvalsh(np.stack(sums))
    smallest, largest = theory.design_extremes(features, offsets, weights)
    assert smallest == pytest.approx(values.min(), rel=1e-9)
    assert largest == pytest.approx(values.max(), rel=1e-12)
    unweighted = theory.design_extremes(features, offsets)
    assert unweighted == theory.design_extremes(features, offsets, np.ones(31))
    assert unweighted[0] != pytest.approx(smallest, rel=1e-3)


def test_a_user_with_too_few_pairs_gives_an_exact_zero(rng):
    features = rng.normal(size=(13, 3, 2))
    smallest, largest = theory.design_extremes(features, np.array([0, 8, 13]))
    assert smallest == 0.0
    assert largest > 1.0
    switched_off = np.concatenate([np.ones(5), np.zeros(3)])
    assert theory.design_extremes(features[:8], np.array([0, 8]), switched_off)[0] == 0.0


def test_worst_margin_is_reached_and_never_passed(rng):
    start, features = rng.normal(size=(3, 2)), rng.normal(size=(40, 3, 2))
    longest = np.linalg.norm(features, axis=(1, 2)).max()
    bound = theory.worst_margin(
        norm_bound=2.0, feature_norm=longest, init_norm=float(np.linalg.norm(start))
    )
    for _ in range(200):
        delta = rng.normal(size=(3, 2))
        delta *= 2.0 / np.linalg.norm(delta)
        assert np.abs(np.sum((start + delta) * features, axis=(1, 2))).max() <= bound
    aligned = start / np.linalg.norm(start)
    assert np.sum((start + 2.0 * aligned) * aligned) * longest == pytest.approx(bound, rel=1e-12)
    assert theory.worst_margin(norm_bound=None, feature_norm=1.0) == math.inf


@pytest.mark.parametrize("link", [*links.LINKS.values()], ids=lambda link: link.name)
@pytest.mark.parametrize("margin", [0.0, 0.3, 4.0])
def test_curvature_floor_is_the_smallest_curvature_between_the_margins(link, margin):
    floor = theory.curvature_floor(link, margin=margin)
    grid = np.linspace(-margin, margin, 401)
    for label in (0.0, 0.3, 1.0):
        curvature = np.asarray(link.loss_curvature(grid, np.full(401, label)))
        assert curvature.min() >= floor - 1e-12 * abs(floor)
    # where it is negative, it is so at a point of a grid
    assert curvature.min() == pytest.approx(floor, rel=1e-12 if floor >= 0 else 1e-4)


def test_curvature_floor_without_a_norm_bound():
    assert theory.curvature_floor(links.LOGISTIC, margin=math.inf) == 0.0
    assert theory.curvature_floor(links.IDENTITY, margin=math.inf) == 1.0


# quadrature needs a continuous integrand
@pytest.mark.parametrize("name", [link.name for link in links.LINKS.values() if link.is_smooth])
def test_bregman_divergence_is_the_integral_of_the_curvature(rng, name):
    link = links.LINKS[name]
    point, reference = rng.normal(size=(2, 25)) * 2.0
    labels, weights = rng.uniform(size=25), rng.uniform(0.5, 2.0, size=25)
    step = point - reference

    def along(position: float) -> float:
        curvature = np.asarray(link.loss_curvature(reference + position * step, labels))
        return (1.0 - position) * float(weights @ (curvature * step**2))

    integral = scipy.integrate.quad(along, 0.0, 1.0, epsrel=1e-12)[0]
    value = theory.bregman_divergence(
        link, point=point, reference=reference, labels=labels, weights=weights
    )
    assert value == pytest.approx(integral, rel=1e-11)
    backwards = theory.bregman_divergence(
        link, point=reference, reference=point, labels=labels, weights=weights
    )
    if name == "logistic":  # the divergence is not symmetric: swapped arguments would be seen
        assert backwards != pytest.approx(value, rel=1e-4)


def test_bregman_ratio_of_a_quadratic_is_its_curvature():
    assert theory.bregman_ratio(0.5 * 7.0 * 0.3**2, 0.3) == pytest.approx(7.0, rel=1e-14)
    assert theory.bregman_ratio(-1e-18, 0.3) == 0.0
    assert math.isnan(theory.bregman_ratio(0.0, 0.0))


def test_bad_arrays_are_refused(rng):
    with pytest.raises(checks.InputError, match="scores"):
        theory.noise_norm(rng.normal(size=(2, 3, 1)), 1)
    with pytest.raises(checks.InputError, match="weights must not be negative"):
        theory.design_extremes(rng.normal(size=(2, 1, 1)), np.array([0, 2]), np.array([1.0, -1.0]))
    with pytest.raises(checks.InputError, match="norm_bound"):
        theory.worst_margin(norm_bound=-1.0, feature_norm=1.0)
