"""The constant of a printed bound and its drift, on power laws whose exponent is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simrlhf import testing
from simrlhf.core.checks import InputError

SIZES = np.array([100.0, 200.0, 400.0, 800.0])
BODIES = 200


def nested(rng: np.random.Generator, exponent: float, repetitions: int = 10):
    """Rows whose ratio goes as `n^exponent`, with noise that a repetition's rows share in part."""
    n = np.tile(SIZES, repetitions)
    label = np.repeat(np.arange(repetitions), SIZES.size)
    noise = 0.2 * rng.normal(size=repetitions)[label] + 0.1 * rng.normal(size=n.size)
    return n, np.exp(noise) * n**exponent, label


def test_constant_is_the_largest_ratio_and_nothing_smaller_covers():
    measured, bound = np.array([1.0, 3.0, 2.0] * 5), np.array([2.0, 2.0, 4.0] * 5)
    x, label = np.array([1.0, 2.0, 3.0] * 5), np.repeat(np.arange(5), 3)
    found = testing.calibrate(measured, bound, variables={"n": x}, repetition=label)
    assert found.constant == 1.5
    assert found.median == 0.5
    testing.never_violated(measured, found.constant * bound, rival=0.99 * found.constant * bound)


@pytest.mark.parametrize("exponent", [-1.0, -0.5, 0.0, 0.5])
def test_exact_power_laws_have_their_exponent_as_drift(exponent):
    x, label = np.tile(SIZES, 5), np.repeat(np.arange(5), 4)
    scale = np.exp(label)  # repetitions at different levels
    found = testing.calibrate(scale * x**exponent, 1.0, variables={"n": x}, repetition=label)
    assert found.drifts["n"].slope.estimate == pytest.approx(exponent, abs=1e-12)
    assert found.drifts["n"].smallest == 100.0
    assert found.drifts["n"].largest == 800.0


@pytest.mark.parametrize(
    ("exponent", "direction", "rises", "falls"),
    [
        (0.5, "infinity", True, False),
        (-0.5, "infinity", False, True),
        (0.5, "zero", False, True),
        (-0.5, "zero", True, False),
        (0.5, "both", True, False),
        (-0.5, "both", True, False),
        (0.1, "both", False, False),
    ],
)
def test_a_missing_factor_under_a_root_is_read_in_the_direction_the_variable_may_go(
    exponent, direction, rises, falls
):
    """Nine bodies of ten at least, for one in a hundred intervals misses its slope."""
    rng = np.random.default_rng(3)
    said = Counter()
    for _ in range(BODIES):
        x, ratio, label = nested(rng, exponent)
        drift = testing.calibrate(
            ratio, 1.0, variables={"n": x}, repetition=label, towards={"n": direction}
        ).drifts["n"]
        said[drift.rises, drift.falls] += 1
    assert said[rises, falls] >= 0.9 * BODIES, said


def test_rows_outside_of_a_sweep_count_for_the_constant_and_not_for_the_drift():
    x = np.array([1.0, 2.0, np.nan] * 5)
    measured, label = np.array([1.0, 1.0, 7.0] * 5), np.repeat(np.arange(5), 3)
    found = testing.calibrate(measured, 1.0, variables={"n": x}, repetition=label)
    assert found.constant == 7.0
    assert found.drifts["n"].slope.estimate == 0.0
    assert found.rising == found.falling == ()


def test_the_record_names_what_rises_and_what_falls():
    x, label = np.tile(SIZES, 5), np.repeat(np.arange(5), 4)
    apart = (
        np.concatenate([x, np.full(x.size, np.nan)]),
        np.concatenate([np.full(x.size, np.nan), x]),
    )
    found = testing.calibrate(
        np.concatenate([x, 1.0 / x]),
        1.0,
        variables={"N": apart[0], "n": apart[1]},
        repetition=np.tile(label, 2),
    )
    assert found.rising == ("N",)
    assert found.falling == ("n",)
    assert found.numbers["drift_N"] == pytest.approx(1.0)
    assert found.spelt("n") == "n -1.00 (-1.00 to -1.00)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measured": np.zeros(20)}, "not positive"),
        ({"bound": np.zeros(20)}, "not positive"),
        ({"variables": {"n": np.full(20, np.nan)}}, "no row"),
        ({"variables": {"n": np.full(20, 3.0)}}, "one value of n"),
        ({"variables": {"n": np.tile([0.0, 1.0], 10)}}, "not positive"),
        ({"repetition": np.repeat([0, 1], 10)}, "repetitions"),
        ({"towards": {"n": "up"}}, "direction"),
        ({"towards": {"m": "zero"}}, "variable of towards"),
    ],
)
def test_unfit_evidence_is_refused(change, message):
    given = {
        "measured": np.ones(20),
        "bound": np.ones(20),
        "variables": {"n": np.tile(SIZES, 5)},
        "repetition": np.repeat(np.arange(5), 4),
    } | change
    measured, bound = given.pop("measured"), given.pop("bound")
    with pytest.raises(InputError, match=message):
        testing.calibrate(measured, bound, **given)
