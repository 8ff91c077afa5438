"""S3: the norm of the scores against redrawn labels, and each step of its two proofs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats

from simrlhf import theory
from simrlhf.core import checks, links

N, D1, D2, COUNTS = 3, 4, 2, (20, 35, 25)
OFFSETS = np.concatenate([[0], np.cumsum(COUNTS)])
SIZES = {"d1": D1, "n_users": N, "d2": D2}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def blocks(features: np.ndarray, factors: np.ndarray) -> Iterator[np.ndarray]:
    """The score of every pair as a matrix `(d1, N d2)`."""
    for user, (start, stop) in enumerate(itertools.pairwise(OFFSETS)):
        for pair in range(start, stop):
            block = np.zeros((D1, N * D2))
            block[:, user * D2 : (user + 1) * D2] = factors[pair] * features[pair]
            yield block


def laplace_scores(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p, density = scipy.stats.laplace.cdf(z), scipy.stats.laplace.pdf(z)
    return density / (p * (1 - p)) * (p - labels)


def test_variance_and_largest_score_are_those_of_the_terms(rng):
    features, z = rng.normal(size=(80, D1, D2)), rng.normal(size=80)
    weights = rng.uniform(0.5, 2.0, size=80)
    p = scipy.stats.laplace.cdf(z)
    likely = [(p, laplace_scores(z, np.ones(80))), (1 - p, laplace_scores(z, np.zeros(80)))]
    rows, columns, largest = np.zeros((D1, D1)), np.zeros((N * D2, N * D2)), 0.0
    for chance, factors in likely:
        terms = list(blocks(features, weights * factors))
        rows += sum(c * x @ x.T for c, x in zip(chance, terms, strict=True))
        columns += sum(c * x.T @ x for c, x in zip(chance, terms, strict=True))
        largest = max(largest, *(np.linalg.norm(x, 2) for x in terms))
    variance = max(np.linalg.norm(rows, 2), np.linalg.norm(columns, 2))
    information = scipy.stats.laplace.pdf(z) ** 2 / (p * (1 - p))
    found = theory.score_variance(features, OFFSETS, information, weights)
    assert found == pytest.approx(variance, rel=1e-12)
    rho = theory.largest_score(features, links.LAPLACE, margins=z, weights=weights)
    assert rho == pytest.approx(largest, rel=1e-12)
    # the rival weighs the variance once, as the likelihood does
    once = theory.score_variance(features, OFFSETS, information * weights)
    assert once != pytest.approx(variance, rel=0.05)


def test_rows_add_up_over_all_users_and_columns_only_within_one():
    row, column = np.zeros((4, 1, 4)), np.zeros((4, 4, 1))
    row[np.arange(4), 0, np.arange(4)] = 1.0  # sum x x' = 4, sum x'x = I
    column[np.arange(4), np.arange(4), 0] = 1.0  # sum x x' = I, sum x'x = pairs of the user
    for features, offsets, variance in (
        (row, [0, 2, 4], 4),
        (column, [0, 4], 4),
        (column, [0, 1, 4], 3),
    ):
        found = theory.score_variance(features, np.array(offsets), np.ones(4))
        assert found == pytest.approx(variance, rel=1e-14)


def test_the_bernstein_bound_is_where_the_tail_equals_delta():
    bound = theory.bernstein_noise_bound(variance=7.0, largest_score=1.3, delta=0.05, **SIZES)
    t = bound.value
    dimension = D1 + N * D2
    tail = dimension * math.exp(-(t**2) / 2 / (7.0 + 1.3 * t / 3))
    assert tail == pytest.approx(0.05, rel=1e-12)
    # without the factor 3 the equation has another root
    assert dimension * math.exp(-(t**2) / 2 / (7.0 + 1.3 * t)) > 0.06


def test_the_net_bound_is_where_the_union_of_hoeffding_tails_equals_delta():
    bound = theory.net_noise_bound(score_width=1.7, largest_design=5.0, delta=0.05, **SIZES)
    half = bound.value / 2  # what the maximum over the nets may be
    log_tail = (D1 + N * D2) * math.log(9.0) - 2 * half**2 / (1.7**2 * 5.0)
    assert log_tail == pytest.approx(math.log(0.05), rel=1e-12)


def test_both_bounds_cover_redrawn_labels_and_are_loose_by_a_known_factor(rng):
    features, z = rng.normal(size=(80, D1, D2)), 0.5 * rng.normal(size=80)
    p = scipy.stats.laplace.cdf(z)
    norms = np.array(
        [
            np.linalg.norm(sum(blocks(features, laplace_scores(z, rng.random(80) < p))), 2)
            for _ in range(200)
        ]
    )
    information = np.asarray(links.LAPLACE.information(z))
    bernstein = theory.bernstein_noise_bound(
        variance=theory.score_variance(features, OFFSETS, information),
        largest_score=theory.largest_score(features, links.LAPLACE, margins=z),
        delta=0.05,
        **SIZES,
    ).value
    nets = theory.net_noise_bound(
        score_width=2.0,
        largest_design=theory.design_extremes(features, OFFSETS)[1],
        delta=0.05,
        **SIZES,
    ).value
    quantile = np.quantile(norms, 0.95)
    assert norms.max() < min(bernstein, nets)
    assert 1.2 < bernstein / quantile < 4.0
    assert 2.0 < nets / quantile < 15.0
    # the root of V alone, without the logarithm of the dimension, is refuted by the same draws
    assert quantile > 1.05 * math.sqrt(theory.score_variance(features, OFFSETS, information))


def test_hoeffding_needs_the_range_of_the_scores_and_not_their_size():
    """Laplace scores at z = 0 are +1 or -1: a sum of n has the tail of a random walk."""
    n = 400
    for width, holds in ((2.0, True), (1.0, False)):
        t = width * math.sqrt(n * math.log(20.0) / 2)
        exact = scipy.stats.binom.sf(math.ceil((n + t) / 2) - 1, n, 0.5)
        assert bool(exact <= 0.05) is holds


def test_noise_norm_bound_counts_the_rank_of_a_difference(rng):
    scores = rng.normal(size=(D1, N * D2))
    op = float(np.linalg.norm(scores, 2))
    for rank, r in ((1, 2), (2, 4), (3, 4)):
        bound = theory.noise_norm_bound(op, rank=rank, **SIZES)
        assert bound == pytest.approx(math.sqrt(r) * op, rel=1e-14)
        assert theory.noise_norm(scores, rank) <= bound
    flat = np.linalg.qr(rng.normal(size=(N * D2, D1)))[0].T  # all singular values 1: attained
    assert theory.noise_norm(flat, 2) == pytest.approx(
        theory.noise_norm_bound(1.0, rank=2, **SIZES), rel=1e-12
    )


def test_the_closed_form_lies_between_s2_and_the_form_with_the_tail_twice():
    given = {
        "noise_norm": 3.0,
        "tail": 0.4,
        "sigma_k": 2.0,
        "ceiling": 1e9,
        "curvature": 0.1,
        "smallest_design": 20.0,
        "largest_design": 90.0,
        "curvature_bound": 0.25,
    }
    q = 0.25 * 90.0 / (0.1 * 20.0)
    bound = theory.concentrated_distance(**given)
    assert bound.value == pytest.approx((2 * 3.0 / 2.0 + math.sqrt(q) * 0.4) / 2.0, rel=1e-14)
    assert theory.oracle_inequality(**given).value <= bound.value
    assert bound.value < (2 * 3.0 / 2.0 + (1 + q) * 0.4) / 2.0
    slack = theory.concentrated_distance(**given, slack=0.3)
    assert theory.oracle_inequality(**given, slack=0.3).value <= slack.value
    # without the factor 2 the form falls below what S2 allows
    assert theory.oracle_inequality(**given | {"tail": 0.0}).value > 3.0 / 2.0 / 2.0


def test_the_closed_form_says_when_it_says_nothing():
    given = {
        "noise_norm": 1.0,
        "tail": 0.0,
        "sigma_k": 1.0,
        "ceiling": 1.0,
        "curvature": 0.1,
        "smallest_design": 100.0,
        "largest_design": 100.0,
        "curvature_bound": 0.25,
    }
    status = theory.BoundStatus
    assert theory.concentrated_distance(**given).status is status.INFORMATIVE
    for name, value, expected in (
        ("smallest_design", 0.0, status.VACUOUS),
        ("sigma_k", 0.0, status.VACUOUS),
        ("noise_norm", math.inf, status.VACUOUS),
        ("curvature", -0.1, status.NOT_APPLICABLE),
    ):
        assert theory.concentrated_distance(**given | {name: value}).status is expected, name


def test_bad_numbers_are_refused(rng):
    features = rng.normal(size=(80, D1, D2))
    with pytest.raises(checks.InputError, match="delta"):
        theory.bernstein_noise_bound(variance=1.0, largest_score=1.0, delta=0.0, **SIZES)
    with pytest.raises(checks.InputError, match="score_width"):
        theory.net_noise_bound(score_width=-1.0, largest_design=1.0, delta=0.1, **SIZES)
    with pytest.raises(checks.InputError, match="n_users"):
        theory.noise_norm_bound(1.0, rank=1, d1=2, n_users=0, d2=1)
    with pytest.raises(checks.InputError, match="information"):
        theory.score_variance(features, OFFSETS, -np.ones(80))
    with pytest.raises(checks.InputError, match="weights"):
        theory.score_variance(features, OFFSETS, np.ones(80), np.ones(3))
    with pytest.raises(checks.InputError, match="unbounded"):
        theory.largest_score(features, links.IDENTITY, margins=np.zeros(80))


@pytest.mark.parametrize("offsets", [[0, 2], [0, 100], [1, 4], [0, 3, 2, 4]])
def test_offsets_that_leave_pairs_out_are_refused(offsets: list[int]) -> None:
    """They would give a smaller V, and Bernstein's bound would not hold."""
    with pytest.raises(checks.InputError, match="offsets"):
        theory.score_variance(np.ones((4, 2, 1)), np.array(offsets), np.ones(4))


def test_numbers_beyond_float64_are_infinite_and_not_an_error() -> None:
    bound = theory.bernstein_noise_bound(
        variance=1.0, largest_score=1e200, d1=2, n_users=1, d2=1, delta=0.1
    )
    assert 1e200 < bound.value < 1e202
    steep = theory.park_theorem_f_1(
        log_bracketing=5.0, n_users=2, n_pairs=10, concentrability=1.0, kappa=1e200
    )
    assert steep.status is theory.BoundStatus.VACUOUS
