"""What the classes say of themselves where there is no best fit, or the search was cut."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, adapt_users, fit


@pytest.fixture(scope="module")
def common(wide):
    """One direction that is right for every pair of every user."""
    prefs = wide.prefs
    return prefs.relabelled((prefs.features[:, 0, 0] > 0).astype(float))


@pytest.mark.parametrize("settings", [{"ridge": 1.0}, {"norm_bound": 1.0}])
def test_a_common_part_that_nothing_holds_is_separated_whatever_holds_the_users(
    wide, common, settings
):
    cut = {"max_iterations": 40}
    assert fit(common, "global_plus_local", rank=2, **cut, **settings).status is (
        FitStatus.SEPARATED
    )
    # users of many minds are not: their labels have no common direction
    result = fit(wide.prefs, "global_plus_local", rank=2, **cut, **settings)
    assert result.status is FitStatus.CONVERGED


def test_one_vertex_is_separated_only_where_it_is_right_for_all(wide, common):
    assert fit(common, "simplex", rank=1, max_iterations=40).status is FitStatus.SEPARATED
    # a user of two pairs that agree with the common fit does not separate it
    pooled = fit(wide.prefs, "simplex", rank=1)
    agrees = (pooled.rewards(0, wide.prefs.features) > 0) == (wide.prefs.labels > 0.5)
    place = np.flatnonzero(agrees & (wide.prefs.users == 0))[:2]
    keep = (wide.prefs.users > 0) | np.isin(np.arange(wide.prefs.n_total), place)
    few = wide.prefs.reweighted(keep.astype(float))
    result = fit(few, "simplex", rank=1)
    assert (result.rewards(0, few.features[place]) > 0).tolist() == (few.labels[place] > 0).tolist()
    assert result.status is FitStatus.CONVERGED


def test_a_search_that_is_cut_does_not_call_itself_converged():
    random = np.random.default_rng(0)
    prefs = Preferences(
        features=random.normal(size=(30, 8, 3)), labels=random.integers(0, 2, size=(30, 8)) * 1.0
    )
    whole = fit(prefs, "cluster", rank=3, ridge=1.0)
    cut = fit(prefs, "cluster", rank=3, ridge=1.0, max_iterations=1)
    assert whole.status is FitStatus.CONVERGED
    assert cut.status is FitStatus.MAX_ITERATIONS
    assert cut.gradient_norm > 1e-6 > whole.gradient_norm


def test_users_with_the_same_answers_share_a_cluster():
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 30, 3))
    y = (np.einsum("npd,nd->np", x, [[3.0, 0, 0], [0, -3.0, 0]]) > 0) * 1.0
    prefs = Preferences(features=np.tile(x, (3, 1, 1)), labels=np.tile(y, (3, 1)))
    assignment = fit(prefs, "cluster", rank=3, ridge=1.0).factors.assignment
    first, second = assignment[::2], assignment[1::2]
    assert not set(first.tolist()) & set(second.tolist())


def test_one_new_user_is_enough(narrow):
    result = fit(narrow.prefs, "share_b", rank=2, norm_bound=2.0)
    one = Preferences.from_pairs(np.zeros(40), narrow.prefs.features[:40], narrow.prefs.labels[:40])
    adapted = adapt_users(result, one)
    # user 0's own pairs on the basis that he helped to find: his own fit
    np.testing.assert_allclose(adapted.delta[0], result.delta[0], rtol=0, atol=1e-6)
