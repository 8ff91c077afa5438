"""Metrics of fits in worlds that are not the plain one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import simrlhf as sim
from simrlhf.metrics import bounds_of_fit, efficiency_limits, full_limit, recovery

SIZES = {"n_users": 8, "d1": 6, "rank": 2, "nu": 0.5}


def fitted(n_pairs: int, *, seed: int = 1, **settings):
    world = sim.make_world(sim.WorldConfig(**SIZES, **settings), seed=seed)
    prefs = sim.sample_preferences(world, n_pairs, seed=seed + 1)
    result = sim.fit(prefs, rank=2, norm_bound=12.0)
    return world, result, bounds_of_fit(world, prefs, result, n_pairs=n_pairs)


def test_a_deficient_rank_is_vacuous_everywhere_and_its_distance_is_what_is_missed():
    world, result, row = fitted(200, deficiency=1)
    assert world.basis.shape == (6, 1)
    for name in ("s1", "s2_a_priori", "s2_bregman", "s2_a_posteriori", "theorem_4_1"):
        assert row[name] == math.inf
    for name in ("limit", "reward_limit", "parameters"):
        assert math.isnan(row[name])
    assert row["ceiling"] == 1.0
    found = recovery(world, result)
    outside = world.basis - result.basis @ (result.basis.T @ world.basis)
    assert found["subspace_distance"] == pytest.approx(np.linalg.norm(outside), rel=1e-10)
    # the projections themselves are a full direction further apart
    rival = np.linalg.norm(result.basis @ result.basis.T - world.basis @ world.basis.T)
    assert rival > 1.0 > found["subspace_distance"]
    wide = dataclasses.replace(
        result, basis=np.linalg.qr(np.hstack([world.basis, result.basis]))[0]
    )
    assert recovery(world, wide)["largest_sine"] < 1e-14


def test_a_link_that_is_not_log_concave_has_no_claim_a_priori():
    _, result, row = fitted(200, link="label_flip")
    assert result.status.name == "CONVERGED"
    assert math.isnan(row["s2_a_priori"])
    assert row["s1"] <= row["s2_a_posteriori"] < math.inf
    assert row["limit"] > 0
    _, _, row = fitted(200, link="laplace")
    assert row["s2_a_priori"] == math.inf
    assert row["s1"] <= row["s2_a_posteriori"] < math.inf


def test_the_reward_error_is_measured_under_the_features():
    world, result, _ = fitted(200, features="anisotropic")
    flat = (result.delta - world.delta)[..., 0]
    x = np.random.default_rng(0).normal(size=(40_000, 6)) @ world.feature_root
    squares = ((x @ flat.T) ** 2).mean(axis=1)
    error = squares.std() / np.sqrt(squares.size)
    found = recovery(world, result)["reward_error"] ** 2
    assert abs(squares.mean() - found) < 4 * error
    assert abs(squares.mean() - np.mean(np.sum(flat**2, axis=1))) > 4 * error


def test_limits_with_a_base_model_near_zero_are_the_closed_forms():
    for features in ("anisotropic", "degenerate"):
        config = sim.WorldConfig(**SIZES, features=features, count_spread=0.5)
        world = sim.make_world(config, seed=3)
        moved = dataclasses.replace(world, theta_init=np.full((6, 1), 1e-9))
        closed, matrices = efficiency_limits(world), efficiency_limits(moved)
        # infinities agree too; the base of 1e-9 moves the others by about as much
        assert closed == pytest.approx(matrices, rel=1e-6)
    assert closed.subspace == math.inf
    unweighted = efficiency_limits(dataclasses.replace(world, count_factors=None))
    assert unweighted.share_b != pytest.approx(closed.share_b, rel=0.01)


def test_bounded_features_have_limits_for_regression_only():
    worlds = {
        link: sim.make_world(sim.WorldConfig(**SIZES, features="bounded", link=link), seed=3)
        for link in ("logistic", "identity")
    }
    assert np.isnan(efficiency_limits(worlds["logistic"])).all()
    assert math.isnan(full_limit(worlds["logistic"]))
    plain = sim.make_world(sim.WorldConfig(**SIZES, link="identity"), seed=3)
    assert efficiency_limits(worlds["identity"]) == efficiency_limits(plain)


def test_limits_of_a_large_base_model_are_not_tried():
    config = sim.WorldConfig(n_users=40, d1=1500, rank=2, base_norm=1.0)
    assert np.isnan(efficiency_limits(sim.make_world(config))).all()


def test_fits_reach_the_limits_under_anisotropic_features_and_probit():
    config = sim.WorldConfig(**SIZES, features="anisotropic", feature_condition=4.0, link="probit")
    world = sim.make_world(config, seed=2)
    n_pairs, count = 800, 20
    found = []
    for seed in range(count):
        prefs = sim.sample_preferences(world, n_pairs, seed=seed)
        measured = recovery(world, sim.fit(prefs, rank=2))
        found.append((measured["subspace_distance"] ** 2, measured["reward_error"] ** 2))

    def deviation(limits) -> tuple[np.ndarray, np.ndarray]:
        ratios = n_pairs * np.array(found) / [limits.subspace, limits.share_b]
        error = ratios.std(axis=0, ddof=1) / np.sqrt(count)
        return np.abs(ratios.mean(axis=0) - 1), 4 * error

    off, allowed = deviation(efficiency_limits(world))
    # the approach to the limit is 1 + c / n with c of 10 to 15 (theory.md, L1)
    assert (off < allowed + 15 / n_pairs).all()
    logistic = dataclasses.replace(world, link=sim.core.links.LOGISTIC)
    off, allowed = deviation(efficiency_limits(logistic))
    assert off[0] > allowed[0]  # 0.44 times the logistic limit of the distance


def test_with_a_blind_direction_more_pairs_do_not_help_the_subspace():
    """Audit A3: Lemma 5 needs a regular design."""

    def distances(features: str) -> list[float]:
        # with few pairs the ridge of the likelihood is long, and rounding moves the fit along it
        world = sim.make_world(sim.WorldConfig(**SIZES, features=features), seed=7)
        prefs = sim.sample_preferences(world, 2000, seed=8)
        return [
            recovery(world, sim.fit(prefs.first(n), rank=2, norm_bound=12.0))["subspace_distance"]
            for n in (200, 2000)
        ]

    blind, regular = distances("degenerate"), distances("gaussian")
    assert blind[1] > 0.9 * blind[0] > 0.4
    assert min(blind) > 0.95 * np.sqrt(0.5)  # the sine of 45 degrees, less what chance takes
    assert regular[1] < 0.6 * regular[0]  # the root of ten is 3.2
