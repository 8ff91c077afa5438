"""Value gaps of greedy policies against values of the policies themselves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simrlhf import policy
from simrlhf.core.checks import InputError


@given(seed=st.integers(0, 2**20), horizon=st.integers(1, 4), own=st.booleans())
def test_the_gap_is_the_optimum_minus_the_value_of_the_greedy_policy(small, seed, horizon, own):
    mdp = small.mdp(seed, horizon=horizon, users=3 if own else 0)
    rng = np.random.default_rng(seed)
    theta, estimate = rng.normal(size=(2, 3, 2, 2))
    found = policy.value_gaps(mdp, theta, estimate)
    best = policy.optimal_policy(mdp, theta).value
    greedy = policy.value(mdp, policy.optimal_policy(mdp, estimate).policy, theta)
    np.testing.assert_allclose(found.optimal, best, atol=1e-10)
    np.testing.assert_allclose(found.greedy, greedy, atol=1e-10)
    assert np.all(found.gaps >= -1e-12)
    assert found.worst == found.gaps.max()
    assert found.mean == pytest.approx(found.gaps.mean())


def test_a_positive_multiple_of_the_truth_loses_nothing_and_its_negative_all(small):
    mdp = small.mdp(0, users=2)
    theta = np.random.default_rng(0).normal(size=(2, 2, 2))
    assert policy.value_gaps(mdp, theta, 3.0 * theta).worst == pytest.approx(0.0, abs=1e-12)
    worst = -policy.optimal_policy(mdp, -theta).value
    np.testing.assert_allclose(policy.value_gaps(mdp, theta, -theta).greedy, worst, atol=1e-10)


def test_estimates_of_other_users_are_refused(small):
    mdp = small.mdp(0)
    with pytest.raises(InputError, match=r"estimate has shape \(2, 4\), expected \(3, 4\)"):
        policy.value_gaps(mdp, np.ones((3, 2, 2)), np.ones((2, 2, 2)))
