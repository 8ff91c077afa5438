"""The radius (B.1) by hand, and the user whose truth the printed set leaves out (A7)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks

GIVEN = {
    "log_bracketing": 8.0,
    "n_users": 4,
    "n_pairs": 25,
    "nu": 0.5,
    "tail_energy": 0.01,
    "rank": 2,
    "d2": 3,
    "delta": 0.1,
    "own_bias": 0.07,
}


def test_the_radius_equals_a_hand_calculation():
    bound = theory.confidence_radius(**GIVEN, feature_norm=3.0, constant=5.0)
    bracket = 0.16 + (6 + math.log(40)) / 25 + 0.1 + 0.07
    assert bound.value == pytest.approx(math.sqrt(5.0 / 18.0 * bracket), rel=1e-14)
    # rivals: c_3 / L_1^2, c_3 / (2 L_1), the constant outside the root
    for factor in (math.sqrt(5.0 / 9.0), math.sqrt(5.0 / 6.0), 5.0 / math.sqrt(18.0)):
        assert bound.value != pytest.approx(factor * math.sqrt(bracket), rel=0.1)


def test_the_radius_is_the_bound_of_theorem_4_2_in_other_units():
    for constant in (0.5, 2.0):
        radius = theory.confidence_radius(**GIVEN, constant=2.0 * constant**2)  # (C.3)
        assert radius.value == pytest.approx(
            theory.theorem_4_2(**GIVEN, constant=constant).value, rel=1e-14
        )


def test_the_smallest_bias_leaves_out_the_one_user_off_the_subspace():
    """A7: 100 users, one of them 0.8 off; data without end, so that the estimate is `Delta^<>`."""
    rng = np.random.default_rng(11)
    delta = np.zeros((100, 6, 1))
    delta[:, :2] = math.sqrt(2.0) * rng.normal(size=(100, 2, 1))
    delta[7, 5] = 0.8
    truth = theory.diversity_metrics(delta, rank=2)
    given = GIVEN | {
        "n_users": 100,
        "n_pairs": 1e12,
        "nu": truth.nu,
        "tail_energy": truth.tail_energy,
        "constant": 2.0,
    }
    distances = np.linalg.norm(delta - truth.truncated, axis=(1, 2))
    printed = theory.confidence_radius(**given | {"own_bias": truth.user_bias.min()})
    own = [theory.confidence_radius(**given | {"own_bias": b}).value for b in truth.user_bias]
    assert np.flatnonzero(distances > printed.value).tolist() == [7]
    assert (distances <= np.array(own)).all()


def test_impossible_radii_are_refused_and_empty_ones_say_so():
    for change in ({"feature_norm": 0.0}, {"constant": -1.0}, {"own_bias": -1.0}, {"delta": 2.0}):
        with pytest.raises(checks.InputError, match=next(iter(change))):
            theory.confidence_radius(**GIVEN | change)
    for change in ({"nu": 0.0}, {"ceiling": 0.1}, {"own_bias": math.inf}):
        bound = theory.confidence_radius(**GIVEN | change)
        assert bound.status is theory.BoundStatus.VACUOUS
