"""Generators of decision problems, and worlds that have one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from simrlhf.core.checks import InputError
from simrlhf.world import MDP, Behaviours, DecisionConfig, WorldConfig, make_world

SHAPES = {
    "garnet": {"n_states": 12, "n_actions": 3, "horizon": 4, "branching": 2},
    "chain": {"n_states": 5, "n_actions": 2, "horizon": 7},
    "grid": {"n_states": 9, "n_actions": 4, "horizon": 6},
    "bandit": {"n_states": 40, "n_actions": 5},
    "margin": {"n_states": 80},
}


def world_with(mdp: str, *, d2: int = 1, **settings):
    decision = DecisionConfig(mdp=mdp, **SHAPES.get(mdp, {}) | settings)
    return make_world(WorldConfig(n_users=8, d1=6, d2=d2, rank=2, decision=decision), seed=3)


@pytest.mark.parametrize("mdp", SHAPES)
def test_every_generator_gives_the_sizes_asked_for(mdp):
    world = world_with(mdp, d2=2)
    asked = world.config.decision
    assert (world.mdp.horizon, world.mdp.n_states, world.mdp.n_actions) == (
        asked.horizon,
        asked.n_states,
        asked.n_actions,
    )
    assert world.mdp.reward_shape == (6, 2)
    np.testing.assert_array_equal(world.mdp.features, world_with(mdp, d2=2).mdp.features)


def test_the_rewards_do_not_depend_on_the_decision_problem():
    plain = make_world(WorldConfig(n_users=8, d1=6, rank=2), seed=3)
    np.testing.assert_array_equal(plain.delta, world_with("garnet").delta)
    assert plain.mdp is None


def test_a_garnet_has_as_many_successors_as_it_branches():
    kernels = world_with("garnet").mdp.kernels
    np.testing.assert_array_equal((kernels > 0).sum(axis=-1), 2)
    # Dirichlet weights of two successors are uniform on [0, 1]
    larger = np.sort(kernels, axis=-1)[..., -1].ravel()
    assert scipy.stats.kstest(larger, scipy.stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3


def test_a_chain_moves_right_and_left_and_slips():
    kernel = world_with("chain", slip=0.2).mdp.kernels[0]
    np.testing.assert_allclose(kernel[2, 1], [0, 0.1, 0, 0.9, 0])
    np.testing.assert_allclose(kernel[2, 0], [0, 0.9, 0, 0.1, 0])
    np.testing.assert_allclose(kernel[4, 1], [0, 0, 0, 0.1, 0.9])


def test_a_grid_has_walls():
    kernel = world_with("grid", slip=0.0).mdp.kernels[0]
    np.testing.assert_array_equal(kernel[4].argmax(axis=-1), [1, 7, 3, 5])
    np.testing.assert_array_equal(kernel[0].argmax(axis=-1), [0, 3, 0, 1])


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_margins_have_the_exponent_asked_for_and_every_user_contexts_of_his_own(alpha):
    world = world_with("margin", n_states=4000, margin_exponent=alpha, margin_scale=0.7)
    differences = world.mdp.flat_features[0, :, 1] - world.mdp.flat_features[0, :, 0]
    theta = world.theta.reshape(8, -1)
    for user in range(8):
        mine = world.mdp.initial[user] > 0
        assert mine.sum() == 500
        margins = differences[mine] @ theta[user]
        law = scipy.stats.kstest(np.abs(margins), lambda t: (t / 0.7) ** alpha)
        assert law.statistic < 1.1 / 500  # quantiles, not a sample
        assert 200 < (margins > 0).sum() < 300
        across = differences[mine] - np.outer(margins, theta[user]) / (theta[user] @ theta[user])
        np.testing.assert_allclose(across @ theta[user], 0.0, atol=1e-12)
        assert np.trace(across.T @ across) / 500 == pytest.approx(5.0, rel=0.15)


def test_the_lower_bound_has_equal_gaps_of_random_sign_in_every_context():
    decision = DecisionConfig(mdp="lower_bound", n_states=5, behaviour="careful", coverage=0.25)
    config = WorldConfig(
        n_users=16, d1=5, rank=5, nu=0.09, condition=1.0, population="signs", decision=decision
    )
    world = make_world(config, seed=1)
    rewards = np.einsum("hsaij,nij->nsa", world.mdp.features, world.theta)
    np.testing.assert_allclose(rewards[..., 0], 0.0)
    np.testing.assert_allclose(np.abs(rewards[..., 1]), 0.3, rtol=1e-12)
    assert len({tuple(row) for row in np.sign(rewards[..., 1])}) > 8
    np.testing.assert_allclose(world.singular_values, np.sqrt(16 * 0.09))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mdp": "garnett"}, "did you mean 'garnet'"),
        ({"mdp": "bandit", "horizon": 3}, "has one step, got horizon = 3"),
        ({"mdp": "grid", "n_states": 10, "n_actions": 4}, "must be a square"),
        ({"mdp": "chain", "n_actions": 3}, "has 2 actions, got n_actions = 3"),
        ({"mdp": "chain", "n_states": 5, "horizon": 4}, "needs horizon = 5 at least, got 4"),
        (
            {"mdp": "grid", "n_states": 9, "n_actions": 4, "horizon": 4},
            "needs horizon = 5 at least, got 4: its last state cannot be reached",
        ),
        ({"mdp": "garnet", "n_states": 3, "branching": 4}, "at most n_states = 3"),
        (
            {"mdp": "garnet", "n_states": 2000, "n_actions": 4, "horizon": 20},
            r"take 304,000,000 numbers, above the limit 134,217,728 \(1 GB\)",
        ),
        ({"n_actions": 1, "behaviour": "contrast"}, "needs two actions or more, got n_actions = 1"),
        ({"coverage": 1.5}, r"coverage = 1\.5 must be at most 1"),
        ({"shared_start": 1}, "shared_start must be true or false"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        DecisionConfig(**settings)


@pytest.mark.parametrize(
    ("decision", "more", "message"),
    [
        (None, {"features": "trajectories"}, "needs a decision problem"),
        ({"mdp": "margin", "n_states": 81}, {}, "n_states = 81 to be a multiple of N = 8"),
        ({"mdp": "texts"}, {"d2": 2}, "has features of d2 = 1, got d2 = 2"),
        ({"behaviour": "expert"}, {}, "set base_norm above 0"),
        ({"mdp": "lower_bound", "n_states": 3}, {}, "one context for each of k = 2"),
        ({"mdp": "given"}, {}, r"needs make_world\(config, mdp=\.\.\.\)"),
        ({"mdp": "texts"}, {}, "for instance prompt_bandit"),
    ],
)
def test_worlds_whose_decisions_cannot_be_are_refused(decision, more, message):
    chosen = None if decision is None else DecisionConfig(**decision)

    def world() -> None:
        make_world(WorldConfig(n_users=8, d1=6, rank=2, decision=chosen, **more))

    with pytest.raises(InputError, match=message):
        world()


def test_your_own_mdp_must_fit_the_rewards():
    config = WorldConfig(n_users=8, d1=6, rank=2, decision=DecisionConfig(mdp="given"))
    own = MDP.bandit(np.ones((4, 3, 6, 1)))
    assert make_world(config, mdp=own).mdp is own
    with pytest.raises(InputError, match=r"features have shape \(5, 1\).*rewards \(6, 1\)"):
        make_world(config, mdp=MDP.bandit(np.ones((4, 3, 5, 1))))
    with pytest.raises(InputError, match="the config makes its own"):
        make_world(WorldConfig(n_users=8, d1=6, rank=2, decision=DecisionConfig()), mdp=own)
    with pytest.raises(InputError, match="the config has no decision problem"):
        make_world(WorldConfig(n_users=8, d1=6, rank=2), mdp=own)


def test_your_own_behaviours_take_the_place_of_the_configs():
    config = WorldConfig(n_users=8, d1=6, rank=2, decision=DecisionConfig(n_states=4))
    first, second = np.full((1, 4, 2), 0.5), np.zeros((1, 4, 2))
    second[..., 1] = 1.0
    own = Behaviours(first, second, shared_start=False)
    assert make_world(config, behaviours=own).behaviours is own
    with pytest.raises(InputError, match=r"second has shape \(4, 2\)"):
        make_world(config, behaviours=Behaviours(first, second[0]))
    with pytest.raises(InputError, match="the config has no decision problem"):
        make_world(WorldConfig(n_users=8, d1=6, rank=2), behaviours=own)


def test_signs_need_a_hadamard_matrix():
    with pytest.raises(InputError, match="N a power of two"):
        WorldConfig(n_users=12, d1=6, rank=2, population="signs", condition=1.0)
    with pytest.raises(InputError, match="needs condition = 1, got 2"):
        WorldConfig(n_users=8, d1=6, rank=2, population="signs")
