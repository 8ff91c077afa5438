"""Cell functions: what a study computes for the draws of a task.

A cell function takes a `Task` and returns one row for each of its cells, whatever happens: a cell
that raises is a row with status `FAILED`, the reason in `message`, and no metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics import (
    bounds_of_fit,
    coverage,
    decision_gaps,
    guaranteed_values,
    has_intervals,
    has_sets,
    held_out,
    pessimistic_gaps,
    recovery,
    reward_limit,
    sets_and_gaps,
)
from simrlhf.sampling import sample_preferences
from simrlhf.study import newcomers
from simrlhf.study.tasks import (
    Cell,
    Draw,
    Row,
    Settings,
    Task,
    drawn_world,
    failed_row,
    failed_rows,
    fit_in_worlds,
    measured_row,
    reason_of,
    settings_of,
    stopwatch,
)
from simrlhf.world import World


class _Sample(NamedTuple):
    world: World
    preferences: Preferences


class _Wanted(NamedTuple):
    """A cell with all that its row needs."""

    key: str
    draw: Draw
    sample: _Sample

    @property
    def cell(self) -> Cell:
        return self.draw.cells[self.key]

    @property
    def settings(self) -> tuple[str, int, Settings]:
        """What the members of a batch have in common."""
        point, estimator = self.draw.point, self.cell.estimator
        return (estimator, point.world.rank, settings_of(point.fit, estimator))


def run_recovery(task: Task) -> list[Row]:
    """Fit, and measure distance to the truth; for `share_b` also every bound on it.

    Worlds and samples are common random numbers: the same for every estimator and, nested, for
    every sample size. Cells of one estimator are fitted as a batch where the device profits.
    """
    rows: list[Row] = []
    wanted: dict[tuple, list[_Wanted]] = {}
    for draw in task.draws:
        try:
            samples = _samples(task.seed, draw)
        except Exception as error:  # a row says so: one draw must not end the others
            rows += failed_rows([draw], reason_of(error))
            continue
        for key, cell in draw.cells.items():
            one = _Wanted(key, draw, samples[cell.n_pairs])
            wanted.setdefault(one.settings, []).append(one)
    for cells in wanted.values():
        rows += _fit_and_measure(cells, task.metrics)
    return rows


def _samples(seed: int, draw: Draw) -> dict[int, _Sample]:
    world, of_sample = drawn_world(seed, draw)
    everything = sample_preferences(world, draw.largest, seed=of_sample)
    sizes = {cell.n_pairs for cell in draw.cells.values()}
    return {n: _Sample(world, everything.switched_to_first(world.counts(n))) for n in sorted(sizes)}


def _fit_and_measure(cells: list[_Wanted], metrics: tuple[str, ...]) -> list[Row]:
    """Rows of one estimator's cells; a batch that raises is tried again cell by cell.

    Fits of a batch cannot be timed apart: each row's `seconds` is an equal share of the batch's,
    without what went into compiling.
    """
    estimator, rank, settings = cells[0].settings
    seconds = stopwatch()
    try:
        samples = [cell.sample for cell in cells]
        results = fit_in_worlds(samples, estimator, rank=rank, settings=settings)
    except Exception as error:
        if len(cells) > 1:
            return [row for cell in cells for row in _fit_and_measure([cell], metrics)]
        return [failed_row(cells[0].draw, cells[0].key, reason_of(error))]
    share = seconds() / len(cells)
    return [
        _measure(cell, result, metrics, share) for cell, result in zip(cells, results, strict=True)
    ]


def _measure(wanted: _Wanted, result: FitResult, metrics: tuple[str, ...], seconds: float) -> Row:
    world, preferences = wanted.sample
    try:
        measured: Row = {}
        for name in metrics:
            measured |= METRICS[name](world, preferences, result, wanted.cell.n_pairs)
    except Exception as error:
        return failed_row(wanted.draw, wanted.key, reason_of(error))
    return measured_row(wanted.draw, wanted.key, measured=measured, result=result, seconds=seconds)


def _recovery(world: World, _: Preferences, result: FitResult, __: int) -> Row:
    return recovery(world, result)


def _bounds(world: World, preferences: Preferences, result: FitResult, n_pairs: int) -> Row:
    # what is proved is proved of share_b, about deviations from the world's own base
    if not np.array_equal(result.theta_init, world.theta_init):
        return {}
    if result.estimator in ("oracle", "full"):
        return {"reward_limit": reward_limit(world, result, n_pairs=n_pairs)}
    if result.estimator != "share_b":
        return {}
    return bounds_of_fit(world, preferences, result, n_pairs=n_pairs)


def _held_out(world: World, _: Preferences, result: FitResult, __: int) -> Row:
    return held_out(world, result)


def _coverage(world: World, preferences: Preferences, result: FitResult, _: int) -> Row:
    return coverage(world, preferences, result) if has_intervals(result) else {}


def _decisions(world: World, _: Preferences, result: FitResult, n_pairs: int) -> Row:
    return decision_gaps(world, result, n_pairs=n_pairs)


def _pessimism(world: World, preferences: Preferences, result: FitResult, _: int) -> Row:
    return pessimistic_gaps(world, preferences, result) if has_sets(result) else {}


def _sets(world: World, preferences: Preferences, result: FitResult, _: int) -> Row:
    return sets_and_gaps(world, preferences, result) if has_sets(result) else {}


def _guaranteed(world: World, preferences: Preferences, result: FitResult, _: int) -> Row:
    # of share_b's class, which is not convex
    return guaranteed_values(world, preferences, result) if result.estimator == "share_b" else {}


METRICS: dict[str, Callable[[World, Preferences, FitResult, int], Row]] = {
    "recovery": _recovery,
    "bounds": _bounds,
    "held_out": _held_out,
    "coverage": _coverage,
    "decisions": _decisions,
    "pessimism": _pessimism,
    "sets": _sets,
    "guaranteed": _guaranteed,
}
# those that ask for a decision problem
DECISION_METRICS = ("decisions", "pessimism", "sets", "guaranteed")
# what a study measures that does not say
DEFAULT_METRICS = ("recovery", "bounds")


class CellKind(NamedTuple):
    """A cell function, and the groups of columns that it measures."""

    run: Callable[[Task], list[Row]]
    metrics: tuple[str, ...]


CELLS = {
    "recovery": CellKind(run_recovery, tuple(METRICS)),
    "new_users": CellKind(newcomers.run_new_users, tuple(newcomers.METRICS)),
}
