"""Standard errors where the limit does not hold: infinite errors, notes, refusals of bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.estimators import FitStatus, adapt_users, charts, fisher, fit, redraws, standard_errors
from simrlhf.estimators.result import SharedFactors
from simrlhf.sampling import sample_preferences


@pytest.fixture(scope="module")
def shared(narrow):
    return fit(narrow.prefs, "share_b", rank=2)


@pytest.fixture(scope="module")
def shared_errors(narrow, shared):
    return standard_errors(shared, narrow.prefs)


def test_a_user_without_information_is_infinite_and_the_others_are_not(regression):
    prefs = regression.prefs
    weights = np.ones(prefs.n_total)
    weights[1:40] = 0.0  # user 0 keeps one pair for two parameters
    few = prefs.reweighted(weights)
    errors = standard_errors(fit(few, "share_b", rank=2), few)
    assert np.isinf(errors.delta[0]).all()
    assert np.isfinite(errors.delta[1:]).all()
    assert "infinite for 1 of 5 users" in errors.note
    assert np.isneginf(errors.intervals(0, np.eye(6)).low).all()


def test_separated_users_are_infinite(narrow):
    prefs = narrow.prefs
    labels = prefs.labels.copy()
    labels[:40] = prefs.features[:40, 0, 0] > 0
    separated = prefs.relabelled(labels)
    result = fit(separated, "full")
    assert result.status is FitStatus.SEPARATED
    errors = standard_errors(result, separated)
    assert np.isinf(errors.delta[0]).all()
    assert np.isfinite(errors.delta[1:]).all()
    assert "infinite for 1 of 5 users: separated" in errors.note
    redrawn = standard_errors(result, separated, method="bootstrap", n_bootstrap=2)
    assert "the fit is SEPARATED" in redrawn.note


def test_a_rank_that_the_pairs_do_not_show_is_infinite_for_all(narrow, shared):
    basis = np.linalg.qr(np.hstack([shared.basis, np.eye(6)[:, :1]]))[0]
    weights = np.einsum("ak,nab->nkb", basis, shared.delta)
    weights[:, 2] = 0.0
    wider = replace(shared, basis=basis, factors=SharedFactors(basis, weights), rank=3)
    errors = standard_errors(wider, narrow.prefs)
    assert np.isinf(errors.delta).all()
    assert "do not identify the basis" in errors.note


def test_notes_say_where_the_limit_does_not_hold(narrow):
    bound = fit(narrow.prefs, "share_b", rank=2, norm_bound=1.0)
    active = int((bound.multipliers > 0).sum())
    assert active > 0
    assert f"active for {active} of 5 users" in standard_errors(bound, narrow.prefs).note
    early = fit(narrow.prefs, "share_b", rank=2, max_iterations=1)
    assert "MAX_ITERATIONS" in standard_errors(early, narrow.prefs).note
    pooled = fit(narrow.prefs, "global")
    assert "where the users agree" in standard_errors(pooled, narrow.prefs).note
    redrawn = standard_errors(
        bound, narrow.prefs, method="bootstrap", n_bootstrap=2, max_iterations=1
    )
    assert "2 of 2 refits did not converge (2 MAX_ITERATIONS)" in redrawn.note


def test_the_plain_fit_has_nothing_against_it(shared, shared_errors):
    assert shared.status is FitStatus.CONVERGED
    assert shared_errors.note == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "jackknife"}, r"unknown method 'jackknife': choose one of fisher, bootstrap"),
        ({"method": "bootstrap", "n_bootstrap": 1}, r"n_bootstrap = 1 must be at least 2"),
        ({"method": "bootstrap", "estimator": "full"}, r"estimator is for a function"),
        ({"basis_errors": "same"}, r"basis_errors is for users of adapt_users"),
        ({"method": "bootstrap", "basis_errors": "same"}, r"belongs to method=\"fisher\""),
    ],
)
def test_bad_arguments_are_refused(narrow, shared, shared_errors, settings, message):
    settings = {k: shared_errors if v == "same" else v for k, v in settings.items()}
    with pytest.raises(InputError, match=message):
        standard_errors(shared, narrow.prefs, **settings)


def test_other_pairs_than_those_of_the_fit_are_refused(narrow, wide, regression, shared):
    other = sample_preferences(narrow.world, 40, seed=9)
    with pytest.raises(InputError, match=r"mean loss of .* those that it was made on"):
        standard_errors(shared, other)
    for case in (wide, regression):
        with pytest.raises(InputError, match=r"the fit has \(5, 6, 1\).*logistic link"):
            standard_errors(shared, case.prefs)
    with pytest.raises(InputError, match=r"in memory, got list"):
        standard_errors(shared, [1])
    with pytest.raises(InputError, match=r"result must come from fit, got str"):
        standard_errors("fit", narrow.prefs)


def test_classes_and_sizes_without_an_information_name_the_bootstrap(narrow, wide, monkeypatch):
    alone = fit(wide.prefs, "local", rank=2)
    with pytest.raises(InputError, match=r"local is not worked out.*bootstrap"):
        standard_errors(alone, wide.prefs)
    result = fit(narrow.prefs, "share_b", rank=2)
    for limit, message in (
        ("LARGEST_SIDE", r"k \(d1 - k\) = 8.*bootstrap"),
        ("LARGEST_BLOCKS", r"hold 60.*bootstrap"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(fisher, limit, 7)
            with pytest.raises(InputError, match=message):
                standard_errors(result, narrow.prefs)
    monkeypatch.setattr(redraws, "LARGEST_HELD", 7)
    with pytest.raises(InputError, match=r"200 refits of 22 numbers.*lower n_bootstrap"):
        standard_errors(result, narrow.prefs, method="bootstrap")
    # a local fit without a constraint is the full one
    free = fit(narrow.prefs, "local", rank=2)
    assert charts.chart_of(free).basis is None


@pytest.mark.parametrize("confidence", [0.0, 1.0, "high"])
def test_a_confidence_outside_its_range_is_refused(shared_errors, confidence):
    with pytest.raises(InputError, match=r"confidence"):
        shared_errors.intervals(0, np.eye(6), confidence)


def test_regression_without_residuals_has_no_errors_to_give(regression):
    few = regression.prefs.reweighted(np.tile([1.0] * 4 + [0.0] * 36, 5))
    result = fit(few, "full")  # 6 parameters for 4 pairs of each user
    errors = standard_errors(result, few)
    assert np.isinf(errors.delta).all()
    assert "infinite for 5 of 5 users" in errors.note
    with pytest.raises(InputError, match=r"30 parameters for pairs of weight 20"):
        standard_errors(result, few, method="bootstrap")


def test_users_of_an_adapted_fit_are_redrawn_on_their_basis(narrow, shared):
    adapted = adapt_users(shared, narrow.prefs)
    redrawn = standard_errors(adapted, narrow.prefs, method="bootstrap", n_bootstrap=3)
    assert "the basis counts as known" in redrawn.note
    outside = np.eye(6) - shared.basis @ shared.basis.T
    assert redrawn.of_rewards(0, outside).max() < 1e-8
