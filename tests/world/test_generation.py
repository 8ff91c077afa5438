"""`make_world`: what a world is beyond its spectrum."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.world import WorldConfig, make_world

CONFIG = WorldConfig(n_users=5, d1=6, d2=2, rank=2, tail=0.2, base_norm=1.5)


def test_a_seed_names_one_world():
    first, again, other = (make_world(CONFIG, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.delta, again.delta)
    np.testing.assert_array_equal(first.theta_init, again.theta_init)
    assert np.abs(first.delta - other.delta).max() > 0.1


def test_the_callers_precision_changes_nothing():
    inside = make_world(CONFIG, seed=4)
    with jax.enable_x64(False):
        outside = make_world(CONFIG, seed=4)
    assert outside.delta.dtype == np.float64
    np.testing.assert_array_equal(outside.delta, inside.delta)


def test_the_reward_is_the_base_plus_the_deviation():
    world = make_world(CONFIG, seed=4)
    assert np.linalg.norm(world.theta_init) == pytest.approx(1.5, rel=1e-14)
    np.testing.assert_array_equal(world.theta, world.theta_init[None] + world.delta)
    assert not make_world(WorldConfig(n_users=3, d1=4, rank=1)).theta_init.any()


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match=r"seed = -1 must be at least 0; use a non-negative"):
        make_world(CONFIG, seed=-1)


def test_the_basis_has_no_preferred_direction():
    def mean_projector(bases):
        return np.mean([b @ b.T for b in bases], axis=0)

    random = np.random.default_rng(0)
    config = WorldConfig(n_users=4, d1=4, rank=2)
    haar = mean_projector([make_world(config, seed=seed).basis for seed in range(400)])
    # E[BB'] = (k / d1) I; an entry of BB' has variance below 0.1, so 4 standard errors are 0.064
    assert np.abs(haar - 0.5 * np.eye(4)).max() < 0.064
    skewed = [np.linalg.qr(random.uniform(size=(4, 2)))[0] for _ in range(400)]
    assert np.abs(mean_projector(skewed) - 0.5 * np.eye(4)).max() > 0.064
