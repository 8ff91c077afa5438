"""What an honest evaluation tries: its settings, the estimators and their grids."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.data import text
from simrlhf.data.preferences import Preferences
from simrlhf.data.tables import PairTable
from simrlhf.estimators import ESTIMATORS, Estimator, check_shape

REFERENCE = "global"


@dataclass(frozen=True, kw_only=True)
class HonestSettings:
    """What the evaluation tries, and on how many splits.

    Attributes:
        estimators: names of `list_estimators()`; `global` is always added, as the reference.
        ranks, ridges: the grid for the validation groups; ranks above the limit are left out.
        base: `"none"`: every class starts from zero; `"global"`: the fitted global reward is
            `theta_init` of the others, which then fit deviations from it. On UKPConvArg1 it does
            not pay for `share_b`: validation loss .554 against .553, mean of 10 splits.
        norm_bound: `R` of every class, `None` for none.
        dimensions: latent dimensions of text features; ignored for numeric ones.
        n_splits, seed: random splits and their stream.
        fractions: shares of training, validation and test groups.
        min_train, min_test: a user takes part in a split with at least `min_train` training pairs
            and is scored with at least `min_test` pairs in the part that scores.
    """

    estimators: tuple[str, ...] = ("share_b", "global", "full", "local")
    ranks: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    ridges: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
    base: str = "none"
    norm_bound: float | None = None
    dimensions: int = text.DIMENSIONS
    n_splits: int = 10
    seed: int = 0
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
    min_train: int = 10
    min_test: int = 5

    def __post_init__(self) -> None:
        for name in self.estimators:
            checks.choice("estimator", name, ESTIMATORS)
        checks.choice("base", self.base, ("none", "global"))
        checks.require(bool(self.ranks), "ranks is empty; give at least one rank")
        checks.require(bool(self.ridges), "ridges is empty; give at least one ridge")
        for rank in self.ranks:
            checks.integer("rank", rank, low=1)
        for ridge in self.ridges:
            checks.real("ridge", ridge, low=0.0)
        if self.norm_bound is not None:
            checks.real("norm_bound", self.norm_bound, above=0.0, remedy="leave it out for none")
        checks.integer("dimensions", self.dimensions, low=0)
        checks.integer("seed", self.seed, low=0, high=2**63 - 1)
        checks.integer("n_splits", self.n_splits, low=1)
        checks.integer("min_train", self.min_train, low=1)
        checks.integer("min_test", self.min_test, low=1)
        checks.require(
            min(self.fractions) > 0 and abs(sum(self.fractions) - 1) < 1e-9,
            f"fractions {self.fractions} must be positive and add up to 1",
        )


class Setting(NamedTuple):
    """One point of an estimator's grid; `rank` is `None` where the class has none."""

    rank: int | None
    ridge: float


def choose_lineup(table: PairTable, settings: HonestSettings) -> tuple[list[str], dict[str, str]]:
    """Estimators to fit, the reference first, and those that are another one on these data."""
    d1, d2 = _shape(table, settings)
    wanted = [name for name in dict.fromkeys((REFERENCE, *settings.estimators)) if name != "oracle"]
    same_as = {}
    if "local" in wanted and min(d1, d2) == 1:
        same_as["local"] = "full"
    if "share_b" in wanted and d1 == 1:
        same_as["share_b"] = "full"
    fitted = [name for name in wanted if name not in same_as]
    n_users = np.unique(table.user_ids).size
    for entry in (ESTIMATORS[name] for name in fitted if ESTIMATORS[name].needs_rank):
        if not _possible(entry, settings, n_users, d1, d2) and entry.name not in (
            "share_b",
            "local",
        ):
            _check(entry, settings, min(settings.ranks), n_users, d1, d2)  # says why
    return list(dict.fromkeys([*fitted, *same_as.values()])), same_as


def largest_rank(table: PairTable, settings: HonestSettings) -> int:
    """`min(d1, N d2)`: no rank above it means anything on these data."""
    d1, d2 = _shape(table, settings)
    return min(d1, d2 * np.unique(table.user_ids).size)


def _shape(table: PairTable, settings: HonestSettings) -> tuple[int, int]:
    if table.texts is not None:
        return settings.dimensions + 1, 1
    features = table.differences if table.items is None else table.items
    return np.asarray(features).shape[1:]  # type: ignore[return-value]


def candidates(name: str, pairs: Preferences, settings: HonestSettings) -> list[Setting]:
    """The grid of one estimator: ranks and ridges of the settings, as far as its class has them."""
    entry = ESTIMATORS[name]
    ridges = settings.ridges if "ridge" in entry.accepts else (0.0,)
    if name in ("global", "local"):  # one LoRA cannot have a higher rank
        largest = min(pairs.d1, pairs.d2)
        ranks = [rank for rank in settings.ranks if rank <= largest] or [largest]
    elif entry.needs_rank:
        shape = (pairs.n_users, pairs.d1, pairs.d2)
        ranks = _possible(entry, settings, *shape) or [min(pairs.d1, entry.rank_limit(pairs))]
    else:
        return [Setting(None, ridge) for ridge in ridges]
    return [Setting(rank, ridge) for rank in ranks for ridge in ridges]


def _possible(
    entry: Estimator, settings: HonestSettings, n_users: int, d1: int, d2: int
) -> list[int]:
    """The ranks of the settings that a class takes on data of a shape."""
    found = []
    for rank in settings.ranks:
        with suppress(checks.InputError):
            _check(entry, settings, rank, n_users, d1, d2)
            found.append(rank)
    return found


def _check(
    entry: Estimator, settings: HonestSettings, rank: int, n_users: int, d1: int, d2: int
) -> None:
    check_shape(
        entry,
        n_users=n_users,
        d1=d1,
        d2=d2,
        rank=rank,
        norm_bound=settings.norm_bound,
        ridge=max(settings.ridges),
    )
