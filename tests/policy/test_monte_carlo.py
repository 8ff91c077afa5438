"""Exact values and designs of a larger MDP against the trajectories of drawn preferences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from simrlhf import policy, sample_preferences
from simrlhf.world import Behaviours, DecisionConfig, World, WorldConfig, make_world

PAIRS = 4000


def large_world(*, shared_start: bool = True, actions: int = 5, horizon: int = 8) -> World:
    decision = DecisionConfig(
        mdp="garnet", n_states=60, n_actions=actions, horizon=horizon, shared_start=shared_start
    )
    return make_world(
        WorldConfig(n_users=3, d1=4, rank=2, features="trajectories", decision=decision), seed=5
    )


def standard_errors_off(values: np.ndarray, exact: float | np.ndarray) -> np.ndarray:
    """How many standard errors the mean over the first axis is away."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return np.abs(values.mean(axis=0) - exact) / error


def test_drawn_trajectories_have_the_values_of_their_policies():
    world = large_world(shared_start=False)
    plan = policy.optimal_policy(world.mdp, world.theta)
    soft = policy.optimal_policy(world.mdp, world.theta, temperature=0.5)
    for user, (first, second) in enumerate(zip(plan.policy, soft.policy, strict=True)):
        drawn = dataclasses.replace(world, behaviours=Behaviours(first, second, shared_start=False))
        sample = sample_preferences(drawn, PAIRS, seed=user)
        features = sample.features[sample.user(user)]
        means = [policy.feature_expectations(world.mdp, law) for law in (first, second)]
        assert standard_errors_off(features, means[0] - means[1]).max() < 4.0
        rewards = np.einsum("jab,ab->j", features, world.theta[user])
        best = plan.value[user] - policy.value(world.mdp, second, world.theta[user])[0]
        assert standard_errors_off(rewards, best).max() < 4.0


@pytest.mark.parametrize("shared_start", [True, False])
def test_drawn_pairs_have_the_exact_design(shared_start):
    world = large_world(shared_start=shared_start, actions=2, horizon=2)
    sample = sample_preferences(world, PAIRS, seed=1)
    x = sample.features.reshape(-1, 4)
    exact = policy.pair_moments(world.mdp, world.behaviours)
    assert standard_errors_off(x[:, :, None] * x[:, None, :], exact).max() < 4.0
    # the other way of starting is many errors away
    other = dataclasses.replace(world.behaviours, shared_start=not shared_start)
    off = standard_errors_off(x[:, :, None] * x[:, None, :], policy.pair_moments(world.mdp, other))
    assert off.max() > 4.0


def test_labels_follow_the_link_and_samples_are_nested():
    world = large_world()
    long, short = (sample_preferences(world, n, seed=2) for n in (PAIRS, 100))
    np.testing.assert_array_equal(long.first(100).features, short.features)
    np.testing.assert_array_equal(long.first(100).labels, short.labels)
    margins = np.einsum("jab,jab->j", long.features, world.theta[long.users])
    assert standard_errors_off(long.labels - world.link.mean(margins), 0.0) < 4.0
    soft = sample_preferences(world, 100, seed=2, soft=True)
    np.testing.assert_allclose(soft.labels, world.link.mean(margins)[_first(long, 100)], atol=1e-12)


def test_users_may_start_where_they_like():
    decision = DecisionConfig(mdp="margin", n_states=40, behaviour="contrast")
    world = make_world(
        WorldConfig(n_users=4, d1=3, rank=1, features="trajectories", decision=decision), seed=0
    )
    sample = sample_preferences(world, 200, seed=0)
    differences = world.mdp.flat_features[0, :, 1] - world.mdp.flat_features[0, :, 0]
    for user in range(4):
        own = differences[world.mdp.initial[user] > 0]
        drawn = sample.features[sample.user(user)].reshape(200, -1)
        found = {tuple(row) for row in np.round(drawn, 12)}
        assert found == {tuple(row) for row in np.round(own, 12)}


def _first(sample, count: int) -> np.ndarray:
    place = np.arange(sample.n_total) - sample.offsets[sample.users]
    return place < count
