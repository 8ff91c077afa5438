"""Cell functions: what a study computes for the draws of one grid point.

A cell function takes a `Task` and returns one row for each of its cells, whatever happens: a cell
that raises is a row with status `FAILED`, the reason in `message`, and no metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, fit_many
from simrlhf.metrics import bounds_of_fit, recovery
from simrlhf.sampling import sample_preferences
from simrlhf.study.axes import Point
from simrlhf.study.store import FAILED
from simrlhf.world import World, make_world

Row = dict[str, Any]


class Cell(NamedTuple):
    """One row to compute: a sample size and an estimator."""

    n_pairs: int
    estimator: str


class Draw(NamedTuple):
    """One world and its sample, and the cells by content key that are wanted of it."""

    repetition: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Task:
    """Draws of one grid point, computed together.

    Attributes:
        point: world, settings of `fit`, and the sample sizes: smaller samples are the first pairs
            of the largest.
        seed: root of the study's randomness.
        metrics: names of the groups of columns.
        draws: what to compute.
    """

    point: Point
    seed: int
    metrics: tuple[str, ...]
    draws: tuple[Draw, ...]

    @property
    def n_cells(self) -> int:
        return sum(len(draw.cells) for draw in self.draws)


class _Sample(NamedTuple):
    world: World
    preferences: Preferences


class _Wanted(NamedTuple):
    """A cell with all that its row needs."""

    key: str
    repetition: int
    cell: Cell
    sample: _Sample


def run_recovery(task: Task) -> list[Row]:
    """Fit, and measure distance to the truth; for `share_b` also every bound on it.

    Worlds and samples are common random numbers: the same for every estimator and, nested, for
    every sample size. Cells of one estimator are fitted as a batch where the device profits.
    """
    rows: list[Row] = []
    wanted: dict[str, list[_Wanted]] = {}
    for draw in task.draws:
        try:
            samples = _samples(task, draw)
        except Exception as error:  # a row says so: one draw must not end the others
            rows += failed_rows(task, [draw], _reason(error))
            continue
        for key, cell in draw.cells.items():
            sample = samples[cell.n_pairs]
            wanted.setdefault(cell.estimator, []).append(
                _Wanted(key, draw.repetition, cell, sample)
            )
    for cells in wanted.values():
        rows += _fit_and_measure(task, cells)
    return rows


def failed_rows(task: Task, draws: list[Draw] | tuple[Draw, ...], reason: str) -> list[Row]:
    """Rows of cells that could not be computed."""
    return [
        {
            **_identity(task, key, draw.repetition, cell),
            "status": FAILED,
            "message": reason,
        }
        for draw in draws
        for key, cell in draw.cells.items()
    ]


def _samples(task: Task, draw: Draw) -> dict[int, _Sample]:
    seeds = streams.generator(task.seed, "repetition", draw.repetition).integers(2**62, size=2)
    world = make_world(task.point.world, seed=int(seeds[0]))
    everything = sample_preferences(world, max(task.point.n_pairs), seed=int(seeds[1]))
    sizes = {cell.n_pairs for cell in draw.cells.values()}
    return {n: _Sample(world, _first(everything, n)) for n in sorted(sizes)}


def _first(everything: Preferences, n_pairs: int) -> Preferences:
    """The first pairs of every user, the others switched off: same shapes, no new compilation."""
    place = np.arange(everything.n_total) - everything.offsets[everything.users]
    return everything.reweighted((place < n_pairs).astype(float))


def _fit_and_measure(task: Task, cells: list[_Wanted]) -> list[Row]:
    """Rows of one estimator's cells; a batch that raises is tried again cell by cell.

    Fits of a batch cannot be timed apart: each row's `seconds` is an equal share of the batch's.
    """
    started = time.perf_counter()
    try:
        results = _fit(task, cells)
    except Exception as error:
        if len(cells) > 1:
            return [row for cell in cells for row in _fit_and_measure(task, [cell])]
        return [_failed_row(task, cells[0], error)]
    seconds = (time.perf_counter() - started) / len(cells)
    return [
        _measure(task, cell, result, seconds) for cell, result in zip(cells, results, strict=True)
    ]


def _fit(task: Task, cells: list[_Wanted]) -> list[FitResult]:
    estimator = cells[0].cell.estimator
    worlds = [cell.sample.world for cell in cells]
    return fit_many(
        [cell.sample.preferences for cell in cells],
        estimator,
        rank=task.point.world.rank,
        bases=[world.basis for world in worlds] if estimator == "oracle" else None,
        theta_inits=[world.theta_init if world.theta_init.any() else None for world in worlds],
        **dict(task.point.fit),
    )


def _measure(task: Task, wanted: _Wanted, result: FitResult, seconds: float) -> Row:
    identity = _identity(task, wanted.key, wanted.repetition, wanted.cell)
    try:
        measured: Row = {}
        for name in task.metrics:
            measured |= METRICS[name](
                wanted.sample.world, wanted.sample.preferences, result, wanted.cell.n_pairs
            )
    except Exception as error:
        return _failed_row(task, wanted, error)
    return {
        **identity,
        **measured,
        "neg_log_likelihood": result.neg_log_likelihood,
        "gradient_norm": result.gradient_norm,
        "status": result.status.name,
        "message": None,
        "iterations": result.iterations,
        "data_passes": result.data_passes,
        "seconds": seconds,
    }


def _identity(task: Task, key: str, repetition: int, cell: Cell) -> Row:
    """What was asked: the columns that every row has."""
    return {
        "key": key,
        "repetition": repetition,
        "estimator": cell.estimator,
        "n_pairs": cell.n_pairs,
        **asdict(task.point.world),
        **{f"fit_{name}": value for name, value in task.point.fit},
    }


def _failed_row(task: Task, wanted: _Wanted, error: Exception) -> Row:
    draw = Draw(wanted.repetition, {wanted.key: wanted.cell})
    return failed_rows(task, [draw], _reason(error))[0]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _recovery(world: World, _: Preferences, result: FitResult, __: int) -> Row:
    return recovery(world, result)


def _bounds(world: World, preferences: Preferences, result: FitResult, n_pairs: int) -> Row:
    if result.estimator != "share_b":  # what is proved is proved of share_b
        return {}
    return bounds_of_fit(world, preferences, result, n_pairs=n_pairs)


METRICS: dict[str, Callable[[World, Preferences, FitResult, int], Row]] = {
    "recovery": _recovery,
    "bounds": _bounds,
}
CELLS: dict[str, Callable[[Task], list[Row]]] = {"recovery": run_recovery}
