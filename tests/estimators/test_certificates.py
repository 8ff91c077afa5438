"""What a fit claims about itself: the gradient norm, the loss, the bound, the class, the order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simrlhf.core import subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, fit

ESTIMATORS = ["share_b", "local", "global", "full", "oracle"]
SETTINGS = {
    "free": {},
    "ridge": {"ridge": 2.0},
    "bound": {"norm_bound": 1.2},
    "both": {"norm_bound": 1.0, "ridge": 0.5},
}


def run(case, estimator, *, soft=False, **settings):
    prefs = case.soft if soft else case.prefs
    if estimator in ("share_b", "local"):
        settings["rank"] = case.rank if estimator == "share_b" else 1
    if estimator == "oracle":
        settings["basis"] = case.world.basis
    return prefs, fit(prefs, estimator, **settings)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", ["narrow", "wide"])
def test_the_gradient_norm_is_the_kkt_residual_recomputed(
    request, reference, case, estimator, setting
):
    settings = dict(SETTINGS[setting])
    if estimator == "global" and "norm_bound" in settings:
        settings["norm_bound"] = 0.1  # users disagree, so their common part is small
    prefs, result = run(request.getfixturevalue(case), estimator, tol=1e-6, **settings)
    assert (result.multipliers > 0).any() == ("norm_bound" in settings)
    assert result.status is FitStatus.CONVERGED
    recomputed = reference.residual(prefs, result)
    # both are sums of some hundred terms of size one, so they agree to 1e-14 and not to digits
    assert result.gradient_norm == pytest.approx(recomputed, rel=1e-4, abs=1e-13)
    assert recomputed <= 1e-6
    assert result.neg_log_likelihood == pytest.approx(
        reference.loss(prefs, result.delta), rel=1e-12
    )
    moved = replace(result, multipliers=result.multipliers + 0.1)
    assert reference.residual(prefs, moved) > 1e-6  # a wrong multiplier is no certificate


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("case", ["narrow", "wide"])
def test_at_the_bound_the_multipliers_are_complementary(request, case, estimator):
    bound = 0.1 if estimator == "global" else 0.7  # users disagree, so their common part is small
    _, result = run(request.getfixturevalue(case), estimator, norm_bound=bound)
    norms = np.linalg.norm(result.delta, axis=(1, 2))
    assert norms.max() <= bound * (1 + 1e-8)
    assert (result.multipliers >= 0).all()
    assert (result.multipliers > 0).any()
    assert (norms[result.multipliers > 0] > bound * (1 - 1e-8)).all()
    active = int(np.sum(result.multipliers > 0))
    assert f"the norm bound is active for {active} of {len(norms)} users" in result.message


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_factors_make_up_delta_and_the_basis_is_its_top_space(wide, estimator):
    _, result = run(wide, estimator, ridge=2.0)
    factors = result.factors
    if estimator == "full":
        rebuilt = factors.delta
    elif estimator == "local":
        rebuilt = factors.bases @ factors.weights
    elif estimator == "global":
        rebuilt = np.broadcast_to(factors.basis @ factors.weights, result.delta.shape)
    else:
        rebuilt = factors.basis @ factors.weights
    np.testing.assert_allclose(result.delta, rebuilt, rtol=0, atol=1e-14)
    left, values, _ = np.linalg.svd(subspaces.unfold(result.delta))
    k = min(result.rank, int(np.sum(values > 1e-10)))
    # column by column, up to sign: singular directions in order
    np.testing.assert_allclose(
        np.abs(np.sum(result.basis[:, :k] * left[:, :k], axis=0)), 1.0, rtol=0, atol=1e-9
    )
    assert (result.basis[np.abs(result.basis).argmax(axis=0), range(result.rank)] > 0).all()
    np.testing.assert_allclose(
        result.basis.T @ result.basis, np.eye(result.rank), rtol=0, atol=1e-12
    )


def test_a_larger_class_fits_better(narrow, wide):
    loss = {name: run(wide, name)[1].neg_log_likelihood for name in ESTIMATORS}
    assert loss["full"] < loss["local"]
    assert loss["full"] < loss["share_b"] < loss["oracle"] < np.log(2)
    assert loss["share_b"] < loss["global"]
    bounded = [run(wide, "share_b", norm_bound=r)[1].neg_log_likelihood for r in (0.5, 1.0, 2.0)]
    assert bounded[0] > bounded[1] > bounded[2] > loss["share_b"] - 1e-9
    ranks = [
        fit(narrow.prefs, "share_b", rank=k, norm_bound=3.0).neg_log_likelihood for k in (1, 2, 5)
    ]
    assert ranks[0] > ranks[1] > ranks[2]
    # at k = N d2 every column of the aggregate is free
    assert ranks[2] == pytest.approx(
        fit(narrow.prefs, "full", norm_bound=3.0).neg_log_likelihood, abs=1e-9
    )


def test_at_rank_min_d1_d2_local_is_the_full_model_and_says_so(narrow):
    full, local = fit(narrow.prefs, "full"), fit(narrow.prefs, "local", rank=1)
    np.testing.assert_array_equal(local.delta, full.delta)
    assert "rank 1 >= min(d1, d2) = 1: local is the full model" in local.message
    assert local.estimator == "local"


def test_a_random_start_and_a_given_one_reach_the_spectral_ones_optimum(narrow):
    prefs = narrow.prefs
    spectral = fit(prefs, "share_b", rank=2, ridge=2.0)
    given = fit(prefs, "share_b", rank=2, ridge=2.0, init=3.0 * narrow.world.basis)
    best = min(
        fit(prefs, "share_b", rank=2, ridge=2.0, init="random", seed=seed).neg_log_likelihood
        for seed in range(4)
    )
    assert given.neg_log_likelihood == pytest.approx(spectral.neg_log_likelihood, abs=1e-9)
    assert best == pytest.approx(spectral.neg_log_likelihood, abs=1e-9)


def test_the_work_is_limited_and_the_limit_is_named(narrow):
    for name in ("share_b", "full", "oracle"):
        _, result = run(narrow, name, max_iterations=1)
        assert result.status is FitStatus.MAX_ITERATIONS, name
        assert result.iterations == 1
        assert "raise max_iterations" in result.message
        assert result.gradient_norm > 1e-8


def test_a_tolerance_below_rounding_is_reported_as_a_stall(narrow):
    for name in ESTIMATORS:
        _, result = run(narrow, name, tol=1e-30)
        assert result.status is FitStatus.STALLED, name
        assert result.gradient_norm < 1e-11, name
        assert "rounding prevents further decrease" in result.message


@pytest.mark.parametrize("scale", [1e6, 1e-3])
def test_regression_on_any_scale_of_labels_reaches_rounding(regression, scale):
    base = fit(regression.prefs, "share_b", rank=2)
    prefs = Preferences.from_pairs(
        regression.prefs.users, regression.prefs.features, scale * regression.prefs.labels,
        link="identity",
    )  # fmt: skip
    result = fit(prefs, "share_b", rank=2, tol=1e-8 * scale)
    assert result.data_passes < 200  # a stall is seen when it comes, not at max_iterations
    np.testing.assert_allclose(result.delta / scale, base.delta, rtol=0, atol=1e-6)
