"""Values, occupancies and optima against every trajectory and every policy, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simrlhf import policy
from simrlhf.core.checks import InputError

EXACT = 1e-10  # the issue's; differences are of rounding


def test_values_and_occupancies_are_sums_over_trajectories(small, seed):
    mdp = small.mdp(seed, users=2)
    law = small.policy(mdp, 10 + seed, users=2)
    theta = np.random.default_rng(seed).normal(size=(2, 2, 2))
    values = policy.value(mdp, law, theta)
    weights = policy.occupancies(mdp, law)
    means = policy.feature_expectations(mdp, law)
    for user in range(2):
        all_of_them = list(small.trajectories(mdp, law[user], mdp.initial[user]))
        assert sum(chance for _, chance, _ in all_of_them) == pytest.approx(1.0)
        mean = sum(chance * feature for _, chance, feature in all_of_them)
        np.testing.assert_allclose(means[user], mean, atol=EXACT)
        assert values[user] == pytest.approx(float(np.sum(theta[user] * mean)), abs=EXACT)
        counted = np.zeros((mdp.horizon, mdp.n_states, mdp.n_actions))
        for path, chance, _ in all_of_them:
            for h, (s, a) in enumerate(path):
                counted[h, s, a] += chance
        np.testing.assert_allclose(weights[user], counted, atol=EXACT)


def test_the_optimum_is_the_best_of_all_deterministic_policies(small, seed):
    mdp = small.mdp(seed, states=2, actions=3, horizon=2)
    theta = np.random.default_rng(seed).normal(size=(2, 2, 2))
    plan = policy.optimal_policy(mdp, theta)
    every = np.stack(list(small.deterministic_policies(mdp)))
    best = [
        max(policy.value(mdp, np.stack([law] * 2), theta)[user] for law in every)
        for user in range(2)
    ]
    np.testing.assert_allclose(plan.value, best, atol=EXACT)
    np.testing.assert_allclose(policy.value(mdp, plan.policy, theta), plan.value, atol=EXACT)
    assert set(np.unique(plan.policy)) == {0.0, 1.0}


def test_ties_go_to_the_first_action(small):
    mdp = small.mdp(0)
    plan = policy.optimal_policy(mdp, np.zeros((2, 2)))
    np.testing.assert_array_equal(plan.policy[0, ..., 0], 1.0)


def test_the_regularised_optimum_is_the_gibbs_law_over_trajectories(small, seed):
    """For deterministic dynamics the optimum of J - tau KL is `ref exp(r / tau)` normalised."""
    mdp = small.mdp(seed, states=3, actions=2, horizon=3)
    kernels = np.eye(3)[np.random.default_rng(seed).integers(3, size=(2, 3, 2))]
    mdp = type(mdp)(np.eye(3)[0] * 0.5 + 0.5 / 3, kernels, mdp.features)
    theta, tau = np.random.default_rng(seed).normal(size=(2, 2)), 0.7
    reference = small.policy(mdp, 5)
    plan = policy.optimal_policy(mdp, theta, temperature=tau, reference=reference)
    total = 0.0
    for state in range(3):
        known = list(small.trajectories(mdp, reference, np.eye(3)[state]))
        partition = sum(c * np.exp(np.sum(theta * f) / tau) for _, c, f in known)
        total += mdp.initial[state] * tau * np.log(partition)
        found = small.trajectories(mdp, plan.policy[0], np.eye(3)[state])
        for (_, chance, feature), (_, mine, _) in zip(known, found, strict=True):
            gibbs = chance * np.exp(np.sum(theta * feature) / tau) / partition
            assert mine == pytest.approx(gibbs, abs=EXACT)
    assert plan.value[0] == pytest.approx(total, abs=EXACT)


def test_the_regularised_optimum_beats_every_policy_near_it(small, seed):
    """In random dynamics, where no Gibbs law is attained: J - tau KL is largest."""
    mdp, tau = small.mdp(seed), 0.4
    theta = np.random.default_rng(seed).normal(size=(1, 2, 2))
    reference = small.policy(mdp, 7)
    plan = policy.optimal_policy(mdp, theta, temperature=tau, reference=reference)

    def objective(law: np.ndarray) -> float:
        weights = policy.occupancies(mdp, law)
        divergence = np.sum(weights * np.log(law / reference))
        return float(policy.value(mdp, law, theta)[0] - tau * divergence)

    best = objective(plan.policy[0])
    assert best == pytest.approx(plan.value[0], abs=EXACT)
    rng = np.random.default_rng(seed)
    for size in (1e-3, 1e-1):
        bent = plan.policy[0] * np.exp(size * rng.normal(size=reference.shape))
        bent /= bent.sum(axis=-1, keepdims=True)
        # the objective is strongly concave in the occupancy, so a step of size loses about size^2
        assert objective(bent) < best - 1e-3 * size**2


def test_a_small_temperature_gives_the_plain_optimum(small):
    mdp = small.mdp(4)
    theta = np.random.default_rng(0).normal(size=(3, 2, 2))
    plain = policy.optimal_policy(mdp, theta)
    soft = policy.optimal_policy(mdp, theta, temperature=1e-3)
    # a step's divergence from uniform is log A at most, so tau H log A bounds the price
    price = 1e-3 * np.log(mdp.n_actions) * mdp.horizon + EXACT
    assert np.all(np.abs(plain.value - soft.value) <= price)
    reached = policy.value(mdp, soft.policy, theta)
    assert np.all((reached <= plain.value + EXACT) & (reached >= plain.value - price))


# every shape is compiled
@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**20),
    states=st.integers(1, 4),
    actions=st.integers(1, 3),
    horizon=st.integers(1, 4),
)
def test_bellman_and_flow_identities(small, seed, states, actions, horizon):
    mdp = small.mdp(seed, states=states, actions=actions, horizon=horizon)
    theta = np.random.default_rng(seed).normal(size=(2, 2, 2))
    plan = policy.optimal_policy(mdp, theta)
    rewards = np.einsum("hsaij,nij->nhsa", mdp.features, theta)
    after = np.concatenate([plan.state_values[:, 1:], np.zeros((2, 1, states))], axis=1)
    onward = np.einsum("hsat,nht->nhsa", mdp.kernels, after[:, :-1])
    q = rewards + np.concatenate([onward, np.zeros((2, 1, states, actions))], axis=1)
    np.testing.assert_allclose(plan.state_values, q.max(axis=-1), atol=EXACT)
    np.testing.assert_allclose(np.sum(plan.policy * q, axis=-1), q.max(axis=-1), atol=EXACT)
    weights = policy.occupancies(mdp, small.policy(mdp, seed, users=2))
    np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1.0, atol=EXACT)
    arrived = np.einsum("nhsa,hsat->nht", weights[:, :-1], mdp.kernels)
    np.testing.assert_allclose(weights[:, 1:].sum(axis=3), arrived, atol=EXACT)
    # performance difference: the optimum's lead over any policy is its advantages' sum
    lead = plan.value - policy.value(mdp, small.policy(mdp, seed, users=2), theta)
    lost = np.sum(weights * (plan.state_values[..., None] - q), axis=(1, 2, 3))
    np.testing.assert_allclose(lead, lost, atol=EXACT)


def test_one_policy_serves_all_users_and_batches_change_nothing(small, monkeypatch):
    mdp = small.mdp(1, users=5)
    theta = np.random.default_rng(1).normal(size=(5, 2, 2))
    law = small.policy(mdp, 2)
    same = policy.value(mdp, np.broadcast_to(law, (5, *law.shape)), theta)
    np.testing.assert_allclose(policy.value(mdp, law, theta), same, atol=EXACT)
    shared = policy.occupancies(mdp, law)
    assert shared.shape == (5, 3, 3, 2)
    plan = policy.optimal_policy(mdp, theta)
    monkeypatch.setattr("simrlhf.policy.recursion._BATCH_NUMBERS", 12)  # two users at a time
    again = policy.optimal_policy(mdp, theta)
    np.testing.assert_allclose(again.state_values, plan.state_values, atol=EXACT)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: policy.value(m, p, np.ones((2, 3))), r"theta has shape \(1, 2, 3\)"),
        (lambda m, p: policy.value(m, p[0], np.ones((2, 2))), "policy has shape"),
        (lambda m, p: policy.value(m, np.stack([p] * 3), np.ones((2, 2, 2))), "there are 2 users"),
        (lambda m, _: policy.optimal_policy(m, np.full((2, 2), np.nan)), "not finite"),
        (lambda m, _: policy.optimal_policy(m, np.ones((2, 2)), temperature=-1), "at least 0"),
        (
            lambda m, p: policy.optimal_policy(m, np.ones((2, 2)), reference=p),
            "set temperature above 0",
        ),
        (lambda m, p: policy.occupancies(m, 2 * p), "sums to 2"),
    ],
)
def test_what_cannot_be_is_refused(small, call, message):
    mdp = small.mdp(0)
    with pytest.raises(InputError, match=message):
        call(mdp, small.policy(mdp, 0))
