"""The bandit of real prompts and responses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from simrlhf import prompt_bandit
from simrlhf.core.checks import InputError
from simrlhf.sampling import sample_preferences
from simrlhf.world import DecisionConfig, WorldConfig, make_world


def test_every_side_of_a_debate_is_a_prompt_with_its_own_arguments():
    bandit = prompt_bandit(n_responses=8, dimensions=12)
    assert bandit.features.shape == (1, 32, 8, 12, 1)
    # different texts: no two responses have the same features
    assert len(np.unique(np.round(bandit.flat_features.reshape(-1, 12), 9), axis=0)) == 32 * 8
    np.testing.assert_array_equal(
        bandit.features, prompt_bandit(n_responses=8, dimensions=12).features
    )
    other = prompt_bandit(n_responses=8, dimensions=12, seed=1)
    assert not np.array_equal(bandit.features, other.features)


def test_two_responses_to_a_prompt_differ_by_the_dimension():
    bandit = prompt_bandit(n_prompts=6, n_responses=5, dimensions=10)
    assert bandit.n_states == 6
    squares = [
        np.sum((bandit.flat_features[0, s, a] - bandit.flat_features[0, s, b]) ** 2)
        for s in range(6)
        for a, b in itertools.combinations(range(5), 2)
    ]
    assert np.mean(squares) == pytest.approx(10.0, rel=1e-12)


def test_a_world_takes_it_as_its_decision_problem():
    config = WorldConfig(
        n_users=4, d1=10, rank=2, features="trajectories", decision=DecisionConfig(mdp="texts")
    )
    world = make_world(config, mdp=prompt_bandit(dimensions=10))
    sample = sample_preferences(world, 50)
    assert sample.features.shape == (200, 10, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ukp"}, "unknown data set 'ukp'"),
        ({"n_responses": 1000}, r"n_responses = 1000 is above \d+, the most that a prompt has"),
        ({"n_prompts": 40}, "n_prompts = 40 must be at most 32"),
        ({"n_prompts": 2, "n_responses": 3, "dimensions": 9}, "lower dimensions"),
    ],
)
def test_more_than_there_is_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        prompt_bandit(**settings)
