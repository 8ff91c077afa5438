"""Loss on fresh pairs: its limit L3, and what a wrong truth would give."""

import dataclasses

import numpy as np
import pytest

import simrlhf as sim
from simrlhf.metrics import held_out


@pytest.fixture(scope="module")
def case() -> tuple[sim.World, sim.FitResult]:
    world = sim.make_world(sim.WorldConfig(n_users=5, d1=7, d2=2, rank=2, base_norm=1.0), seed=1)
    prefs = sim.sample_preferences(world, 400, seed=2)
    return world, sim.fit(prefs, rank=2, norm_bound=8.0, theta_init=world.theta_init)


def test_the_truth_has_no_excess_and_every_other_reward_has(case) -> None:
    world, result = case
    exact = dataclasses.replace(result, delta=world.delta)
    assert held_out(world, exact)["held_out_excess"] == 0.0
    assert held_out(world, result)["held_out_excess"] > 1e-3
    # users exchanged: the labels are those of the right user
    wrong = dataclasses.replace(result, delta=world.delta[::-1])
    assert held_out(world, wrong)["held_out_excess"] > 0.05


def test_the_excess_is_about_that_of_an_efficient_fit(case) -> None:
    world, result = case
    p = sim.theory.parameter_count("share_b", n_users=5, d1=7, d2=2, rank=2)
    limit = p / (2 * 5 * 400)
    # chi-square of p degrees over 2 N n: relative spread sqrt(2 / p) = .26, times three
    assert held_out(world, result)["held_out_excess"] == pytest.approx(limit, rel=0.8)
    # the rival counts the parameters of the full model: it would lie outside
    assert abs(limit - 70 / (2 * 5 * 400)) > 0.8 * limit


def test_for_regression_the_excess_is_half_the_squared_reward_error_over_the_noise() -> None:
    world = sim.make_world(sim.WorldConfig(n_users=4, d1=6, rank=2, link="identity", noise=0.5))
    prefs = sim.sample_preferences(world, 50, seed=2)
    result = sim.fit(prefs, rank=2)
    error = np.mean(np.sum((result.delta - world.delta) ** 2, axis=(1, 2)))
    # 800 fresh pairs of squares with relative variance 2: a standard error of 5 %, times four
    assert held_out(world, result)["held_out_excess"] == pytest.approx(error / (2 * 0.25), rel=0.2)
