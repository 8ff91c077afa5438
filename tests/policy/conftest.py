"""Small MDPs, and their trajectories one by one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from simrlhf.world import MDP


def random_mdp(
    seed: int, *, states: int = 3, actions: int = 2, horizon: int = 3, users: int = 0
) -> MDP:
    """An MDP with dense random kernels; each of `users` has first states of his own."""
    rng = np.random.default_rng(seed)
    initial = rng.dirichlet(np.ones(states), size=users or None)
    kernels = rng.dirichlet(np.ones(states), size=(horizon - 1, states, actions))
    return MDP(initial, kernels, rng.normal(size=(horizon, states, actions, 2, 2)))


def random_policy(mdp: MDP, seed: int, users: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (mdp.horizon, mdp.n_states)
    return rng.dirichlet(np.ones(mdp.n_actions), size=(users, *shape) if users else shape)


def trajectories(mdp: MDP, policy: np.ndarray, initial: np.ndarray):
    """Every trajectory with its probability and feature; nothing shared with the recursions."""
    steps = itertools.product(range(mdp.n_states), range(mdp.n_actions))
    for path in itertools.product(list(steps), repeat=mdp.horizon):
        chance, feature = initial[path[0][0]], np.zeros(mdp.reward_shape)
        for h, (s, a) in enumerate(path):
            chance = chance * policy[h, s, a]
            feature = feature + mdp.features[h, s, a]
            if h + 1 < mdp.horizon:
                chance = chance * mdp.kernels[h, s, a, path[h + 1][0]]
        yield path, chance, feature


def deterministic_policies(mdp: MDP):
    """All `A^(H S)` deterministic Markov policies."""
    rows = np.eye(mdp.n_actions)
    for chosen in itertools.product(range(mdp.n_actions), repeat=mdp.horizon * mdp.n_states):
        yield rows[list(chosen)].reshape(mdp.horizon, mdp.n_states, mdp.n_actions)


@pytest.fixture(params=range(3))
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """The functions above: test modules cannot import this file."""
    return SimpleNamespace(
        mdp=random_mdp,
        policy=random_policy,
        trajectories=trajectories,
        deterministic_policies=deterministic_policies,
    )
