"""The rank-k likelihood-ratio set against all of its members on a fine grid."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import simrlhf as sim
from simrlhf import policy
from simrlhf.metrics import likelihood_bracket

BOUND = 3.0


def two_users(seed: int, n_pairs: int = 150):
    """Two users on one line of the plane, in a bandit; everything about them can be listed."""
    decision = sim.DecisionConfig(mdp="bandit", n_states=4, n_actions=3)
    config = sim.WorldConfig(
        n_users=2, d1=2, rank=1, condition=1.0, features="trajectories", decision=decision
    )
    world = sim.make_world(config, seed=seed)
    sample = sim.sample_preferences(world, n_pairs, seed=seed)
    return world, sample, sim.fit(sample, rank=1, norm_bound=BOUND)


def members_of(sample, result, zeta: float, user: int) -> np.ndarray:
    """The shadow of the set on a user, `(m, 2)`: every angle of the basis, every factor on it."""
    angles = np.linspace(0.0, np.pi, 361)[:-1]
    lines = np.stack([np.cos(angles), np.sin(angles)])
    factors = np.linspace(-BOUND, BOUND, 601)
    losses = []
    for one in range(2):
        mine = sample.user(one)
        seen = sample.features[mine][..., 0] @ lines
        z = seen[:, :, None] * factors
        losses.append((np.logaddexp(0.0, z) - sample.labels[mine][:, None, None] * z).sum(axis=0))
    level = sum(one.min(axis=1) for one in losses).min() + 0.5 * zeta**2
    allowed = losses[user] + losses[1 - user].min(axis=1)[:, None] <= level
    angle, place = np.nonzero(allowed)
    return lines[:, angle].T * factors[place][:, None]


def best_against(members: np.ndarray, mdp, reference) -> float:
    """max over policies of the least value over the members: one linear programme."""
    gaps = mdp.flat_features[0] * mdp.initial[:, None, None]
    base = policy.feature_expectations(mdp, reference).ravel()
    hull = members[np.unique(_corners(members))]
    count, (states, actions, _) = gaps[..., 0].size, gaps.shape
    chosen = np.kron(np.eye(states), np.ones(actions))
    found = scipy.optimize.linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-(gaps.reshape(count, 2) @ hull.T).T, np.ones((len(hull), 1))]),
        b_ub=-(hull @ base),
        A_eq=np.hstack([chosen, np.zeros((states, 1))]),
        b_eq=np.ones(states),
        bounds=[(0.0, 1.0)] * count + [(None, None)],
    )
    return float(found.x[-1])


def _corners(members: np.ndarray) -> np.ndarray:
    turns = np.linspace(0.0, 2.0 * np.pi, 4000)
    return np.argmax(members @ np.stack([np.cos(turns), np.sin(turns)]), axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 4])
def test_the_value_lies_between_the_bounds_and_the_search_finds_it(seed):
    world, sample, result = two_users(seed)
    reference = world.behaviours.second
    found = likelihood_bracket(world.mdp, sample, result, reference=reference)
    zeta, smaller = np.sqrt(scipy.stats.chi2.ppf(0.95, [3, 1]))
    user = 0  # with seed 2 the other one has no more than the reference's value
    exact = best_against(members_of(sample, result, zeta, user), world.mdp, reference)
    # the grid is of half a degree by .01
    slack = 0.01 * exact
    assert found.lower[user] <= exact + slack
    assert found.slice[user] >= exact - slack
    # the search sees what the bounds leave open
    assert found.upper[user] == pytest.approx(exact, abs=slack)
    assert found.searched[user] == pytest.approx(exact, abs=slack)
    assert found.lower[user] < exact - slack
    # the set of one degree of freedom is another one
    rival = best_against(members_of(sample, result, smaller, user), world.mdp, reference)
    assert rival > exact + 5.0 * slack


def test_users_asked_for_are_those_answered():
    world, sample, result = two_users(3)
    found = likelihood_bracket(
        world.mdp, sample, result, reference=world.behaviours.second, users=[1], max_rounds=2
    )
    assert found.users.tolist() == [1]
    assert found.lower[0] <= found.upper[0]
    assert found.upper[0] <= found.slice[0]


@pytest.mark.parametrize(
    ("change", "users", "message"),
    [
        ({"estimator": "full"}, None, "the set is that of share_b's class, the fit is of full"),
        ({"norm_bound": None}, None, "may be unbounded where pairs separate"),
        ({}, [2], r"users must be 0 to 1, got \[2\]"),
    ],
)
def test_what_has_no_bracket_is_said(change, users, message):
    world, sample, result = two_users(0)
    with pytest.raises(sim.InputError, match=message):
        likelihood_bracket(
            world.mdp,
            sample,
            dataclasses.replace(result, **change),
            reference=world.behaviours.second,
            users=users,
        )
