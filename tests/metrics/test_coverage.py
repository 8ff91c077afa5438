"""Intervals of rewards hold the truth as often as they say, and the column that measures it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simrlhf.core import statistics
from simrlhf.estimators import fit, fit_many
from simrlhf.estimators.uncertainty import Intervals
from simrlhf.metrics import coverage, has_intervals
from simrlhf.sampling import sample_preferences
from simrlhf.study.cells import DEFAULT_METRICS, METRICS
from simrlhf.study.spec import load_study
from simrlhf.world import WorldConfig, make_world

CONFIG = WorldConfig(n_users=5, d1=6, rank=2, nu=0.5)


@pytest.fixture(scope="module")
def runs():
    """Forty worlds with 400 pairs of each user, where the limit holds."""
    worlds = [make_world(CONFIG, seed=seed) for seed in range(40)]
    samples = [sample_preferences(world, 400, seed=7) for world in worlds]
    return list(zip(worlds, samples, fit_many(samples, "share_b", rank=2), strict=True))


def test_intervals_cover_as_often_as_they_say(runs):
    rows = [coverage(*run) for run in runs]
    found = statistics.mean_and_error(np.asarray([row["coverage"] for row in rows]))
    # 0.8 % at most is left of the approach to the limit at n = 400 (the study `coverage`)
    assert abs(found.mean - 0.95) < 0.008 + 3 * found.standard_error
    assert found.standard_error < 0.012
    assert all(row["infinite_errors"] == 0 == row["bound_active"] for row in rows)
    # the rival leaves out the basis's own error: it takes the basis for known
    short = [
        coverage(world, sample, replace(result, estimator="oracle"))
        for world, sample, result in runs
    ]
    rival = statistics.mean_and_error(np.asarray([row["coverage"] for row in short]))
    assert rival.mean < 0.95 - 0.008 - 3 * rival.standard_error
    widths = [row["half_width"] / less["half_width"] for row, less in zip(rows, short, strict=True)]
    assert min(widths) > 1.0


def test_other_confidence_and_other_features_give_other_shares(runs):
    shares = [
        np.mean([coverage(*run, **settings)["coverage"] for run in runs])
        for settings in ({}, {"confidence": 0.5}, {"seed": 1})
    ]
    assert abs(shares[1] - 0.5) < 0.06  # 40 runs of 5 users: 3.5 % at most if users were single
    assert shares[0] != shares[2]
    assert abs(shares[0] - shares[2]) < 0.02


def test_it_is_a_group_of_columns_that_must_be_asked_for(runs):
    assert DEFAULT_METRICS == ("recovery", "bounds")
    world, sample, result = runs[0]
    assert METRICS["coverage"](world, sample, result, 400) == coverage(world, sample, result)
    local = fit(sample, "local", rank=2)
    assert not has_intervals(replace(local, estimator="spectral"))
    assert METRICS["coverage"](world, sample, replace(local, estimator="spectral"), 400) == {}
    assert load_study("coverage", size="tiny").metrics == ("recovery", "coverage")
    assert load_study("subspace_vs_pairs", size="tiny").metrics == DEFAULT_METRICS


def test_where_nothing_is_finite_there_is_no_share(runs):
    world, sample, _ = runs[0]
    few = sample.first(4)  # six parameters of each user
    row = coverage(world, few, fit(few, "full", norm_bound=2.0))
    assert np.isnan(row["coverage"])
    assert np.isnan(row["half_width"])
    assert row["infinite_errors"] == 1.0


def test_intervals_are_asked_of_the_features_that_the_world_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anisotropic features are anisotropic here too."""
    config = WorldConfig(n_users=4, d1=3, rank=1, features="anisotropic", feature_condition=50.0)
    world = make_world(config, seed=1)
    sample = sample_preferences(world, 100, seed=2)
    result = fit(sample, rank=1, norm_bound=6.0)
    seen = []

    class Spy:
        def intervals(self, users, features, confidence):
            seen.append(features[:, :, 0])
            return Intervals(*np.zeros((3, len(features))))

    # the package has the function under the name of its module
    monkeypatch.setitem(coverage.__globals__, "standard_errors", lambda *_: Spy())
    coverage(world, sample, result, n_features=2000)
    drawn = seen[0].T @ seen[0] / len(seen[0])
    # 8,000 draws of a covariance whose largest entries are near 3
    np.testing.assert_allclose(drawn, world.feature_covariance, atol=0.2)
    assert np.abs(drawn - np.eye(3)).max() > 0.5
