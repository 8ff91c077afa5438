"""Feature laws: second moments, exact norms, nested draws."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from simrlhf.world import WorldConfig, make_world
from simrlhf.world.config import FEATURE_LAWS, ISOTROPIC_LAWS
from simrlhf.world.feature_laws import draw_features

N_PAIRS, SIZE = 20000, 4


def draw(law: str, seed: int = 0, n_pairs: int = N_PAIRS) -> np.ndarray:
    """Features from a kernel that is compiled as a user's is: bits depend on how it sums."""
    drawn = jax.jit(
        partial(draw_features, law=law, n_pairs=n_pairs, size=SIZE),
        compiler_options={"xla_backend_optimization_level": "3"},
    )
    return np.asarray(drawn(jax.random.key(seed), root=world_of(law).feature_root))


def world_of(law: str):
    """A world with `d1 d2 = SIZE`."""
    config = WorldConfig(n_users=4, d1=SIZE // 2, d2=2, rank=1, features=law, feature_condition=4.0)
    return make_world(config, seed=5)


def moment_z_scores(x: np.ndarray) -> np.ndarray:
    """Standardised deviations of `E[x]` from 0 and `E[x x']` from the identity."""
    products = np.einsum("na,nb->nab", x, x) - np.eye(SIZE)
    values = np.hstack([x, products.reshape(len(x), -1)])
    spread = values.std(axis=0)
    scores = values.mean(axis=0) / np.where(spread > 0, spread, 1.0) * np.sqrt(len(x))
    return np.abs(scores)


@pytest.mark.parametrize("law", FEATURE_LAWS)
def test_features_have_the_covariance_of_their_world(law):
    x = draw(law)
    covariance = np.kron(world_of(law).feature_covariance, np.eye(2))

    def score(expected: np.ndarray) -> float:
        products = np.einsum("na,nb->nab", x, x) - expected
        spread = products.std(axis=0) / np.sqrt(len(x))
        return float(np.abs(products.mean(axis=0) / spread).max())

    # 10 different scores: 4 standard errors have probability 6e-4 over all
    assert score(covariance) < 4
    # the blocks of `I (x) S` instead, and the identity, are rejected where they differ
    if law not in ISOTROPIC_LAWS:
        assert score(np.eye(SIZE)) > 8
        assert score(np.kron(np.eye(2), world_of(law).feature_covariance)) > 8


def test_bounded_features_are_bounded_and_the_eigenvalues_are_those_asked_for():
    assert np.abs(draw("bounded")).max() <= np.sqrt(3)
    assert np.abs(draw("gaussian")).max() > 3
    values = np.linalg.eigvalsh(world_of("anisotropic").feature_covariance)
    assert values[-1] / values[0] == pytest.approx(4.0, rel=1e-12)
    assert values.sum() == pytest.approx(SIZE // 2, rel=1e-12)


def test_the_blind_direction_is_at_45_degrees_to_the_basis():
    config = WorldConfig(n_users=8, d1=7, rank=2, features="degenerate")
    world = make_world(config, seed=1)
    values, vectors = np.linalg.eigh(world.feature_covariance)
    np.testing.assert_allclose(values, [0, 1, 1, 1, 1, 1, 1], atol=1e-14)
    assert np.linalg.norm(world.basis.T @ vectors[:, 0]) == pytest.approx(np.sqrt(0.5), rel=1e-12)


@pytest.mark.parametrize("law", ISOTROPIC_LAWS)
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
