"""Axes: what a list, a range and a zip span."""

import itertools

import pytest

from simrlhf.core.checks import InputError
from simrlhf.study.axes import axis_values, grid_points, zip_groups


def test_without_a_zip_the_grid_is_the_product() -> None:
    axes = {"a": [1, 2], "b": [3], "c": [4, 5, 6]}
    found = [tuple(point.values()) for point in grid_points(axes)]
    assert found == list(itertools.product(*axes.values()))


def test_zipped_axes_move_together_against_the_others() -> None:
    axes = {"a": [1, 2], "b": ["x", "y"], "c": [8, 9], "d": [0]}
    found = grid_points(axes, [["a", "b", "d"]])
    assert [(p["a"], p["b"], p["c"]) for p in found] == [
        (1, "x", 8),
        (1, "x", 9),
        (2, "y", 8),
        (2, "y", 9),
    ]
    assert all(list(p) == ["a", "b", "c", "d"] for p in found)  # the order of the file


def test_a_zip_of_unequal_lengths_names_them() -> None:
    with pytest.raises(InputError, match=r"need equal lengths, got a with 2, b with 3"):
        grid_points({"a": [1, 2], "b": [1, 2, 3]}, [["a", "b"]])


def test_an_axis_moves_in_one_group_only() -> None:
    with pytest.raises(InputError, match=r"zip names a twice"):
        grid_points({"a": [1, 2], "b": [1, 2], "c": [1, 2]}, [["a", "b"], ["a", "c"]])


def test_a_range_includes_both_ends() -> None:
    log = {"from": 25, "to": 6400, "points": 9}
    assert axis_values("n", log, whole=True) == [25 * 2**i for i in range(9)]
    linear = {"from": -1.0, "to": 1.0, "points": 3, "spacing": "linear"}
    assert axis_values("t", linear, whole=False) == [-1.0, 0.0, 1.0]
    # rounding makes equal values: each counts once
    assert axis_values("n", {"from": 1, "to": 3, "points": 9}, whole=True) == [1, 2, 3]


def test_a_zip_is_one_group_or_several() -> None:
    known = ["a", "b", "c", "d"]
    assert zip_groups(["a", "b"], known) == [["a", "b"]]
    assert zip_groups([["a", "b"], ["c", "d"]], known) == [["a", "b"], ["c", "d"]]
    assert zip_groups([], known) == []
    with pytest.raises(InputError, match=r"zip takes names of swept keys"):
        zip_groups(["a", ["b", "c"]], known)
