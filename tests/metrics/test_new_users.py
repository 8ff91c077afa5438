"""Errors, lost values, limits and bounds of new users, each computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

import simrlhf as sim
from simrlhf import policy, theory
from simrlhf.metrics import Arrival, designs, new_user_bounds, new_user_errors, new_user_gaps

N_OLD, R = 5, 8.0


def world_with(**settings) -> sim.World:
    """Five old users and two new ones."""
    shape = {"n_users": N_OLD + 2, "d1": 5, "rank": 2, "condition": 1.3} | settings
    return sim.make_world(sim.WorldConfig(**shape), seed=3)


def bandit(**settings) -> sim.World:
    decision = {"n_states": 30, "n_actions": 2, "behaviour": "contrast"} | settings
    return world_with(features="trajectories", decision=sim.DecisionConfig(**decision))


def arrive(world: sim.World, estimator: str = "share_b", *, old: int = 200, new: int = 60):
    sample = sim.sample_preferences(world, np.repeat([old, new], [N_OLD, 2]), seed=1)
    is_new = np.arange(N_OLD + 2) >= N_OLD
    theirs = sample.of_users(is_new)
    if estimator == "share_b":
        first = sim.fit(sample.of_users(~is_new), rank=2, norm_bound=R)
        result = sim.adapt_users(first, theirs)
    else:
        basis = world.basis if estimator == "oracle" else None
        rank = None if estimator == "oracle" else 2
        result = sim.fit(theirs, estimator=estimator, rank=rank, basis=basis, norm_bound=R)
    return Arrival(
        world=world, estimator=estimator, n_old=N_OLD, old_pairs=old, n_pairs=new,
        preferences=theirs, result=result,
    )  # fmt: skip


def test_errors_are_those_of_the_new_users_under_the_pairs_they_draw():
    gaussian = arrive(world_with())
    errors = gaussian.result.delta - gaussian.world.delta[N_OLD:]
    found = new_user_errors(gaussian)
    assert found["reward_error"] == pytest.approx(np.sqrt((errors**2).sum(axis=(1, 2)).mean()))
    sizes = (gaussian.world.delta[N_OLD:] ** 2).sum(axis=(1, 2)).mean()
    assert found["relative_error"] == pytest.approx(found["reward_error"] / np.sqrt(sizes))
    drawn = arrive(bandit())
    x = sim.sample_preferences(drawn.world, 40_000, seed=9).of_users(np.arange(7) >= N_OLD)
    error = drawn.result.delta - drawn.world.delta[N_OLD:]
    squares = np.einsum("jab,jab->j", x.features, error[x.users]) ** 2
    noise = squares.std() / np.sqrt(squares.size)
    assert abs(new_user_errors(drawn)["reward_error"] ** 2 - squares.mean()) < 4 * noise


def test_gaps_are_those_of_the_new_users_choices_written_out():
    arrival = arrive(bandit())
    mdp = arrival.world.mdp
    gaps, random = [], []
    for truth, guess in zip(arrival.world.theta[N_OLD:], arrival.estimate, strict=True):
        true, seen = (np.tensordot(mdp.features[0], m, 2) for m in (truth, guess))
        taken = true[np.arange(30), seen.argmax(axis=1)]
        gaps.append(mdp.initial @ (true.max(axis=1) - taken))
        random.append(mdp.initial @ true.mean(axis=1))
    found = new_user_gaps(arrival)
    assert found["value_gap"] == pytest.approx(np.mean(gaps), abs=1e-12)
    assert found["worst_gap"] == pytest.approx(np.max(gaps), abs=1e-12)
    assert found["random_value"] == pytest.approx(np.mean(random), abs=1e-12)


def test_users_with_contexts_of_their_own_keep_them():
    config = sim.DecisionConfig(mdp="margin", n_states=140, n_actions=2, behaviour="contrast")
    world = world_with(features="trajectories", d1=4, decision=config)
    assert world.mdp.initial.ndim == 2
    arrival = arrive(world, "full")
    everyone = world.theta.copy()
    everyone[N_OLD:] = arrival.estimate
    gaps = policy.value_gaps(world.mdp, world.theta, everyone).gaps
    assert new_user_gaps(arrival)["value_gap"] == pytest.approx(gaps[N_OLD:].mean())
    assert gaps[:N_OLD] == pytest.approx(0.0)


def test_limits_are_those_of_theory_and_the_expected_gap_is_that_of_draws_from_them():
    world = bandit()
    found = designs.informations(world)
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    sigma = policy.pair_moments(world.mdp, world.behaviours)
    given = [
        theory.new_user_limit(
            world.basis, factors[:N_OLD], found[:N_OLD], factor=factors[user],
            information=found[user], covariance=sigma, n_pairs=200, new_pairs=60,
        )
        for user in (5, 6)
    ]  # fmt: skip
    expected = {
        "share_b": np.mean([limit.value for limit in given]),
        "oracle": np.mean([limit.terms["own"] for limit in given]),
        "full": np.mean([np.trace(sigma @ np.linalg.inv(found[u])) for u in (5, 6)]) / 60,
    }
    for name, value in expected.items():
        bounds = new_user_bounds(arrive(world, name))
        assert bounds["reward_limit"] ** 2 == pytest.approx(value)
    random = np.random.default_rng(0)
    gap = new_user_gaps(arrive(world, "full"))["gap_limit"]
    drawn = []
    for _ in range(400):
        guess = world.theta.copy()
        for user in (5, 6):
            covariance = np.linalg.inv(found[user]) / 60
            guess[user, :, 0] += random.multivariate_normal(np.zeros(5), covariance)
        drawn.append(policy.value_gaps(world.mdp, world.theta, guess).gaps[N_OLD:].mean())
    assert abs(np.mean(drawn) - gap) < 4 * np.std(drawn) / 20


def test_there_is_no_limit_outside_of_the_class():
    tailed = world_with(tail=0.3)
    assert np.isnan(new_user_bounds(arrive(tailed))["reward_limit"])
    assert np.isfinite(new_user_bounds(arrive(tailed, "full"))["reward_limit"])
    assert "s6" not in new_user_bounds(arrive(tailed, "full"))
    flipped = arrive(world_with(link="label_flip"))
    assert np.isnan(new_user_bounds(flipped)["s6"])


@pytest.mark.parametrize("new", [60, 600])
def test_s6_is_its_formula_pair_by_pair_and_holds(new):
    arrival = arrive(world_with(tail=0.2), new=new)
    world, basis = arrival.world, arrival.result.basis
    sine = np.linalg.norm((np.eye(5) - basis @ basis.T) @ world.basis, 2)
    log, squares = np.log(2 / 0.05), []
    for user in range(2):
        truth, fit = world.delta[N_OLD + user, :, 0], arrival.result.delta[user, :, 0]
        x = arrival.preferences.features[arrival.preferences.user(user)][:, :, 0]
        start = basis @ basis.T @ truth
        slopes = [expit(x @ end) * expit(-x @ end) for end in (start, fit)]
        z = x @ basis
        curved = sum(c * np.outer(row, row) for c, row in zip(np.minimum(*slopes), z, strict=True))
        s = z.T @ z
        form = np.trace(s) + 2 * np.sqrt(np.trace(s @ s) * log) + 2 * np.linalg.norm(s, 2) * log
        bent = 0.25 * np.linalg.norm(z, 2) * np.linalg.norm(x @ (truth - start))
        inside = (0.5 * np.sqrt(form) + bent) / np.linalg.eigvalsh(curved)[0]
        own = world.basis.T @ truth
        missed = sine * np.linalg.norm(own) + np.linalg.norm(truth - world.basis @ own)
        squares.append(min(inside**2 + missed**2, 4 * R**2))
    found = new_user_bounds(arrival)
    assert found["s6"] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-9)
    assert found["largest_sine"] == pytest.approx(sine)
    assert found["s6_ceiling"] == pytest.approx(2 * R)
    assert new_user_errors(arrival)["reward_error"] < found["s6"] < 2 * R


def test_with_fewer_pairs_than_factors_s6_says_nothing():
    found = new_user_bounds(arrive(world_with(), new=1))
    assert found["s6"] == pytest.approx(found["s6_ceiling"])
