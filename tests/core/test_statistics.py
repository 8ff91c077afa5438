"""Statistics: against scipy, and intervals that cover as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from simrlhf.core import checks, statistics


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_mean_and_error_equal_scipys(rng):
    values = rng.normal(2.0, 3.0, size=(5, 8))
    found = statistics.mean_and_error(values)
    assert found.mean == pytest.approx(values.mean(), rel=1e-14)
    assert found.standard_error == pytest.approx(scipy.stats.sem(values.ravel()), rel=1e-14)


def test_four_standard_errors_hold_the_true_mean(rng):
    scores = []
    for _ in range(500):
        found = statistics.mean_and_error(rng.normal(1.0, 2.0, size=50))
        scores.append((found.mean - 1.0) / found.standard_error)
    # student's t with 49 degrees of freedom has variance 49/47; 4 errors of a variance of 500 draws
    assert np.var(scores) == pytest.approx(49 / 47, abs=4 * np.sqrt(2.1 / 500))
    # the spread of the values instead of the mean's error would give 1/50
    assert np.var(scores) > 0.5


def test_a_paired_difference_removes_what_the_pairs_share(rng):
    shared = rng.normal(0.0, 100.0, size=400)
    first, second = shared + rng.normal(1.0, 1.0, size=400), shared + rng.normal(size=400)
    found = statistics.paired_difference(first, second)
    expected = scipy.stats.ttest_rel(first, second)
    assert found.mean / found.standard_error == pytest.approx(expected.statistic, rel=1e-12)
    assert abs(found.mean - 1.0) < 4 * found.standard_error
    unpaired = np.hypot(scipy.stats.sem(first), scipy.stats.sem(second))
    assert unpaired > 50 * found.standard_error


def test_clopper_pearson_is_the_beta_quantile_formula():
    for successes, trials in [(0, 12), (3, 12), (12, 12), (1, 1), (50, 1000)]:
        found = statistics.clopper_pearson(successes, trials, confidence=0.9)
        low = scipy.stats.beta.ppf(0.05, successes, trials - successes + 1) if successes else 0.0
        tail = scipy.stats.beta.ppf(0.95, successes + 1, trials - successes)
        high = tail if successes < trials else 1.0
        assert found.estimate == successes / trials
        assert found.low == pytest.approx(low, abs=1e-10)  # scipy finds the ends by root search
        assert found.high == pytest.approx(high, abs=1e-10)


@pytest.mark.parametrize("rate", [0.005, 0.05, 0.4])
def test_clopper_pearson_covers_at_least_as_often_as_it_says(rate):
    trials = 60
    successes = np.arange(trials + 1)
    weights = scipy.stats.binom.pmf(successes, trials, rate)
    intervals = [statistics.clopper_pearson(int(s), trials) for s in successes]
    covers = np.array([found.low <= rate <= found.high for found in intervals])
    assert weights @ covers >= 0.95  # exact: the sum runs over every outcome
    if rate < 0.1:  # the normal approximation, the wrong variant, covers too seldom
        share = successes / trials
        half = 1.96 * np.sqrt(share * (1 - share) / trials)
        assert weights @ (np.abs(share - rate) <= half) < 0.95


def test_a_power_law_has_its_exponent_as_slope():
    x = np.array([10.0, 30.0, 100.0, 1000.0])
    found = statistics.log_log_slope(x, 7.0 * x**-0.5)
    # without noise the interval is rounding, about the root of it in the standard error
    assert found.estimate == pytest.approx(-0.5, abs=1e-14)
    assert found.low == pytest.approx(-0.5, abs=1e-6)
    assert found.high == pytest.approx(-0.5, abs=1e-6)
    assert found.low <= found.estimate <= found.high


def test_the_slope_interval_covers_as_often_as_it_says(rng):
    x = np.array([100.0, 200.0, 400.0, 800.0])
    students, normals = [], []
    for _ in range(3000):
        y = x**-0.5 * np.exp(rng.normal(0.0, 0.1, size=x.size))
        found = statistics.log_log_slope(x, y)
        students.append(found.low <= -0.5 <= found.high)
        half = (found.high - found.estimate) * 1.96 / scipy.stats.t.ppf(0.975, x.size - 2)
        normals.append(abs(found.estimate + 0.5) <= half)
    error = np.sqrt(0.95 * 0.05 / 3000)
    assert np.mean(students) == pytest.approx(0.95, abs=4 * error)
    assert np.mean(normals) < 0.95 - 4 * error  # four points need Student's t, not the normal law


def test_mean_slope_takes_repetitions_as_its_unit(rng):
    x, repetition = np.tile([1.0, 10.0, 100.0], 4), np.repeat(np.arange(4), 3)
    # exact lines of different slopes and heights: only their mean is uncertain
    slopes, heights = np.array([-0.4, -0.5, -0.6, -0.7]), rng.uniform(1.0, 9.0, 4)
    y = heights[repetition] * x ** slopes[repetition]
    found = statistics.mean_slope(x, y, repetition, confidence=0.9)
    half = scipy.stats.t.ppf(0.95, 3) * slopes.std(ddof=1) / 2.0
    np.testing.assert_allclose(found, [-0.55, -0.55 - half, -0.55 + half], rtol=1e-12)


def test_more_confidence_is_a_wider_interval_around_the_same_slope(rng):
    x = np.geomspace(1.0, 100.0, 8)
    y = x * np.exp(rng.normal(0.0, 0.2, size=8))
    narrow, wide = (statistics.log_log_slope(x, y, confidence=c) for c in (0.8, 0.99))
    assert narrow.estimate == wide.estimate
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: statistics.mean_and_error([1.0]), "at least 2 entries, got 1"),
        (lambda: statistics.mean_and_error([1.0, np.nan]), "not finite"),
        (lambda: statistics.paired_difference([1.0, 2.0], [1.0]), r"got \(2,\) and \(1,\)"),
        (lambda: statistics.clopper_pearson(5, 4), "successes = 5 must be at most 4"),
        (lambda: statistics.clopper_pearson(0, 0), "trials = 0 must be at least 1"),
        (lambda: statistics.clopper_pearson(1, 4, confidence=95), "confidence = 95 must be at"),
        (lambda: statistics.log_log_slope([1, 2], [1, 2]), "at least 3 entries, got 2"),
        (lambda: statistics.log_log_slope([1, 2, 3], [1, 2, 3, 4]), "equal lengths, got 3 and 4"),
        (lambda: statistics.log_log_slope([1, 2, 3], [1, 0, 3]), "positive x and y"),
        (lambda: statistics.log_log_slope([2, 2, 2], [1, 2, 3]), "two distinct x"),
    ],
)
def test_bad_samples_are_refused_with_the_reason(call, message):
    with pytest.raises(checks.InputError, match=message):
        call()


def test_a_mean_interval_is_scipys_and_widens_with_confidence() -> None:
    values = np.random.default_rng(5).normal(2.0, 3.0, size=12)
    found = statistics.mean_interval(values, confidence=0.9)
    known = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.9)
    # two ways to the same closed form
    np.testing.assert_allclose((found.low, found.high), (known.low, known.high), rtol=1e-12)
    normal = 1.645 * statistics.mean_and_error(values).standard_error
    assert found.high - found.estimate > 1.05 * normal  # the normal quantile is too short here
