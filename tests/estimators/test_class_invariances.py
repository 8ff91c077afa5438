"""What must not change a fit, for the classes beyond the first five: all on arrays of one shape."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, fit, load_fit

SETTINGS = {
    "share_a": {"norm_bound": 1.2},
    "shared_core": {"norm_bound": 1.2},
    "shared_diag": {"norm_bound": 1.2},
    "global_plus_local": {"norm_bound": 0.8, "ridge": 1.0},
    "shared_rep": {"norm_bound": 1.2},
    "cluster": {"norm_bound": 1.2},
    "simplex": {"ridge": 1.0},
    "nuclear": {"penalty": 6.0},
    "spectral": {"norm_bound": 1.2},
    "least_squares": {"norm_bound": 1.2},
    "local_then_svd": {"norm_bound": 1.2},
}
# fits stop at a gradient (nuclear: a gap) of 1e-11; the curvature of the mean loss is above 1e-3,
# and a gap of 1e-11 leaves the root of its ratio to the curvature
CLOSE = {"nuclear": 2e-4} | dict.fromkeys(SETTINGS.keys() - {"nuclear"}, 1e-6)


def run(prefs, estimator, **changes):
    settings = SETTINGS[estimator] | {"tol": 1e-11, "max_iterations": 1000} | changes
    return fit(prefs, estimator, rank=2, **settings)


def rebuilt(prefs, *, features=None, labels=None, weights=None, users=None):
    return Preferences.from_pairs(
        prefs.users if users is None else users,
        prefs.features if features is None else features,
        prefs.labels if labels is None else labels,
        weights,
        link=prefs.link,
    )


@pytest.fixture(scope="module", params=list(SETTINGS))
def base(request, wide):
    """One fit of each class, compared with those of changed data."""
    return request.param, run(wide.prefs, request.param)


def test_the_fit_is_certified_saved_and_read_back(base, wide, reference, tmp_path):
    estimator, result = base
    assert result.status in (FitStatus.CONVERGED, FitStatus.STALLED)
    assert result.gradient_norm < 1e-9
    assert result.neg_log_likelihood == pytest.approx(
        reference.loss(wide.prefs, result.delta, result.theta_init), rel=1e-10
    )
    read = load_fit(result.save(tmp_path / estimator))
    for name, value in vars(result.factors).items():
        np.testing.assert_array_equal(getattr(read.factors, name), value)
    assert read.status is result.status


def test_rotating_the_features_rotates_the_fit(base, wide, reference):
    estimator, result = base
    turn = reference.random_basis(np.random.default_rng(3), 5, 5)
    features = np.einsum("ac,ncb->nab", turn, wide.prefs.features)
    moved = run(rebuilt(wide.prefs, features=features), estimator)
    expected = np.einsum("ac,ncb->nab", turn, result.delta)
    np.testing.assert_allclose(moved.delta, expected, rtol=0, atol=CLOSE[estimator])
    assert np.abs(moved.delta - result.delta).max() > 0.01


def test_renaming_users_permutes_the_fit(base, wide):
    estimator, result = base
    order = np.array([2, 0, 3, 1])
    moved = run(rebuilt(wide.prefs, users=order[wide.prefs.users]), estimator)
    np.testing.assert_allclose(moved.delta[order], result.delta, rtol=0, atol=CLOSE[estimator])


def test_swapping_the_items_with_the_label_changes_nothing(base, wide):
    estimator, result = base
    prefs = wide.prefs
    sign = np.where(np.arange(prefs.n_total) % 3 == 0, -1.0, 1.0)
    swapped = rebuilt(
        prefs, features=prefs.features * sign[:, None, None],
        labels=np.where(sign < 0, 1 - prefs.labels, prefs.labels),
    )  # fmt: skip
    same = run(swapped, estimator)
    np.testing.assert_allclose(same.delta, result.delta, rtol=0, atol=CLOSE[estimator])


def test_features_in_other_units_give_the_rewards_in_the_inverse_units(base, wide):
    estimator, result = base
    scale, settings = 10.0, dict(SETTINGS[estimator])
    units = {"norm_bound": 1 / scale, "ridge": scale**2, "penalty": scale}
    changed = {name: value * units[name] for name, value in settings.items()}
    other = run(rebuilt(wide.prefs, features=scale * wide.prefs.features), estimator, **changed)
    np.testing.assert_allclose(scale * other.delta, result.delta, rtol=0, atol=CLOSE[estimator])


def test_a_pair_of_weight_two_is_two_pairs(base, wide):
    """The first fifty pairs twice, as pairs or by weight; the other fifty switched off."""
    estimator, _ = base
    prefs = wide.prefs
    place = np.arange(prefs.n_total) - prefs.offsets[prefs.users]
    source = prefs.offsets[prefs.users] + place // 2
    twice = rebuilt(prefs, features=prefs.features[source], labels=prefs.labels[source])
    weighted = prefs.reweighted(np.where(place < 50, 2.0, 0.0))
    a, b = (run(p, estimator) for p in (twice, weighted))
    np.testing.assert_allclose(a.delta, b.delta, rtol=0, atol=CLOSE[estimator])


@pytest.mark.parametrize("estimator", ["shared_core", "cluster"])
def test_doubling_every_user_changes_no_reward(wide, estimator):
    prefs = wide.prefs
    result = run(prefs, estimator)
    doubled = Preferences.from_pairs(
        np.concatenate([prefs.users, prefs.users + 4]),
        np.concatenate([prefs.features] * 2),
        np.concatenate([prefs.labels] * 2),
    )
    moved = run(doubled, estimator)
    np.testing.assert_allclose(moved.delta[:4], result.delta, rtol=0, atol=1e-6)
    np.testing.assert_allclose(moved.delta[4:], result.delta, rtol=0, atol=1e-6)
