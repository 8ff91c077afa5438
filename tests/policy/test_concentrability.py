"""Concentrability against its definition, and the design against every pair of trajectories."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize

from simrlhf import policy
from simrlhf.core.checks import InputError
from simrlhf.world import MDP, Behaviours
from simrlhf.world.behaviours import make_behaviours


def enumerated(small, mdp: MDP, behaviours: Behaviours, initial: np.ndarray) -> np.ndarray:
    """`E[vec x vec x']` over all pairs of trajectories."""
    sides = [
        [
            (path[0][0], chance, feature.ravel())
            for path, chance, feature in small.trajectories(mdp, law, initial)
        ]
        for law in (behaviours.first, behaviours.second)
    ]
    total = 0.0
    for (s, p, f), (t, q, g) in itertools.product(*sides):
        alike = float(s == t) / initial[s]
        chance = p * q * (alike if behaviours.shared_start else 1.0)
        total = total + chance * np.outer(f - g, f - g)
    return np.asarray(total)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("users", [0, 2])
def test_the_design_is_a_sum_over_pairs_of_trajectories(small, shared, users, seed):
    mdp = small.mdp(seed, states=2, horizon=3, users=users)
    behaviours = Behaviours(small.policy(mdp, 1), small.policy(mdp, 2), shared)
    found = policy.pair_moments(mdp, behaviours)
    for user, initial in enumerate(np.atleast_2d(mdp.initial)):
        mine = found[user] if users else found
        np.testing.assert_allclose(mine, enumerated(small, mdp, behaviours, initial), atol=1e-10)


def test_concentrability_is_the_largest_ratio_and_the_worst_reward_attains_it(small, seed):
    mdp = small.mdp(seed, states=4, actions=3, users=2)
    behaviours = Behaviours(small.policy(mdp, 1), small.policy(mdp, 2))
    theta = np.random.default_rng(seed).normal(size=(2, 2, 2))
    target = policy.optimal_policy(mdp, theta).policy
    found = policy.concentrability(mdp, target, behaviours)
    sigma = policy.pair_moments(mdp, behaviours)
    ahead = policy.feature_expectations(mdp, target)
    behind = policy.feature_expectations(mdp, behaviours.second)
    for user in range(2):
        g = (ahead[user] - behind[user]).ravel()

        def ratio(error, g=g, sigma=sigma[user]):
            return error @ g / np.sqrt(error @ sigma @ error)

        assert ratio(found.worst[user].ravel()) == pytest.approx(found.value[user], rel=1e-9)
        starts = np.random.default_rng(0).normal(size=(20, 4))
        searched = max(-scipy.optimize.minimize(lambda e: -ratio(e), s).fun for s in starts)
        assert searched == pytest.approx(found.value[user], rel=1e-6)


def test_a_direction_that_no_comparison_shows_is_infinite_and_named():
    """Two contexts and action 0 alone in the data: action 1 of either is not covered."""
    features = np.zeros((2, 2, 3, 1))
    features[0, 1, 0], features[1, 1, 1] = 1.0, 1.0
    mdp = MDP.bandit(features)
    wanted = np.eye(2)[[[1, 0]]]  # action 1 in context 0
    blind = make_behaviours(mdp, "careful", coverage=0.0, shared_start=True)
    found = policy.concentrability(mdp, wanted, blind)
    assert np.isinf(found.value[0])
    np.testing.assert_allclose(np.abs(found.worst[0].ravel()), [1.0, 0.0, 0.0], atol=1e-12)
    for coverage in (0.25, 0.01):
        seen = make_behaviours(mdp, "careful", coverage=coverage, shared_start=True)
        # g = e_0 / 2 and Sigma = coverage diag(1, 1, 0) / 2
        value = policy.concentrability(mdp, wanted, seen).value[0]
        assert value == pytest.approx(np.sqrt(0.5 / coverage), rel=1e-12)
    staying = policy.concentrability(mdp, blind.second, blind)
    assert staying.value[0] == 0.0
    np.testing.assert_array_equal(staying.worst, 0.0)


def test_the_lower_bounds_construction_has_concentrability_at_most_lambda():
    features = np.zeros((6, 2, 6, 1))
    features[np.arange(6), 1, np.arange(6)] = 1.0
    mdp = MDP.bandit(features)
    careful = make_behaviours(mdp, "careful", coverage=1 / 3.0**2, shared_start=True)
    for wanted in (6, 3):
        target = np.eye(2)[(np.arange(6) < wanted).astype(int)][None]
        value = policy.concentrability(mdp, target, careful).value[0]
        assert value == pytest.approx(3.0 * np.sqrt(wanted / 6), rel=1e-12)


def test_a_known_basis_needs_less_and_an_estimates_covariance_gives_its_error(small, seed):
    mdp = small.mdp(seed, states=4, actions=3)
    behaviours = Behaviours(small.policy(mdp, 1), small.policy(mdp, 2))
    target = small.policy(mdp, 3)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(2, 1)))[0]
    sigma = policy.pair_moments(mdp, behaviours)
    found = policy.concentrability(
        mdp, target, behaviours, basis=basis, covariance=np.linalg.inv(sigma)[None] / 9.0
    )
    assert 0.0 < found.oracle[0] < found.value[0]
    inside = np.kron(basis, np.eye(2))
    within = inside.T @ found.gap[0].ravel()
    direct = np.sqrt(within @ np.linalg.solve(inside.T @ sigma @ inside, within))
    assert found.oracle[0] == pytest.approx(direct, rel=1e-10)
    # an efficient estimate's covariance is the inverse design over n
    assert found.standard_error[0] == pytest.approx(found.value[0] / 3.0, rel=1e-10)


def test_coverage_makes_concentrability_better(small):
    mdp = small.mdp(0, states=5, actions=3)
    target = policy.optimal_policy(mdp, np.ones((2, 2))).policy
    for kind in ("uniform", "contrast", "careful"):
        values = [
            policy.concentrability(
                mdp, target, make_behaviours(mdp, kind, coverage=c, shared_start=True)
            ).value[0]
            for c in (0.02, 0.1, 0.5, 1.0)
        ]
        assert values[0] > values[1] > values[2], kind


def test_too_many_features_for_second_moments_are_refused():
    mdp = MDP.bandit(np.zeros((2, 1, 9000, 1)))
    one = Behaviours(np.ones((1, 2, 1)), np.ones((1, 2, 1)))
    with pytest.raises(InputError, match="162,000,000 numbers, above the limit"):
        policy.pair_moments(mdp, one)
