"""Feature laws: second moments, exact norms, nested draws."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from simrlhf.world.config import FEATURE_LAWS
from simrlhf.world.feature_laws import draw_features

N_PAIRS, SIZE = 20000, 4


def draw(law: str, seed: int = 0, n_pairs: int = N_PAIRS) -> np.ndarray:
    key = jax.random.key(seed)
    return np.asarray(draw_features(key, law=law, n_pairs=n_pairs, size=SIZE))


def moment_z_scores(x: np.ndarray) -> np.ndarray:
    """Standardised deviations of `E[x]` from 0 and `E[x x']` from the identity."""
    products = np.einsum("na,nb->nab", x, x) - np.eye(SIZE)
    values = np.hstack([x, products.reshape(len(x), -1)])
    spread = values.std(axis=0)
    scores = values.mean(axis=0) / np.where(spread > 0, spread, 1.0) * np.sqrt(len(x))
    return np.abs(scores)


@pytest.mark.parametrize("law", FEATURE_LAWS)
def test_features_have_mean_zero_and_unit_second_moments(law):
    x = draw(law)
    # 20 scores; 4.5 standard errors have probability 1e-4 over all of them
    assert moment_z_scores(x).max() < 4.5
    assert moment_z_scores(1.05 * x).max() > 4.5  # a law that is 5 % too wide is rejected


def test_sphere_features_have_norm_root_of_their_dimension_and_gaussian_ones_do_not():
    norms = np.linalg.norm(draw("sphere"), axis=1)
    np.testing.assert_allclose(norms, np.sqrt(SIZE), rtol=1e-14)
    assert np.linalg.norm(draw("gaussian"), axis=1).std() > 0.5


@pytest.mark.parametrize("law", FEATURE_LAWS)
def test_a_longer_draw_begins_with_the_shorter_one_bit_by_bit(law):
    long = draw(law, n_pairs=300)
    for n_pairs in (1, 7, 150):
        np.testing.assert_array_equal(draw(law, n_pairs=n_pairs), long[:n_pairs])
    assert (draw(law, seed=1, n_pairs=7) != long[:7]).all()
