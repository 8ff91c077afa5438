"""Share-A by transposition, Park's class, and the estimators that do not iterate on the basis."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from simrlhf.core import subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, fit, fit_many
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world


def transposed(prefs):
    return Preferences.from_pairs(
        prefs.users, np.swapaxes(prefs.features, 1, 2), prefs.labels, link=prefs.link
    )


@pytest.mark.parametrize("settings", [{"norm_bound": 1.2}, {"ridge": 2.0}])
def test_share_a_of_the_transposed_problem_is_share_b(wide, settings):
    base = 0.1 * np.arange(15.0).reshape(5, 3)
    shared = fit(wide.prefs, "share_b", rank=2, theta_init=base, tol=1e-10, **settings)
    other = fit(transposed(wide.prefs), "share_a", rank=2, theta_init=base.T, tol=1e-10, **settings)
    np.testing.assert_allclose(other.delta, np.swapaxes(shared.delta, 1, 2), rtol=0, atol=1e-9)
    assert other.neg_log_likelihood == pytest.approx(shared.neg_log_likelihood, rel=1e-12)
    factors = other.factors
    np.testing.assert_allclose(factors.weights @ factors.basis, other.delta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(factors.basis @ factors.basis.T, np.eye(2), rtol=0, atol=1e-12)
    # on the same features the two are different classes
    same = fit(wide.prefs, "share_a", rank=2, theta_init=base, **settings)
    assert np.abs(same.delta - shared.delta).max() > 0.05


def test_parks_class_is_share_b_of_vectors_and_knows_no_base(narrow, wide):
    vectors = Preferences.from_pairs(
        wide.prefs.users, wide.prefs.features.reshape(-1, 15), wide.prefs.labels
    )
    base = 0.3 * np.ones((5, 3))
    as_vectors = fit(vectors, "share_b", rank=2, norm_bound=2.0, tol=1e-10)
    park = fit(wide.prefs, "shared_rep", rank=2, norm_bound=2.0, theta_init=base, tol=1e-10)
    theta = park.delta + park.theta_init
    np.testing.assert_allclose(theta.reshape(4, 15), as_vectors.delta[:, :, 0], atol=1e-8, rtol=0)
    assert park.neg_log_likelihood == pytest.approx(as_vectors.neg_log_likelihood, rel=1e-12)
    assert park.data_passes == as_vectors.data_passes  # no pass for a base that is not read
    heads = park.factors.heads @ park.factors.representation.T
    np.testing.assert_allclose(heads, theta.reshape(4, 15), rtol=0, atol=1e-12)
    assert (np.linalg.norm(theta, axis=(1, 2)) <= 2.0 + 1e-9).all()
    # at d2 = 1 without a base the classes are one, and the message says so
    one, other = (fit(narrow.prefs, name, rank=2) for name in ("shared_rep", "share_b"))
    np.testing.assert_allclose(one.delta, other.delta, rtol=0, atol=1e-8)
    assert "is share_b" in one.message
    batch = fit_many([wide.prefs], "shared_rep", rank=2, norm_bound=2.0, theta_inits=[base],
                     tol=1e-10)[0]  # fmt: skip
    np.testing.assert_array_equal(batch.delta, park.delta)


def test_spectral_is_an_svd_and_logistic_regressions(narrow, reference):
    prefs = narrow.prefs
    result = fit(prefs, "spectral", rank=2)
    score = np.hstack(list(reference.score(prefs, np.zeros((5, 6, 1)))))
    basis = np.linalg.svd(score)[0][:, :2]
    assert subspaces.subspace_distance(basis, result.basis) < 1e-7
    for user in range(5):
        x = prefs.features[prefs.user(user), :, 0]
        model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000)
        weights = model.fit(x @ basis, prefs.labels[prefs.user(user)]).coef_[0]
        np.testing.assert_allclose(result.delta[user, :, 0], basis @ weights, rtol=0, atol=1e-5)
    # optimising the basis too can only be likelier
    assert fit(prefs, "share_b", rank=2).neg_log_likelihood < result.neg_log_likelihood - 1e-4


def test_least_squares_is_regression_on_the_labels_and_exact_for_regression(
    narrow, regression, reference
):
    prefs = narrow.prefs
    result = fit(prefs, "least_squares", rank=2, tol=1e-10)
    scaled = Preferences.from_pairs(
        prefs.users, prefs.features, 4 * (prefs.labels - 0.5), link="identity"
    )
    by_hand = fit(scaled, "share_b", rank=2, tol=1e-10)
    np.testing.assert_allclose(result.delta, by_hand.delta, rtol=0, atol=1e-7)
    assert result.neg_log_likelihood == pytest.approx(reference.loss(prefs, result.delta))
    assert "least-squares" in result.message
    one, other = (
        fit(regression.prefs, name, rank=2, tol=1e-10) for name in ("least_squares", "share_b")
    )
    np.testing.assert_allclose(one.delta, other.delta, rtol=0, atol=1e-7)
    # full rank: each user's ordinary least squares, from numpy
    each = fit(prefs, "least_squares", rank=5)
    x, y = prefs.features[prefs.user(0), :, 0], 4 * (prefs.labels[prefs.user(0)] - 0.5)
    full = fit(scaled, "full")
    np.testing.assert_allclose(full.delta[0, :, 0], np.linalg.lstsq(x, y)[0], atol=1e-7, rtol=0)
    np.testing.assert_allclose(each.delta, full.delta, rtol=0, atol=1e-5)


def test_large_rewards_are_shrunken_by_least_squares_and_not_by_likelihood():
    world = make_world(WorldConfig(n_users=6, d1=5, rank=1, nu=9.0, user_norms="equal"), seed=0)
    prefs = sample_preferences(world, 2000, seed=1)
    sizes = {
        name: np.linalg.norm(fit(prefs, name, rank=1).delta) / np.linalg.norm(world.delta)
        for name in ("least_squares", "share_b")
    }
    assert sizes["least_squares"] < 0.7
    assert sizes["share_b"] == pytest.approx(1.0, abs=0.1)


def test_local_then_svd_truncates_what_everyone_found_alone(wide, reference):
    alone = fit(wide.prefs, "full", norm_bound=1.2)
    result = fit(wide.prefs, "local_then_svd", rank=2, norm_bound=1.2)
    left, values, right = np.linalg.svd(np.hstack(list(alone.delta)), full_matrices=False)
    best = (left[:, :2] * values[:2]) @ right[:2]
    np.testing.assert_allclose(np.hstack(list(result.delta)), best, rtol=0, atol=1e-9)
    assert result.neg_log_likelihood == pytest.approx(reference.loss(wide.prefs, result.delta))
    assert result.gradient_norm == alone.gradient_norm
    assert result.status is FitStatus.CONVERGED
    assert (np.linalg.norm(result.delta, axis=(1, 2)) <= 1.2 + 1e-9).all()
