"""Cell functions: what a study computes for the draws of a task.

A cell function takes a `Task` and returns one row for each of its cells, whatever happens: a cell
that raises is a row with status `FAILED`, the reason in `message`, and no metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import numerics, streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import ESTIMATORS, FitResult, fit_many
from simrlhf.metrics import (
    bounds_of_fit,
    coverage,
    decision_gaps,
    has_intervals,
    has_sets,
    held_out,
    pessimistic_gaps,
    recovery,
    sets_and_gaps,
)
from simrlhf.prompts import prompt_bandit
from simrlhf.sampling import sample_preferences
from simrlhf.study.axes import Point
from simrlhf.study.columns import world_columns
from simrlhf.study.store import FAILED
from simrlhf.world import MDP, World, WorldConfig, make_world

Row = dict[str, Any]
# settings of `fit` that an estimator takes only if its entry says so
LIMITED = ("norm_bound", "ridge", "penalty")
# what a fit is told of the base reward: the world's own, nothing, or `fit`'s "global"
BASES = ("known", "zero", "global")


class Cell(NamedTuple):
    """One row to compute: a sample size and an estimator."""

    n_pairs: int
    estimator: str


class Draw(NamedTuple):
    """One world and its sample, and what is wanted of it.

    Attributes:
        point: world and settings of `fit`.
        largest: pairs per user of the sample; smaller samples are its first pairs, and the others
            are switched off: arrays of one shape need one compilation.
        repetition: number of the draw at this point.
        cells: by content key.
    """

    point: Point
    largest: int
    repetition: int
    cells: Mapping[str, Cell]

    @property
    def shape(self) -> tuple[int, ...]:
        """Draws of equal shape run through the same compiled kernels."""
        world = self.point.world
        return (world.n_users, self.largest, world.d1, world.d2, world.rank)


@dataclass(frozen=True)
class Task:
    """Draws that are computed together.

    Attributes:
        seed: root of the study's randomness.
        metrics: names of the groups of columns.
        draws: what to compute.
    """

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
    draw: Draw
    sample: _Sample

    @property
    def cell(self) -> Cell:
        return self.draw.cells[self.key]

    @property
    def settings(self) -> tuple:
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
            rows += failed_rows([draw], _reason(error))
            continue
        for key, cell in draw.cells.items():
            one = _Wanted(key, draw, samples[cell.n_pairs])
            wanted.setdefault(one.settings, []).append(one)
    for cells in wanted.values():
        rows += _fit_and_measure(cells, task.metrics)
    return rows


def settings_of(fit: tuple[tuple[str, Any], ...], estimator: str) -> tuple[tuple[str, Any], ...]:
    """Settings of one estimator: its own over those of all, without what its class does not take.

    A study names one norm bound for many classes, and some of them have none.
    """
    accepted = ESTIMATORS[estimator].accepts
    common = {
        key: value
        for key, value in fit
        if "." not in key and (key not in LIMITED or key in accepted)
    }
    if estimator == "global" and common.get("theta_init") == "global":
        common["theta_init"] = "zero"  # fitting the base is what it does
    own = {key.partition(".")[2]: value for key, value in fit if key.startswith(f"{estimator}.")}
    return tuple(sorted((common | own).items()))


def failed_rows(draws: Iterable[Draw], reason: str) -> list[Row]:
    """Rows of cells that could not be computed."""
    return [_failed_row(draw, key, reason) for draw in draws for key in draw.cells]


def draw_seeds(seed: int, repetition: int) -> tuple[int, int]:
    """Seeds of a repetition's world and of its sample."""
    of_world, of_sample = streams.generator(seed, "repetition", repetition).integers(2**62, size=2)
    return int(of_world), int(of_sample)


def _samples(seed: int, draw: Draw) -> dict[int, _Sample]:
    of_world, of_sample = draw_seeds(seed, draw.repetition)
    world = make_world(
        draw.point.world, seed=of_world, mdp=prompts_of(draw.point.world, seed=of_world)
    )
    everything = sample_preferences(world, draw.largest, seed=of_sample)
    sizes = {cell.n_pairs for cell in draw.cells.values()}
    return {n: _Sample(world, everything.switched_to_first(world.counts(n))) for n in sorted(sizes)}


