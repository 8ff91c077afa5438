"""Random splits of real comparisons into training, validation and test by whole groups."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simrlhf.core import checks, streams
from simrlhf.data.tables import PairTable

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")


class Units(NamedTuple):
    """What a split keeps whole.

    Attributes:
        index: `(P,)` unit of each pair, `0 .. n_units - 1`.
        n_units: their number.
        noun: what they are, in the plural.
        warning: why the split may be less honest than it looks; empty for groups.
    """

    index: np.ndarray
    n_units: int
    noun: str
    warning: str


def split_units(table: PairTable) -> Units:
    """The groups of the table; without them its pairs, with a warning.

    Equal pairs (the same `pair_id`, or the same two items in either order) stay together.

    Raises:
        InputError: fewer than three units.
    """
    noun, warning = "groups", ""
    if table.groups is not None:
        names = table.groups
    else:
        noun = "pairs"
        warning = (
            "The data have no group column, so the split is by pair: pairs that share items may "
            "leak from training into test and flatter the estimators with many parameters; add a "
            "group column (such as the topic) for an honest split."
        )
        names = _pair_names(table)
    found, index = np.unique(names, return_inverse=True, axis=0)
    checks.require(
        len(found) >= 3,
        f"an honest split needs at least 3 {noun} (training, validation, test), got {len(found)}; "
        "add groups, or drop the group column to split by pair",
    )
    return Units(index.ravel(), len(found), noun, warning)


def draw_parts(
    units: Units, *, fractions: tuple[float, float, float], seed: int, split: int
) -> np.ndarray:
    """Part (`TRAIN`, `VALIDATION` or `TEST`) of each pair `(P,)` in random split number `split`.

    The units are dealt out by `fractions`; each part gets one at least.
    """
    n_test, n_validation = (max(1, round(f * units.n_units)) for f in (fractions[2], fractions[1]))
    n_test = min(n_test, units.n_units - 2)
    n_validation = min(n_validation, units.n_units - n_test - 1)
    order = streams.generator(seed, "honest split", split).permutation(units.n_units)
    part = np.full(units.n_units, TRAIN)
    part[order[:n_test]] = TEST
    part[order[n_test : n_test + n_validation]] = VALIDATION
    return part[units.index]


def _pair_names(table: PairTable) -> np.ndarray:
    if table.pair_ids is not None:
        return table.pair_ids
    if table.pairs is not None:
        return np.sort(table.pairs, axis=1)
    return np.arange(table.n_pairs)
