"""Argument checks: what is refused, and that the message shows the value, the limit, the remedy."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simrlhf.core import checks


@given(value=st.integers(-100, 100), low=st.integers(-100, 100), high=st.integers(-100, 100))
def test_an_integer_passes_exactly_when_it_lies_in_the_closed_range(value, low, high):
    if low <= value <= high:
        assert checks.integer("rank", value, low=low, high=high) == value
    else:
        with pytest.raises(checks.InputError, match="rank"):
            checks.integer("rank", value, low=low, high=high)


@given(value=st.floats(-10, 10), above=st.floats(-10, 10))
def test_above_is_a_strict_limit(value, above):
    if value > above:
        assert checks.real("noise", value, above=above) == value
    else:
        with pytest.raises(checks.InputError, match="must be greater than"):
            checks.real("noise", value, above=above)


@pytest.mark.parametrize("value", [True, np.True_, 2.0, 2.5, "2", None, np.zeros((3, 3))])
def test_an_integer_is_not_a_truth_value_a_fraction_or_a_text(value):
    with pytest.raises(checks.InputError, match="rank must be an integer, got") as refused:
        checks.integer("rank", value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", [True, np.True_, "0.5", b"1", None, 1j, [1.0, 2.0], 10**400])
def test_a_real_number_is_not_a_truth_value_a_text_or_too_large_to_hold(value):
    with pytest.raises(checks.InputError, match="nu must be a real number, got"):
        checks.real("nu", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_real_number_is_finite(value):
    with pytest.raises(checks.InputError, match="nu must be finite"):
        checks.real("nu", value)


def test_numpy_scalars_are_numbers():
    assert checks.integer("rank", np.int32(3)) == 3
    assert checks.real("nu", np.float32(0.5)) == 0.5


def test_the_message_shows_value_limit_and_remedy_on_one_line():
    with pytest.raises(checks.InputError) as refused:
        checks.integer("rank", 9, high=6, remedy="lower the rank")
    assert str(refused.value) == "rank = 9 must be at most 6; lower the rank"


@pytest.mark.parametrize(
    ("value", "limit"), [(1_000_001, 1_000_000), (2**63, 2**63 - 1), (1.00000001, 1.0)]
)
def test_the_message_tells_a_value_from_a_limit_close_to_it(value, limit):
    check = checks.integer if isinstance(value, int) else checks.real
    with pytest.raises(checks.InputError) as refused:
        check("seed", value, high=limit)
    shown = re.fullmatch(r"seed = (\S+) must be at most (\S+)", str(refused.value))
    assert shown is not None
    assert shown[1] != shown[2]
    assert (
        f"{value:g}" == f"{limit:g}"
    )  # the six digits of a plain format would not tell them apart


def test_a_wrong_choice_names_the_allowed_ones_and_the_nearest():
    with pytest.raises(checks.InputError) as refused:
        checks.choice("estimator", "share_bb", ["share_b", "local"])
    message = str(refused.value)
    assert "choose one of share_b, local" in message
    assert "did you mean 'share_b'?" in message
    assert checks.choice("estimator", "local", ["share_b", "local"]) == "local"


def test_the_first_value_that_is_not_finite_is_located():
    array = np.zeros((2, 3))
    checks.finite("features", array)
    array[1, 0], array[1, 2] = np.nan, np.inf
    with pytest.raises(checks.InputError, match=r"2 values .* index \(1, 0\): nan"):
        checks.finite("features", array)


def test_a_shape_may_leave_lengths_open_but_not_the_number_of_axes():
    checks.shape("labels", np.zeros((4, 2)), (None, 2))
    for wrong in [(4, 2, 1), (4,), (4, 3)]:
        with pytest.raises(checks.InputError, match=r"expected \(any, 2\); one per pair"):
            checks.shape("labels", np.zeros(wrong), (None, 2), remedy="one per pair")


def test_an_input_error_is_a_value_error():
    with pytest.raises(ValueError, match="no pairs"):
        checks.require(False, "no pairs")
    checks.require(True, "never shown")
