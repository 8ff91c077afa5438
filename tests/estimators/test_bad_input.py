"""Misuse of `fit` is one line with the value, the limit and the remedy."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit, list_estimators

NAN = float("nan")
BASIS = np.eye(6)[:, :2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, r"rank = 0 must be at least 1; the limit of share_b for 5 users"),
        ({"rank": 6}, r"rank = 6 must be at most 5; the limit of share_b for 5 users"),
        ({"rank": 2.0}, r"rank must be an integer, got 2\.0"),
        ({"rank": "automatic"}, r"rank must be an integer or \"auto\", got 'automatic'"),
        ({}, r'share_b needs rank=: a number, or "auto" to choose it'),
        ({"estimator": "local"}, r"local needs rank=: a number"),
        ({"estimator": "shareb"}, r"unknown estimator 'shareb': choose .*did you mean 'share_b'\?"),
        ({"estimator": "lora"}, r"choose one of share_b, local, global, full, oracle"),
        ({"rank": 2, "norm_bound": 0.0}, r"norm_bound = 0 must be greater than 0; or None for no"),
        ({"rank": 2, "norm_bound": NAN}, r"norm_bound must be finite, got nan; or None"),
        ({"rank": 2, "norm_bound": np.inf}, r"norm_bound must be finite, got inf; or None"),
        ({"rank": 2, "ridge": -1.0}, r"ridge = -1 must be at least 0"),
        ({"rank": 2, "ridge": "1"}, r"ridge must be a real number, got '1'"),
        ({"rank": 2, "tol": 0.0}, r"tol = 0 must be greater than 0"),
        ({"rank": 2, "max_iterations": 0}, r"max_iterations = 0 must be at least 1"),
        ({"rank": 2, "max_iterations": 1.5}, r"max_iterations must be an integer, got 1\.5"),
        ({"rank": 2, "init": "spectrall"}, r"unknown init 'spectrall': .*did you mean 'spectral'"),
        ({"rank": 2, "init": np.ones((6, 3))}, r"init has shape \(6, 3\), expected \(6, 2\); pass"),
        ({"rank": 2, "init": np.full((6, 2), NAN)}, r"init holds 12 values that are not finite"),
        ({"rank": 2, "init": np.ones((6, 2))}, r"init must have 2 independent columns, got rank 1"),
        ({"rank": 2, "init": "random", "seed": -1}, r"seed = -1 must be at least 0"),
        ({"rank": 2, "basis": BASIS}, r"basis .* of the oracle; share_b takes .*init="),
        ({"rank": 2, "theta_init": np.ones(5)}, r"theta_init has shape \(5, 1\), expected \(6,"),
        ({"rank": 2, "theta_init": np.full(6, NAN)}, r"theta_init holds 6 values that are not"),
        ({"estimator": "oracle"}, r"oracle needs basis=, the known \(d1, k\) basis"),
        ({"estimator": "oracle", "basis": np.ones((5, 2))}, r"basis has shape \(5, 2\), expected"),
        ({"estimator": "oracle", "basis": np.ones(6)}, r"basis has shape \(6,\), expected \(6,"),
        ({"estimator": "oracle", "basis": np.ones((6, 2))}, r"basis \(6, 2\) must .* independent"),
        ({"estimator": "oracle", "basis": BASIS, "rank": 3}, r"rank = 3, but the basis has 2"),
    ],
)  # fmt: skip
def test_a_bad_setting_is_one_line_with_value_limit_and_remedy(narrow, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        fit(narrow.prefs, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ((0, 1), NAN)}, r"features holds 1 values .* \(first at index"),
        ({"features": ((3, 0), np.inf)}, r"features holds 1 values .*drop or repair"),
        ({"labels": (2, 1.5)}, r"label 1\.5 lies outside \[0, 1\].*recode the labels or use link="),
        ({"labels": (2, -1.0)}, r"label -1 lies outside \[0, 1\]"),
        ({"labels": (2, NAN)}, r"labels holds 1 values that are not finite"),
        ({"weights": (1, -2.0)}, r"weights must not be negative, got -2"),
        ({"weights": (1, NAN)}, r"weights holds 1 values that are not finite"),
    ],
)
def test_bad_pairs_never_reach_a_fit(change, message):
    arrays = {"features": np.ones((4, 2)), "labels": np.ones(4), "weights": np.ones(4)}
    for name, (row, value) in change.items():
        arrays[name][row] = value
    with pytest.raises(InputError, match=message):
        Preferences.from_pairs([0, 0, 1, 1], **arrays)


def test_a_user_without_pairs_is_refused():
    x = np.ones((2, 3, 4))
    with pytest.raises(InputError, match=r"1 of 2 users have no pairs .*drop these users"):
        Preferences(features=x, labels=np.ones((2, 3)), mask=np.array([[1, 1, 1], [0, 0, 0]]))
    with pytest.raises(InputError, match=r"1 of 3 users have no pairs \(the first is eve\)"):
        Preferences.from_pairs(["a", "b"], x[0, :2], np.ones(2), users=["a", "eve", "b"])


def test_something_that_is_no_data_is_refused():
    with pytest.raises(InputError, match=r"preferences must be Preferences .*got ndarray; build"):
        fit(np.ones((3, 4)), rank=1)


def test_a_full_model_too_large_for_memory_is_refused_before_it_starts():
    users = [0, 0, 1]
    prefs = Preferences.from_pairs(users, np.ones((3, 200, 100)), np.ones(3))
    with pytest.raises(InputError, match=r"matrix of side 20,000 from features of"):
        fit(prefs, "full")


def test_the_list_names_every_estimator_with_a_sentence_and_a_reference():
    listed = list_estimators()
    assert list(listed) == [
        *("share_b", "local", "global", "full", "oracle"),
        *("share_a", "shared_core", "shared_diag", "global_plus_local", "shared_rep"),
        *("cluster", "simplex", "nuclear"),
        *("spectral", "least_squares", "local_then_svd", "first_order"),
    ]
    for name, entry in listed.items():
        assert entry.name == name
        assert entry.sentence.endswith(".")
        assert entry.reference
    listed.clear()
    assert list_estimators()  # a copy: clearing it does no harm
