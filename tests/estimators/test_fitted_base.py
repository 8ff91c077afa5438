"""`theta_init="global"`: the base reward fitted first, deviations from it afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.estimators import FitStatus, batching, fit, fit_many, fitting, rank_choice

SETTINGS = {"rank": 2, "norm_bound": 1.5}


def test_the_base_is_the_global_fit_and_the_rest_deviates_from_it(narrow):
    result = fit(narrow.prefs, "share_b", theta_init="global", **SETTINGS)
    base = fit(narrow.prefs, "global")
    by_hand = fit(narrow.prefs, "share_b", theta_init=base.delta[0], **SETTINGS)
    np.testing.assert_array_equal(result.theta_init, base.delta[0])
    np.testing.assert_array_equal(result.delta, by_hand.delta)
    assert result.data_passes == base.data_passes + by_hand.data_passes
    assert f"fitted by global first (in {base.data_passes:g} data passes)" in result.message
    assert result.status is FitStatus.CONVERGED
    # the rivals: a joint fit without a base, and a base that obeys the deviations' bound
    joint = fit(narrow.prefs, "share_b", **SETTINGS)
    assert np.abs(result.delta + result.theta_init - joint.delta).max() > 0.05
    small = fit(narrow.prefs, "share_b", theta_init="global", rank=2, norm_bound=0.1)
    np.testing.assert_array_equal(small.theta_init, base.delta[0])


@pytest.mark.parametrize("how", ["loop", "vmap"])
def test_many_fits_have_a_base_each(narrow, how, monkeypatch):
    # what is alike enough for a batch is fitted alone here: batched kernels have tests of their own
    monkeypatch.setattr(batching, "_alike", lambda *_: iter(()))
    weights = np.ones(narrow.prefs.n_total)
    weights[::3] = 0.0
    sources = [narrow.prefs, narrow.prefs.reweighted(weights)]
    many = fit_many(sources, "share_b", theta_inits="global", how=how, **SETTINGS)
    for source, result in zip(sources, many, strict=True):
        alone = fit(source, "share_b", theta_init="global", **SETTINGS)
        np.testing.assert_allclose(result.theta_init, alone.theta_init, atol=1e-8)
        np.testing.assert_allclose(result.delta, alone.delta, atol=1e-6)
        assert result.message == alone.message
    assert np.abs(many[0].theta_init - many[1].theta_init).max() > 0.01


def test_a_chosen_rank_sees_bases_of_the_training_folds_only(narrow, monkeypatch):
    seen = []

    def choose(preferences, fit_rank, *, seed, largest):
        weights = np.ones(preferences.n_total)
        weights[:20] = 0.0
        seen.append(fit_rank(preferences.reweighted(weights), rank=2).theta_init)
        return rank_choice.RankChoice(2, np.ones(1), np.ones(1), np.ones(1))

    monkeypatch.setattr(fitting.rank_choice, "choose_rank", choose)
    result = fit(narrow.prefs, "share_b", rank="auto", norm_bound=1.5, theta_init="global")
    assert result.rank == 2
    kept = narrow.prefs.reweighted(np.r_[np.zeros(20), np.ones(narrow.prefs.n_total - 20)])
    np.testing.assert_array_equal(seen[0], fit(kept, "global").delta[0])
    assert np.abs(seen[0] - result.theta_init).max() > 0.01


def test_an_unfinished_base_is_an_unfinished_fit(narrow):
    prefs = narrow.prefs
    labels = (prefs.features[:, 0, 0] > 0).astype(float)
    separated = fit(prefs.relabelled(labels), "share_b", theta_init="global", **SETTINGS)
    assert separated.status is FitStatus.SEPARATED
    assert "ended as SEPARATED" in separated.message
    assert np.isfinite(separated.delta + separated.theta_init).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"theta_init": "globl"}, r"unknown theta_init 'globl'.*did you mean 'global'"),
        ({"estimator": "global", "theta_init": "global"}, r"leaves global itself nothing"),
    ],
)
def test_other_words_are_refused(narrow, settings, message):
    with pytest.raises(InputError, match=message):
        fit(narrow.prefs, **({"estimator": "share_b", "rank": 2} | settings))
