"""Ten pairs per user: the data separate, and every estimator says what happened."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, fit
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world

ESTIMATORS = ["share_b", "local", "global", "full", "oracle"]
WORLD = make_world(WorldConfig(n_users=6, d1=12, rank=3), seed=1)


@pytest.fixture(scope="module")
def few():
    return sample_preferences(WORLD, 10, seed=2)


def run(prefs, estimator, **settings):
    if estimator in ("share_b", "local"):
        settings["rank"] = 3
    if estimator == "oracle":
        settings["basis"] = WORLD.basis
    return fit(prefs, estimator, **settings)


def finite(result) -> bool:
    numbers = (
        result.delta, result.basis, result.multipliers, result.neg_log_likelihood,
        result.gradient_norm, *vars(result.factors).values(),
    )  # fmt: skip
    return all(np.isfinite(number).all() for number in numbers)


@pytest.mark.parametrize("norm_bound", [1e-6, 0.5, 2.0, 1e3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_a_bound_the_answer_is_finite_and_inside_it(few, estimator, norm_bound):
    result = run(few, estimator, norm_bound=norm_bound)
    assert finite(result)
    norms = np.linalg.norm(result.delta, axis=(1, 2))
    assert norms.max() <= norm_bound * (1 + 1e-8)
    assert result.status is not FitStatus.SEPARATED
    assert result.message.startswith(result.status.sentence)
    if norm_bound <= 2:
        assert result.status is FitStatus.CONVERGED
        if estimator in ("local", "full"):  # ten pairs in twelve dimensions: all are separated
            assert "the norm bound is active for 6 of 6 users" in result.message


@pytest.mark.parametrize("estimator", ["share_b", "local", "full", "oracle"])
def test_without_a_bound_the_answer_is_finite_and_convergence_is_not_claimed(few, estimator):
    result = run(few, estimator)
    assert finite(result)
    assert result.status is FitStatus.SEPARATED
    assert "of 6 users are separated" in result.message
    assert "set norm_bound or ridge" in result.message
    scores = few.features[:, :, 0] * result.delta[few.users][:, :, 0]
    right = (scores.sum(axis=1) > 0) == (few.labels == 1)
    separated = sum(right[few.user(i)].all() for i in range(6))
    assert f"{separated} of 6 users are separated" in result.message


def test_one_matrix_for_all_is_separated_only_where_it_is_right_for_all(few):
    def right(prefs, result):
        scores = np.einsum("nab,nab->n", prefs.features, result.delta[prefs.users])
        return [np.all((scores > 0) == prefs.labels, where=prefs.users == i) for i in range(6)]

    together = run(few, "global")
    assert together.status is FitStatus.CONVERGED
    side = np.einsum("nab,ab->n", few.features, together.delta[0]) > 0
    # the first user agrees with the common matrix in all pairs: alone he would be separated
    labels = np.where(few.users == 0, side, few.labels)
    # his features are larger, so that the common matrix stays right for him
    large = few.features * np.where(few.users == 0, 10.0, 1.0)[:, None, None]
    one_right = Preferences.from_pairs(few.users, large, labels)
    result = run(one_right, "global")
    assert 0 < sum(right(one_right, result)) < 6
    assert result.status is FitStatus.CONVERGED
    result = run(Preferences.from_pairs(few.users, few.features, side.astype(float)), "global")
    assert result.status is FitStatus.SEPARATED
    assert "6 of 6 users are separated" in result.message


def test_the_loss_of_separated_users_goes_to_zero_and_not_to_a_halt_on_the_way(few):
    # six users of ten pairs in three dimensions: a basis exists that separates all of them
    for tol in (1e-8, 1e-4):
        result = run(few, "share_b", tol=tol)
        assert result.neg_log_likelihood < 0.1 * tol**0.5
        assert "6 of 6 users are separated" in result.message


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_ridge_or_soft_labels_end_separation(few, estimator):
    ridged = run(few, estimator, ridge=0.1)
    assert ridged.status is FitStatus.CONVERGED
    soft = Preferences.from_pairs(few.users, few.features, 0.9 * few.labels + 0.05)
    assert run(soft, estimator).status is not FitStatus.SEPARATED


def test_one_pair_per_user_is_enough_for_an_answer():
    prefs = sample_preferences(WORLD, 10, seed=2)
    alone = prefs.reweighted(np.arange(60) % 10 == 0)  # the same shapes: no new compilation
    for estimator in ESTIMATORS:
        result = run(alone, estimator, norm_bound=2.0)
        assert finite(result)
        assert result.status is FitStatus.CONVERGED, estimator


def test_a_separated_user_does_not_spoil_the_others_fit(few):
    labels = few.labels.copy()
    labels[few.user(0)] = 1.0
    x = few.features.copy()
    x[few.user(0)] = np.abs(x[few.user(0)])  # separated by any positive vector
    prefs = Preferences.from_pairs(few.users, x, labels)
    base = Preferences.from_pairs(few.users, x, few.labels)
    with_him, without = (fit(p, "oracle", basis=WORLD.basis) for p in (prefs, base))
    assert with_him.status is FitStatus.SEPARATED
    bounded = fit(prefs, "oracle", basis=WORLD.basis, norm_bound=50.0)
    calm = np.linalg.norm(without.delta, axis=(1, 2)) < 20
    calm[0] = False
    assert calm.any()
    np.testing.assert_allclose(with_him.delta[calm], without.delta[calm], rtol=0, atol=1e-5)
    np.testing.assert_allclose(bounded.delta[calm], without.delta[calm], rtol=0, atol=1e-5)
