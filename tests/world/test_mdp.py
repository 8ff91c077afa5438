"""MDPs: what is refused, and the bandit as the case H = 1."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.world import MDP, Behaviours
from simrlhf.world.behaviours import make_behaviours

S, A, H = 3, 2, 3


def parts(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of a small MDP, some of them replaced."""
    kernels = np.full((H - 1, S, A, S), 1.0 / S)
    features = np.arange(H * S * A * 2.0).reshape(H, S, A, 2, 1)
    return {"initial": np.full(S, 1.0 / S), "kernels": kernels, "features": features} | changes


def changed(name: str, place: tuple, number: float) -> dict[str, np.ndarray]:
    arrays = parts()
    arrays[name][place] = number
    return arrays


def test_sizes_are_read_off_the_features():
    mdp = MDP(**parts())
    assert (mdp.horizon, mdp.n_states, mdp.n_actions, mdp.reward_shape) == (H, S, A, (2, 1))
    np.testing.assert_array_equal(mdp.flat_features[2, 1, 0], mdp.features[2, 1, 0].ravel())


def test_a_bandit_has_one_step_and_uniform_contexts():
    bandit = MDP.bandit(np.ones((4, 3, 2, 2)))
    assert bandit.horizon == 1
    np.testing.assert_array_equal(bandit.initial, np.full(4, 0.25))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (changed("kernels", (1, 2, 0, 1), 0.5), r"kernels\[1, 2, 0, :\] sums to 1\.1666.*divide"),
        (changed("kernels", (0, 1, 1, 2), -0.1), r"kernels\[0, 1, 1, 2\] = -0\.1 is negative"),
        (changed("initial", (0,), 0.5), r"initial\[:\] sums to 1\.1666"),
        (
            changed("features", (0, 0, 0, 0, 0), np.nan),
            "features holds 1 values that are not finite",
        ),
        (parts(kernels=np.full((H, S, A, S), 1 / S)), r"kernels has shape .*\(H - 1, S, A, S\)"),
        (parts(features=np.ones((H, S, A, 2))), r"features has shape .*\(H, S, A, d1, d2\)"),
        (parts(initial=np.full(S + 1, 0.25)), "initial has shape"),
    ],
)
def test_arrays_that_are_no_mdp_are_refused_in_one_line(arrays, message):
    with pytest.raises(InputError, match=message) as caught:
        MDP(**arrays)
    assert "\n" not in str(caught.value)


def test_a_state_that_is_never_reached_is_named():
    kernels = np.zeros((H - 1, S, A, S))
    kernels[..., 0] = 1.0
    stuck = parts(initial=np.array([0.0, 1.0, 0.0]), kernels=kernels)
    with pytest.raises(InputError, match=r"1 of 3 states \(the first is 2\) cannot be reached"):
        MDP(**stuck)
    kernels[1, 0, 1] = [0.0, 0.0, 1.0]  # one action at the last transition leads there
    assert MDP(**stuck).n_states == S


def test_a_policy_of_the_wrong_shape_or_law_is_refused():
    mdp = MDP(**parts())
    with pytest.raises(InputError, match=r"policy has shape \(3, 2\).*\(H, S, A\)"):
        mdp.require_policy("policy", np.ones((S, A)))
    with pytest.raises(InputError, match=r"policy\[0, 0, :\] sums to 2"):
        mdp.require_policy("policy", np.ones((H, S, A)))
    one = np.full((4, H, S, A), 0.5)
    with pytest.raises(InputError, match="one policy for all users"):
        Behaviours(one, one).require_of(mdp)


def test_users_with_first_states_of_their_own_are_counted():
    mdp = MDP(**parts(initial=np.eye(S)))
    np.testing.assert_array_equal(mdp.initial_of(3), np.eye(S))
    with pytest.raises(InputError, match="first states of 3 users, and there are 4"):
        mdp.initial_of(4)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("uniform", [0.8, 0.1, 0.1], [0.8, 0.1, 0.1]),
        ("contrast", [0.7, 0.15, 0.15], [1.0, 0.0, 0.0]),
        ("careful", [0.7, 0.15, 0.15], [1.0, 0.0, 0.0]),
    ],
)
def test_coverage_is_the_weight_beside_the_first_action(kind, first, second):
    mdp = MDP.bandit(np.ones((2, 3, 2, 1)))
    found = make_behaviours(mdp, kind, coverage=0.3, shared_start=True)
    np.testing.assert_allclose(found.first[0, 1], first, atol=1e-15)
    np.testing.assert_allclose(found.second[0, 1], second, atol=1e-15)
    alone = make_behaviours(mdp, kind, coverage=0.0, shared_start=True)
    np.testing.assert_array_equal(alone.first[0, 0], [1.0, 0.0, 0.0])


def test_an_expert_takes_the_best_action_under_the_base_reward():
    features = np.zeros((2, 3, 2, 1))
    features[0, 2, 0], features[1, 1, 0] = 1.0, 1.0
    mdp = MDP.bandit(features)
    base = np.array([[1.0], [0.0]])
    found = make_behaviours(mdp, "expert", coverage=0.3, shared_start=False, base=base)
    np.testing.assert_allclose(found.first[0], [[0.1, 0.1, 0.8], [0.1, 0.8, 0.1]], atol=1e-15)
    np.testing.assert_array_equal(found.first, found.second)
    with pytest.raises(InputError, match="set base_norm above 0"):
        make_behaviours(mdp, "expert", coverage=0.3, shared_start=False, base=0.0 * base)