def prompts_of(config: WorldConfig, *, seed: int) -> MDP | None:
    """The decision problem that a world takes from outside: real prompts; `None` for another."""
    decision = config.decision
    if decision is None or decision.mdp != "texts":
        return None
    return prompt_bandit(
        n_prompts=decision.n_states,
        n_responses=decision.n_actions,
        dimensions=config.d1,
        seed=seed,
    )


def _fit_and_measure(cells: list[_Wanted], metrics: tuple[str, ...]) -> list[Row]:
    """Rows of one estimator's cells; a batch that raises is tried again cell by cell.

    Fits of a batch cannot be timed apart: each row's `seconds` is an equal share of the batch's,
    without what went into compiling.
    """
    compiled, started = numerics.compile_seconds(), time.perf_counter()
    try:
        results = _fit(cells)
    except Exception as error:
        if len(cells) > 1:
            return [row for cell in cells for row in _fit_and_measure([cell], metrics)]
        return [_failed_row(cells[0].draw, cells[0].key, _reason(error))]
    taken = time.perf_counter() - started - (numerics.compile_seconds() - compiled)
    seconds = max(taken, 0.0) / len(cells)
    return [
        _measure(cell, result, metrics, seconds)
        for cell, result in zip(cells, results, strict=True)
    ]


def _fit(cells: list[_Wanted]) -> list[FitResult]:
    estimator, rank, settings = cells[0].settings
    worlds = [cell.sample.world for cell in cells]
    settings = dict(settings)
    base = settings.pop("theta_init", "known")
    return fit_many(
        [cell.sample.preferences for cell in cells],
        estimator,
        # its basis has the world's rank, which with a deficiency is below k
        rank=None if estimator == "oracle" else rank,
        bases=[world.basis for world in worlds] if estimator == "oracle" else None,
        theta_inits="global" if base == "global" else [_base(world, base) for world in worlds],
        **settings,
    )


def _base(world: World, told: str) -> np.ndarray | None:
    known = told == "known" and world.theta_init.any()
    return world.theta_init if known else None


def _measure(wanted: _Wanted, result: FitResult, metrics: tuple[str, ...], seconds: float) -> Row:
    world, preferences = wanted.sample
    try:
        measured: Row = {}
        for name in metrics:
            measured |= METRICS[name](world, preferences, result, wanted.cell.n_pairs)
    except Exception as error:
        return _failed_row(wanted.draw, wanted.key, _reason(error))
    return {
        **_identity(wanted.draw, wanted.key),
        **measured,
        "neg_log_likelihood": result.neg_log_likelihood,
        "gradient_norm": result.gradient_norm,
        "status": result.status.name,
        "message": None,
        "iterations": result.iterations,
        "data_passes": result.data_passes,
        "seconds": seconds,
    }


def _identity(draw: Draw, key: str) -> Row:
    """What was asked: the columns that every row has."""
    cell = draw.cells[key]
    return {
        "key": key,
        "repetition": draw.repetition,
        "estimator": cell.estimator,
        "n_pairs": cell.n_pairs,
        **world_columns(draw.point.world),
        **{f"fit_{name}": value for name, value in settings_of(draw.point.fit, cell.estimator)},
    }


def _failed_row(draw: Draw, key: str, reason: str) -> Row:
    return {**_identity(draw, key), "status": FAILED, "message": reason}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _recovery(world: World, _: Preferences, result: FitResult, __: int) -> Row:
    return recovery(world, result)


def _bounds(world: World, preferences: Preferences, result: FitResult, n_pairs: int) -> Row:
    # what is proved is proved of share_b, about deviations from the world's own base
    if result.estimator != "share_b" or not np.array_equal(result.theta_init, world.theta_init):
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


METRICS: dict[str, Callable[[World, Preferences, FitResult, int], Row]] = {
    "recovery": _recovery,
    "bounds": _bounds,
    "held_out": _held_out,
    "coverage": _coverage,
    "decisions": _decisions,
    "pessimism": _pessimism,
    "sets": _sets,
}
# those that ask for a decision problem
DECISION_METRICS = ("decisions", "pessimism", "sets")
# what a study measures that does not say
DEFAULT_METRICS = ("recovery", "bounds")
CELLS: dict[str, Callable[[Task], list[Row]]] = {"recovery": run_recovery}
