"""What the checks of printed bounds share: sweeps, expectations over the features, the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from simrlhf import metrics, testing
from simrlhf.study.checking import Verdict, exactly, sweeps
from simrlhf.world import WorldConfig, make_world


@pytest.fixture(scope="module")
def swept() -> list[sweeps.Swept]:
    return sweeps.swept_draws("tiny")


def test_a_sweep_changes_its_own_variable_only(swept: list[sweeps.Swept]) -> None:
    rows = pd.DataFrame([sweeps.labels_of(one) for one in swept])
    base = {"N": 10, "n": 400, "d1": 12, "d2": 1, "k": 2, "nu": 1.0}
    for axis, mine in rows.groupby("swept"):
        others = [name for name in base if name != axis and axis != "scale"]
        for name in others:
            assert mine[name].to_numpy() == pytest.approx(base[name]), (axis, name)
        assert mine["value"].nunique() > 1
        counts = mine.groupby("value")["repetition"].nunique()
        assert (counts == sweeps.REPETITIONS["tiny"]).all()
    at = rows[rows["swept"] == "N"]
    assert (at["N"] == at["value"]).all()


def test_other_units_change_neither_labels_nor_rewards_nor_distance(
    swept: list[sweeps.Swept],
) -> None:
    pairs = {(one.value, one.draw.repetition): one.draw for one in swept if one.axis == "scale"}
    for (value, repetition), draw in pairs.items():
        usual = pairs[1.0, repetition]
        # the base cell is nested in a longer sample
        labels = [one.preferences.labels[one.preferences.weights > 0] for one in (draw, usual)]
        assert np.array_equal(*labels)
        distances = [
            metrics.recovery(one.world, one.result)["subspace_distance"] for one in (draw, usual)
        ]
        assert distances[0] == pytest.approx(distances[1], rel=1e-4)
        root = draw.world.feature_root
        if root is not None:
            assert root @ draw.world.delta == pytest.approx(usual.world.delta, rel=1e-12)
            assert root == pytest.approx(value * np.eye(root.shape[0]))


@pytest.mark.parametrize("features", ["gaussian", "anisotropic"])
@pytest.mark.parametrize("link", ["logistic", "probit"])
def test_quadrature_is_the_mean_over_drawn_features(features: str, link: str) -> None:
    """The rival forgets the part of the error that lies along the truth."""
    config = WorldConfig(n_users=3, d1=4, d2=2, rank=2, features=features, link=link)
    world = make_world(config, seed=1)
    estimate = 0.6 * world.delta + 0.1
    root = np.eye(4) if world.feature_root is None else world.feature_root
    x = root @ np.random.default_rng(0).standard_normal((100_000, 4, 2))
    z, other_z = (np.tensordot(x, m, axes=((1, 2), (1, 2))) for m in (world.delta, estimate))
    squares = (np.asarray(world.link.mean(z)) - np.asarray(world.link.mean(other_z))) ** 2
    error = squares.std(axis=0) / np.sqrt(x.shape[0])
    found = sweeps.mean_square(world, estimate)
    assert (np.abs(found - squares.mean(axis=0)) < 4.0 * error).all()
    rewards = sweeps.mean_square(world, estimate, of_rewards=True)
    spread = ((z - other_z) ** 2).std(axis=0) / np.sqrt(x.shape[0])
    assert (np.abs(rewards - ((z - other_z) ** 2).mean(axis=0)) < 4.0 * spread).all()
    apart = replace(world, delta=np.zeros_like(world.delta))
    rival = sweeps.mean_square(apart, estimate - world.delta)
    assert (np.abs(rival - squares.mean(axis=0)) > 4.0 * error).any()


def test_the_truth_has_no_error() -> None:
    world = make_world(WorldConfig(n_users=2, d1=4, d2=1, rank=1))
    assert sweeps.mean_square(world, world.theta) == pytest.approx(np.zeros(2), abs=1e-20)


def _calibration(exponent: float) -> testing.Calibration:
    x, label = np.tile([1.0, 10.0], 5), np.repeat(np.arange(5), 2)
    return testing.calibrate(x**exponent, 1.0, variables={"n": x}, repetition=label)


@pytest.mark.parametrize(
    ("exponent", "tightness", "verdict"),
    [
        (0.5, None, Verdict.REFUTED),
        (-0.5, None, Verdict.LOOSE),
        (0.0, None, Verdict.HOLDS),
        (0.0, 0.9, Verdict.HOLDS),
        (0.0, 0.1, Verdict.LOOSE),
        (0.5, 0.1, Verdict.REFUTED),
    ],
)
def test_one_rule_for_printed_bounds(
    exponent: float, tightness: float | None, verdict: Verdict
) -> None:
    judged = testing.assert_identity([1.0], [1.0], rival=[2.0])
    finding = sweeps.printed(
        _calibration(exponent),
        [judged],
        claims=[],
        quantity="q",
        measured=exactly(1.0),
        remark="r",
        rows=pd.DataFrame({"x": [1.0]}),
        tightness=tightness,
        more={"extra": 2.0},
    )
    assert finding.verdict is verdict
    assert finding.constants["drift_n"] == pytest.approx(exponent)
    assert finding.constants["extra"] == 2.0


def test_a_constant_of_half_of_the_seeds_is_judged_on_the_other_half() -> None:
    rng = np.random.default_rng(4)
    rows = pd.DataFrame({"swept": "n", "value": 1.0, "repetition": np.arange(40)})
    measured = rng.uniform(0.6, 1.0, size=40)
    held = sweeps.held_out_constant(rows, measured, np.ones(40), delta=0.05, statement="s")
    assert held.holds
    # the odd seeds are ten times as large: what even ones taught does not cover them
    worse = np.where(rows["repetition"] % 2 == 1, 10.0 * measured, measured)
    assert not sweeps.held_out_constant(rows, worse, np.ones(40), delta=0.05, statement="s").holds
