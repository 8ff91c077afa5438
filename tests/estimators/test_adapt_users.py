"""`adapt_users`: against scikit-learn, against fitting alone, and the errors of new users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from simrlhf.core.checks import InputError
from simrlhf.data import Preferences
from simrlhf.estimators import FitStatus, adapt_users, fit, load_fit, standard_errors
from simrlhf.sampling import sample_preferences


@pytest.fixture(scope="module")
def first(narrow):
    return fit(narrow.prefs, "share_b", rank=2)


@pytest.fixture(scope="module")
def newcomers(narrow):
    """Other pairs of the same shape: no new compilation."""
    return sample_preferences(narrow.world, 40, seed=21)


def test_new_factors_are_scikit_learns_logistic_regression_on_projected_features(first, newcomers):
    adapted = adapt_users(first, newcomers)
    assert adapted.status is FitStatus.CONVERGED
    assert adapted.estimator == "adapted"
    np.testing.assert_array_equal(adapted.basis, first.basis)
    for user in range(5):
        mine = newcomers.user(user)
        # C large enough that its penalty moves nothing by more than the tolerance below
        model = LogisticRegression(C=1e10, fit_intercept=False, tol=1e-10, max_iter=1000)
        model.fit(newcomers.features[mine, :, 0] @ first.basis, newcomers.labels[mine])
        expected = first.basis @ model.coef_[0]
        np.testing.assert_allclose(adapted.delta[user, :, 0], expected, atol=2e-4)
    # the rival refits the basis as well
    assert np.abs(fit(newcomers, "share_b", rank=2).delta - adapted.delta).max() > 0.1


def test_bound_ridge_and_base_are_carried_over(narrow, newcomers):
    base = np.linspace(-0.3, 0.3, 6)[:, None]
    settings = {"norm_bound": 1.0, "ridge": 0.5, "theta_init": base}
    adapted = adapt_users(fit(narrow.prefs, "share_b", rank=2, **settings), newcomers)
    same = fit(newcomers, "oracle", basis=adapted.basis, **settings)
    np.testing.assert_allclose(adapted.delta, same.delta, atol=1e-7)
    assert (adapted.norm_bound, adapted.ridge) == (1.0, 0.5)
    np.testing.assert_array_equal(adapted.theta_init, base)
    assert (adapted.multipliers > 0).any()
    free = fit(newcomers, "oracle", basis=adapted.basis)
    assert np.abs(adapted.delta - free.delta).max() > 0.1


def test_old_users_adapted_to_their_own_fit_stay_where_they_are(narrow, first):
    again = adapt_users(first, narrow.prefs)
    # both are optima of the same convex problems, to 1e-8 in the mean gradient
    np.testing.assert_allclose(again.factors.weights, first.factors.weights, atol=1e-5)


def test_users_do_not_see_each_other_and_keep_their_names(first, newcomers):
    names = np.asarray(["eve", "ann", "zoe", "bob", "kim"])
    together = adapt_users(
        first,
        Preferences.from_pairs(
            names[newcomers.users], newcomers.features, newcomers.labels, users=names[::-1]
        ),
    )
    assert together.user_ids.tolist() == names[::-1].tolist()
    in_order = adapt_users(first, newcomers)
    np.testing.assert_allclose(together.delta[::-1], in_order.delta, atol=1e-7)
    mine = newcomers.user(2)
    alone = adapt_users(
        first,
        Preferences(features=newcomers.features[mine][None], labels=newcomers.labels[mine][None]),
    )
    assert alone.delta.shape == (1, 6, 1)
    np.testing.assert_allclose(alone.delta[0], in_order.delta[2], atol=1e-7)


def test_many_users_with_few_pairs_are_one_call(narrow):
    bounded = fit(narrow.prefs, "share_b", rank=2, norm_bound=2.0)
    random = np.random.default_rng(0)
    features = random.normal(size=(500, 8, 6))
    labels = (random.random((500, 8)) < 0.5).astype(float)
    adapted = adapt_users(bounded, Preferences(features=features, labels=labels))
    assert adapted.status is FitStatus.CONVERGED
    assert adapted.data_passes == 1
    norms = np.linalg.norm(adapted.delta, axis=(1, 2))
    assert norms.max() <= 2.0 + 1e-8
    errors = standard_errors(adapted, Preferences(features=features, labels=labels))
    assert f"active for {int((adapted.multipliers > 0).sum())} of 500 users" in errors.note


def test_an_adapted_fit_is_saved_and_judged_like_any_other(first, newcomers, reference, tmp_path):
    adapted = adapt_users(first, newcomers)
    loaded = load_fit(adapted.save(tmp_path / "new"))
    np.testing.assert_array_equal(loaded.delta, adapted.delta)
    assert loaded.estimator == "adapted"
    judged = loaded.evaluate(newcomers)
    expected = reference.loss(newcomers, adapted.delta)
    assert judged.neg_log_likelihood.mean() == pytest.approx(expected, rel=1e-10)
    assert adapted.neg_log_likelihood == pytest.approx(expected, rel=1e-10)


def test_every_estimators_basis_can_be_adapted_to(narrow, newcomers):
    free = fit(narrow.prefs, "full", rank=2)
    adapted = adapt_users(free, newcomers)
    oracle = fit(newcomers, "oracle", basis=free.basis)
    np.testing.assert_allclose(adapted.delta, oracle.delta, atol=1e-7)


def test_errors_of_new_users_add_the_basis_own_error(regression):
    """The second term of L5 against finite differences of least squares in the basis.

    Labels without noise leave no error given the basis, and what is left is the basis's.
    """
    prefs = regression.prefs
    result = fit(prefs, "share_b", rank=2)
    of_first = standard_errors(result, prefs)
    random = np.random.default_rng(2)
    features, weights = random.normal(size=(5, 40, 6)), random.normal(size=(5, 2))
    labels = np.einsum("ina,ak,ik->in", features, result.basis, weights)
    new = Preferences(features=features, labels=labels, link="identity")
    adapted = adapt_users(result, new)
    known = standard_errors(adapted, new)
    both = standard_errors(adapted, new, basis_errors=of_first)
    assert "pass basis_errors" in known.note
    assert both.note == ""
    basis_part = of_first.parts.basis_errors
    rows, step = random.normal(size=(4, 6)), 1e-5
    for user in range(5):

        def rewards(flat, user=user):
            moved = result.basis + basis_part.outside @ flat.reshape(4, 2)
            z = features[user] @ moved
            return rows @ moved @ np.linalg.lstsq(z, labels[user], rcond=None)[0]

        slopes = np.stack(
            [(rewards(u) - rewards(-u)) / (2 * step) for u in step * np.eye(8)], axis=1
        )
        exact = np.einsum("ma,ab,mb->m", slopes, basis_part.covariance, slopes)
        # central differences of step 1e-5
        np.testing.assert_allclose(both.of_rewards(user, rows) ** 2, exact, rtol=1e-6)
        assert (known.of_rewards(user, rows) ** 2 < 1e-6 * exact).all()


def test_both_terms_of_old_users_are_those_of_their_joint_fit(narrow, first):
    joint = standard_errors(first, narrow.prefs)
    again = adapt_users(first, narrow.prefs)
    both = standard_errors(again, narrow.prefs, basis_errors=joint)
    np.testing.assert_allclose(both.delta, joint.delta, rtol=1e-4)
    assert (standard_errors(again, narrow.prefs).delta < 0.99 * joint.delta).any()


def test_errors_of_another_basis_are_refused(narrow, first, newcomers):
    adapted = adapt_users(first, newcomers)
    other = fit(newcomers, "share_b", rank=2)
    redrawn = standard_errors(first, narrow.prefs, method="bootstrap", n_bootstrap=2)
    for wrong in (standard_errors(other, newcomers), redrawn, first):
        with pytest.raises(InputError, match=r"basis_errors must be standard_errors\(first"):
            standard_errors(adapted, newcomers, basis_errors=wrong)


def test_what_cannot_be_adapted_to_is_refused(narrow, wide, regression, first, newcomers):
    with pytest.raises(InputError, match=r"global has one matrix for all users"):
        adapt_users(fit(narrow.prefs, "global"), newcomers)
    square = replace(first, basis=np.eye(6))
    with pytest.raises(InputError, match=r"rank 6 = d1: it freezes nothing.*full"):
        adapt_users(square, newcomers)
    with pytest.raises(InputError, match=r"the fit has the logistic link.*identity link"):
        adapt_users(first, regression.prefs)
    with pytest.raises(InputError, match=r"= \(6, 1\), the new users' data \(5, 3\)"):
        adapt_users(first, wide.prefs)
    with pytest.raises(InputError, match=r"result must come from fit, got ndarray"):
        adapt_users(first.basis, newcomers)
    with pytest.raises(InputError, match=r"preferences must be Preferences.*got list"):
        adapt_users(first, [1.0])
    with pytest.raises(InputError, match=r"tol = 0 must be greater than 0"):
        adapt_users(first, newcomers, tol=0.0)
