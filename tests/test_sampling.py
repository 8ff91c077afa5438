"""`sample_preferences`: nested samples and the law of the labels."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.stats

from simrlhf.core.checks import InputError
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world

USERS, PAIRS = 6, 2000


@pytest.fixture(scope="module")
def world():
    return make_world(WorldConfig(n_users=USERS, d1=5, d2=2, rank=2, base_norm=0.5), seed=1)


@pytest.fixture(scope="module")
def regression():
    config = WorldConfig(n_users=USERS, d1=5, d2=2, rank=2, link="identity", noise=0.7)
    return make_world(config, seed=1)


def margins(world, prefs) -> np.ndarray:
    """`<Theta_i, x>` of every pair, user by user."""
    return np.concatenate(
        [
            prefs.features[prefs.user(i)].reshape(-1, world.theta[i].size) @ world.theta[i].ravel()
            for i in range(prefs.n_users)
        ]
    )


def test_samples_are_nested_bit_by_bit(world):
    long = sample_preferences(world, 100, seed=3)
    short = sample_preferences(world, 37, seed=3)
    np.testing.assert_array_equal(short.features, long.first(37).features)
    np.testing.assert_array_equal(short.labels, long.first(37).labels)
    other = sample_preferences(world, 37, seed=4)
    assert (other.features != short.features).all()


def test_users_may_bring_different_numbers_of_pairs(world):
    counts = np.array([1, 100, 5, 37, 100, 2])
    uneven, even = (sample_preferences(world, n, seed=3) for n in (counts, 100))
    np.testing.assert_array_equal(uneven.counts, counts)
    for user in range(USERS):
        first = even.user(user).start
        same = slice(first, first + counts[user])
        np.testing.assert_array_equal(uneven.features[uneven.user(user)], even.features[same])
        np.testing.assert_array_equal(uneven.labels[uneven.user(user)], even.labels[same])


def test_users_share_no_numbers(world):
    prefs = sample_preferences(world, 100, seed=3)
    first = prefs.features.reshape(USERS, -1)
    assert np.unique(first).size == first.size


def test_soft_labels_are_the_probabilities_on_the_same_pairs(world):
    soft = sample_preferences(world, 100, seed=3, soft=True)
    hard = sample_preferences(world, 100, seed=3)
    np.testing.assert_array_equal(soft.features, hard.features)
    expected = 1 / (1 + np.exp(-margins(world, soft)))
    # two summation orders of ten products: some roundings of a number below ten
    np.testing.assert_allclose(soft.labels, expected, rtol=0, atol=1e-14)
    assert set(np.unique(hard.labels)) == {0.0, 1.0}


def test_labels_have_the_mean_of_the_model_and_not_of_another_link(world):
    prefs = sample_preferences(world, PAIRS, seed=5)
    z = margins(world, prefs)

    def score(probability: np.ndarray) -> float:
        # weighing by the sign of z sees a link that is steeper or flatter than the right one
        spread = np.sqrt(np.sum(probability * (1 - probability)))
        return abs(float(np.sum(np.sign(z) * (prefs.labels - probability)))) / spread

    right = 1 / (1 + np.exp(-z))
    assert score(right) < 4
    assert abs(np.sum(prefs.labels - right)) / np.sqrt(np.sum(right * (1 - right))) < 4
    assert score(scipy.stats.norm.cdf(z)) > 4  # probit
    assert score(1 / (1 + np.exp(-1.2 * z))) > 4  # another temperature
    assert score(1 - right) > 4  # the other item preferred


def test_labels_of_different_pairs_are_independent_of_the_features_order(world):
    prefs = sample_preferences(world, PAIRS, seed=5)
    residual = (prefs.labels - 1 / (1 + np.exp(-margins(world, prefs)))).reshape(USERS, PAIRS)
    lagged = np.sum(residual[:, 1:] * residual[:, :-1]) / np.sum(residual**2)
    across = np.sum(residual[1:] * residual[:-1]) / np.sum(residual**2)
    # a correlation of m independent pairs has standard error 1 / sqrt(m)
    assert abs(lagged) < 4 / np.sqrt(USERS * PAIRS)
    assert abs(across) < 4 / np.sqrt((USERS - 1) * PAIRS)


def test_regression_labels_have_the_mean_and_the_noise_asked_for(regression):
    prefs = sample_preferences(regression, PAIRS, seed=5)
    residual = prefs.labels - margins(regression, prefs)
    m = residual.size
    assert abs(residual.mean()) < 4 * 0.7 / np.sqrt(m)
    error = 0.7 / np.sqrt(2 * m)  # standard error of a Gaussian sample's standard deviation
    assert abs(residual.std() - 0.7) < 4 * error
    assert abs(residual.std() - 0.7 * 1.05) > 4 * error  # 5 % more noise is told apart
    assert scipy.stats.kstest(residual / 0.7, "norm").pvalue > 1e-4
    soft = sample_preferences(regression, PAIRS, seed=5, soft=True)
    np.testing.assert_allclose(soft.labels, margins(regression, prefs), rtol=0, atol=1e-13)


def test_sphere_features_reach_the_preferences():
    config = WorldConfig(n_users=3, d1=4, d2=2, rank=1, features="sphere")
    prefs = sample_preferences(make_world(config), 20)
    norms = np.linalg.norm(prefs.features, axis=(1, 2))
    np.testing.assert_allclose(norms, np.sqrt(8), rtol=1e-14)


def test_the_callers_precision_changes_nothing(world):
    inside = sample_preferences(world, 100, seed=3)
    with jax.enable_x64(False):
        outside = sample_preferences(world, 100, seed=3)
    np.testing.assert_array_equal(outside.features, inside.features)
    np.testing.assert_array_equal(outside.labels, inside.labels)


@pytest.mark.parametrize(
    ("n_pairs", "message"),
    [
        (0, r"n_pairs = 0 must be at least 1"),
        (2.5, r"n_pairs must be an integer, got 2\.5"),
        ([1, 2], r"n_pairs has shape \(2,\), expected \(6\); one number, or one for each user"),
        ([1, 2, 3, 4, 5, 0], r"n_pairs must be integers of at least 1, got .*0"),
        ([1.5] * 6, r"n_pairs must be integers of at least 1, got .*1\.5"),
    ],
)
def test_bad_counts_are_refused(world, n_pairs, message):
    with pytest.raises(InputError, match=message) as caught:
        sample_preferences(world, n_pairs)
    assert "\n" not in str(caught.value)
