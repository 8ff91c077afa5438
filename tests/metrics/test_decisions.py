"""Value gaps of fits, what the normal limit lets expect of them, designs of trajectories."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import simrlhf as sim
from simrlhf import policy, theory
from simrlhf.metrics import (
    coverage,
    decision_gaps,
    designs,
    efficiency_limits,
    full_limit,
    held_out,
    recovery,
)


def world_with(mdp: str = "bandit", **settings) -> sim.World:
    shape = {"n_states": 12, "n_actions": 2, "behaviour": "contrast"} | settings
    return sim.make_world(
        sim.WorldConfig(
            n_users=4,
            d1=5,
            rank=2,
            condition=1.3,
            features="trajectories",
            decision=sim.DecisionConfig(mdp=mdp, **shape),
        ),
        seed=3,
    )


def fitted(world: sim.World, n_pairs: int = 300, estimator: str = "share_b") -> sim.FitResult:
    sample = sim.sample_preferences(world, n_pairs, seed=1)
    return sim.fit(sample, estimator=estimator, rank=2, norm_bound=8.0)


def test_gaps_are_those_of_the_greedy_policies():
    world = world_with("garnet", n_states=6, horizon=3, n_actions=3, behaviour="uniform")
    result = fitted(world)
    found = decision_gaps(world, result, n_pairs=300)
    greedy = policy.optimal_policy(world.mdp, result.delta).policy
    gaps = policy.optimal_policy(world.mdp, world.theta).value - policy.value(
        world.mdp, greedy, world.theta
    )
    assert found["value_gap"] == pytest.approx(gaps.mean(), abs=1e-12)
    assert found["worst_gap"] == pytest.approx(gaps.max(), abs=1e-12)
    uniform = np.full((3, 6, 3), 1 / 3)
    random = policy.value(world.mdp, uniform, world.theta).mean()
    assert found["random_value"] == pytest.approx(random, abs=1e-12)
    assert found["random_value"] < found["optimal_value"]
    assert np.isnan(found["gap_limit"])  # three steps


def test_the_expected_gap_is_that_of_estimates_drawn_from_their_normal_limit():
    world = world_with(n_states=30)
    n = 400
    rng = np.random.default_rng(0)
    for estimator, kind in (("share_b", "joint"), ("oracle", "oracle"), ("full", "full")):
        result = fitted(world) if estimator == "share_b" else None
        result = dataclasses.replace(result or fitted(world), estimator=estimator)
        expected = decision_gaps(world, result, n_pairs=n)["gap_limit"]
        factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
        covariance = theory.reward_covariances(
            world.basis, factors, designs.informations(world), kind=kind
        )
        drawn = []
        for _ in range(120):
            errors = np.stack([rng.multivariate_normal(np.zeros(5), c / n) for c in covariance])
            guess = world.theta + errors[..., None]
            drawn.append(policy.value_gaps(world.mdp, world.theta, guess).mean)
        error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn) - expected) < 4 * error, estimator
        assert error < 0.15 * expected


@pytest.mark.parametrize("shared_start", [True, False])
def test_informations_of_a_bandit_are_those_of_its_drawn_pairs(shared_start):
    world = world_with(behaviour="uniform", shared_start=shared_start)
    sample = sim.sample_preferences(world, 20_000, seed=5)
    exact = designs.informations(world)
    for user in range(2):
        x = sample.features[sample.user(user)].reshape(-1, 5)
        information = np.asarray(world.link.information(x @ world.theta[user].ravel()))
        terms = information[:, None, None] * x[:, :, None] * x[:, None, :]
        error = terms.std(axis=0, ddof=1) / np.sqrt(len(x))
        # fifteen numbers for each of two users
        assert np.max(np.abs(terms.mean(axis=0) - exact[user]) / error) < 4.5


def test_limits_of_trajectories_come_from_the_listed_pairs():
    world = world_with(n_states=40)
    found = efficiency_limits(world)
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    given = (world.basis, factors, designs.informations(world))
    assert found.subspace == pytest.approx(theory.subspace_limit(*given).value)
    sigma = policy.pair_moments(world.mdp, world.behaviours)
    for name, kind in (("share_b", "joint"), ("oracle", "oracle")):
        traces = np.trace(sigma @ theory.reward_covariances(*given, kind=kind), axis1=1, axis2=2)
        assert getattr(found, name) == pytest.approx(traces.mean())
    assert full_limit(world) == pytest.approx(
        np.trace(sigma @ np.linalg.inv(given[2]), axis1=1, axis2=2).mean()
    )
    assert found.oracle < found.share_b < full_limit(world)


def test_limits_are_nan_where_nothing_is_known():
    several = world_with("garnet", n_states=6, horizon=3, behaviour="uniform")
    blind = world_with(coverage=0.0)  # action 0 is compared with action 0 alone
    for world in (several, blind):
        assert all(np.isnan(efficiency_limits(world)))
        assert np.isnan(full_limit(world))
        assert np.isnan(decision_gaps(world, fitted(several), n_pairs=300)["gap_limit"])
    with pytest.raises(sim.InputError, match="no exact information"):
        designs.informations(several)


def test_errors_of_rewards_are_under_the_pairs_that_are_drawn():
    world = world_with()
    result = fitted(world)
    x = sim.sample_preferences(world, 40_000, seed=9)
    error = np.einsum("jab,jab->j", x.features, (result.delta - world.delta)[x.users])
    squares = error**2
    noise = squares.std() / np.sqrt(squares.size)
    assert abs(recovery(world, result)["reward_error"] ** 2 - squares.mean()) < 4 * noise


def test_held_out_loss_and_coverage_draw_trajectories_too():
    world = world_with()
    sample = sim.sample_preferences(world, 300, seed=1)
    result = sim.fit(sample, rank=2, norm_bound=8.0)
    assert 0.0 < held_out(world, result)["held_out_excess"] < 0.1
    found = coverage(world, sample, result, n_features=100)
    # one fit: its errors are shared, so this is not binomial
    assert 0.7 < found["coverage"] <= 1.0


def test_a_world_without_decisions_is_refused():
    world = sim.make_world(sim.WorldConfig(n_users=3, d1=4, rank=1))
    result = fitted(world_with())
    with pytest.raises(sim.InputError, match="no decision problem"):
        decision_gaps(world, result, n_pairs=50)
