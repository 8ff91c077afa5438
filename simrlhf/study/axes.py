"""Axes of a grid: lists, ranges and zips, and the points they span."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.world.config import WorldConfig

# points beyond it are a mistake of writing: each becomes a world that is checked before any work
LARGEST_GRID = 100_000
_RANGE = ("from", "to", "points", "spacing")


class Newcomers(NamedTuple):
    """Who comes late in the cell `new_users`.

    Attributes:
        new_users: the last of the world's users, who are not in the fit that they join.
        old_pairs: pairs of each of the others; the newcomers' own are the point's `n_pairs`.
    """

    new_users: int
    old_pairs: int


class Point(NamedTuple):
    """One setting of a grid: a world, settings of `fit`, and pairs per user, ascending."""

    world: WorldConfig
    fit: tuple[tuple[str, Any], ...]
    n_pairs: tuple[int, ...]
    newcomers: Newcomers | None = None


def axis_values(name: str, value: Any, *, whole: bool) -> list[Any]:
    """The values of one axis.

    Args:
        name: shown in messages.
        value: a list; a range `{from = 25, to = 6400, points = 9}`, spaced evenly in the logarithm
            unless `spacing = "linear"`; or one value.
        whole: whether the field takes integers: a range is then rounded, and equal values merge.
    """
    if isinstance(value, Mapping):
        return _range(name, value, whole=whole)
    values = list(value) if isinstance(value, list) else [value]
    checks.require(bool(values), f"{name} is empty; give at least one value")
    return values


def grid_points(
    axes: Mapping[str, Sequence[Any]], zips: Sequence[Sequence[str]] = ()
) -> list[dict[str, Any]]:
    """The product of all axes, where the axes of a zip move together.

    Args:
        axes: values by name.
        zips: groups of names; an axis is in one group at most. Axes with one value are the same
            in every line of their group.

    Raises:
        InputError: lengths in a group that differ, or more than 100,000 points.
    """
    grouped = [name for group in zips for name in group]
    twice = sorted({name for name in grouped if grouped.count(name) > 1})
    checks.require(not twice, f"zip names {', '.join(twice)} twice; an axis moves in one group")
    factors = [_zipped({name: axes[name] for name in group if name in axes}) for group in zips]
    factors += [[{name: value} for value in axes[name]] for name in axes if name not in grouped]
    count = math.prod(len(lines) for lines in factors)
    checks.require(
        count <= LARGEST_GRID,
        f"the grid has {count:,} points, above the limit {LARGEST_GRID:,}; shorten its axes or "
        "zip those that belong together",
    )
    merged = []
    for lines in itertools.product(*factors):
        point: dict[str, Any] = {}
        for line in lines:
            point |= line
        merged.append({name: point[name] for name in axes})
    return merged


def zip_groups(value: Any, known: Collection[str]) -> list[list[str]]:
    """`zip = ["a", "b"]` or `zip = [["a", "b"], ["c", "d"]]` as groups of names."""
    shape = 'zip takes names of swept keys, as in zip = ["n_users", "n_pairs"], or a list of such'
    checks.require(isinstance(value, list), f"{shape}; got {value!r}")
    nested = [entry for entry in value if isinstance(entry, list)]
    groups = nested if nested else [value] if value else []
    checks.require(
        (len(nested) in (0, len(value)))
        and all(isinstance(name, str) for group in groups for name in group),
        f"{shape}; got {value!r}",
    )
    for group in groups:
        checks.require(len(group) > 1, f"zip {group} has one key; it takes two or more")
        for name in group:
            checks.choice("key in zip", name, sorted(known), remedy="zip takes swept keys")
    return groups


def _zipped(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    lengths = {name: len(values) for name, values in columns.items() if len(values) > 1}
    checks.require(
        len(set(lengths.values())) <= 1,
        "zipped keys need equal lengths, got "
        + ", ".join(f"{name} with {count}" for name, count in lengths.items()),
    )
    count = max(lengths.values(), default=1)
    full = {name: list(v) if len(v) > 1 else list(v) * count for name, v in columns.items()}
    return [dict(zip(full, line, strict=True)) for line in zip(*full.values(), strict=True)]


def _range(name: str, table: Mapping[str, Any], *, whole: bool) -> list[Any]:
    for key in table:
        checks.choice(f"key of the range {name}", key, _RANGE)
    for key in ("from", "to", "points"):
        checks.require(
            key in table, f"the range {name} needs {key}: {{from = 25, to = 6400, points = 9}}"
        )
    spacing = checks.choice(
        f"{name}.spacing", table.get("spacing", "log"), ("log", "linear"), remedy="log by default"
    )
    low = checks.real(
        f"{name}.from",
        table["from"],
        above=0.0 if spacing == "log" else None,
        remedy='spacing = "linear" takes any sign' if spacing == "log" else "",
    )
    high = checks.real(f"{name}.to", table["to"], above=low, remedy="a range ascends")
    count = checks.integer(f"{name}.points", table["points"], low=2, high=LARGEST_GRID)
    spread = np.geomspace if spacing == "log" else np.linspace
    values = spread(low, high, count)
    if whole:
        return list(dict.fromkeys(int(v) for v in np.rint(values)))
    return [float(v) for v in values]
