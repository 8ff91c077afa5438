"""Confidence sets around fits, and the policies that are pessimistic over them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import simrlhf as sim
from simrlhf import policy, theory
from simrlhf.metrics import (
    SET_KINDS,
    decision_gaps,
    designs,
    fit_sets,
    pessimistic_gaps,
    sets_and_gaps,
)


def expert_world(coverage: float, *, seed: int = 0) -> sim.World:
    """Five prompts, ten actions; data of a model that is good for most already."""
    decision = sim.DecisionConfig(
        mdp="bandit",
        n_states=5,
        n_actions=10,
        behaviour="expert",
        coverage=coverage,
        shared_start=False,
    )
    config = sim.WorldConfig(
        n_users=8,
        d1=20,
        rank=2,
        nu=0.3,
        condition=1.5,
        base_norm=3.0,
        features="trajectories",
        decision=decision,
    )
    return sim.make_world(config, seed=seed)


def fitted(world: sim.World, n_pairs: int, estimator: str = "share_b", seed: int = 0):
    sample = sim.sample_preferences(world, n_pairs, seed=seed)
    settings = {"basis": world.basis} if estimator == "oracle" else {"rank": 2}
    return sample, sim.fit(
        sample, estimator=estimator, norm_bound=4.0, theta_init=world.theta_init, **settings
    )


@pytest.mark.slow
def test_pessimism_pays_where_the_comparisons_cover_little_and_costs_where_they_cover_all():
    leads = {}
    for coverage in (0.02, 1.0):
        differences = []
        for seed in range(6):
            world = expert_world(coverage, seed=seed)
            sample, result = fitted(world, 150, seed=seed)
            greedy = decision_gaps(world, result, n_pairs=150)["value_gap"]
            differences.append(greedy - pessimistic_gaps(world, sample, result)["pessimistic_gap"])
        leads[coverage] = np.mean(differences) / (np.std(differences, ddof=1) / np.sqrt(6))
    # standard errors of a paired difference
    assert leads[0.02] > 3.0
    assert leads[1.0] < -3.0


def test_gaps_are_those_of_the_pessimistic_policies():
    world = expert_world(0.3)
    sample, result = fitted(world, 200)
    found = pessimistic_gaps(world, sample, result)
    sets = fit_sets(sample, result)
    plan = policy.pessimistic_policy(world.mdp, sets, reference=world.behaviours.second, tol=1e-4)
    best = policy.optimal_policy(world.mdp, world.theta).value
    gaps = best - policy.value(world.mdp, plan.policy, world.theta)
    assert found["pessimistic_gap"] == pytest.approx(gaps.mean(), abs=1e-9)
    assert found["pessimistic_worst_gap"] == pytest.approx(gaps.max(), abs=1e-9)
    assert found["set_coverage"] == sets.holds(world.theta).mean()
    assert 0.0 <= found["largest_certificate"] <= 1e-4


def test_every_kind_of_set_has_its_coverage_and_its_gap():
    world = expert_world(0.3)
    sample, result = fitted(world, 100)
    row = sets_and_gaps(world, sample, result)
    assert {name.removeprefix("pessimistic_gap_") for name in row if "_gap_" in name} == {
        *SET_KINDS
    }
    assert (
        row["pessimistic_gap_fisher"] == pessimistic_gaps(world, sample, result)["pessimistic_gap"]
    )
    for kind in ("fisher", "ball_explicit"):
        for level in (50, 99):
            sets = fit_sets(sample, result, kind=kind, confidence=level / 100)
            assert row[f"covered_{kind}_{level}"] == sets.holds(world.theta).mean()
    assert row["covered_ball_explicit_50"] == row["all_covered_ball_explicit"] == 1.0
    assert row["covered_likelihood_99"] == 0.0  # around a fitted basis
    assert not any("covered" in name and "oracle" in name for name in row)


def test_sets_have_the_covariance_of_the_limit_where_there_are_many_pairs():
    decision = sim.DecisionConfig(mdp="bandit", n_states=12, behaviour="contrast")
    config = sim.WorldConfig(n_users=4, d1=4, rank=2, features="trajectories", decision=decision)
    world = sim.make_world(config, seed=2)
    n = 20_000
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    for estimator, kind in (("share_b", "joint"), ("full", "full")):
        sample = sim.sample_preferences(world, n, seed=1)
        result = sim.fit(sample, estimator=estimator, rank=2, norm_bound=6.0)
        sets = fit_sets(sample, result)
        found = n * sets.root @ sets.root.swapaxes(1, 2)
        exact = theory.reward_covariances(
            world.basis, factors, designs.informations(world), kind=kind
        )
        # informations of 20,000 pairs, at a fit that is off by as many
        np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())


@pytest.mark.slow
def test_nominal_and_actual_coverage_agree_with_many_pairs():
    inside, narrow = [], []
    for seed in range(60):
        decision = sim.DecisionConfig(mdp="bandit", n_states=12, behaviour="contrast")
        config = sim.WorldConfig(
            n_users=8,
            d1=4,
            rank=2,
            condition=1.3,
            user_norms="equal",
            features="trajectories",
            decision=decision,
        )
        world = sim.make_world(config, seed=seed)
        sample = sim.sample_preferences(world, 1500, seed=seed)
        result = sim.fit(sample, rank=2, norm_bound=8.0)
        inside.append(fit_sets(sample, result, confidence=0.9).holds(world.theta).mean())
        narrow.append(fit_sets(sample, result, confidence=0.6).holds(world.theta).mean())
    error = np.std(inside, ddof=1) / np.sqrt(60)
    assert np.mean(inside) == pytest.approx(0.9, abs=4.0 * error)
    assert error < 0.03
    assert np.mean(narrow) < 0.9 - 4.0 * error


def test_what_has_no_set_is_said():
    world = expert_world(0.3)
    sample, result = fitted(world, 200)
    other = dataclasses.replace(result, estimator="global")
    with pytest.raises(sim.InputError, match="global has no covariance here; sets are known of"):
        fit_sets(sample, other)
    plain = dataclasses.replace(world, mdp=None, behaviours=None)
    with pytest.raises(sim.InputError, match="no decision problem"):
        pessimistic_gaps(plain, sample, result)
