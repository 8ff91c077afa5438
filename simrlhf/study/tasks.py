"""Tasks: what a sweep computes at once, and what every cell function needs for its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import numerics, streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import ESTIMATORS, FitResult, fit_many
from simrlhf.prompts import prompt_bandit
from simrlhf.study.axes import Point
from simrlhf.study.columns import newcomer_columns, world_columns
from simrlhf.study.store import FAILED
from simrlhf.world import MDP, World, WorldConfig, make_world

Row = dict[str, Any]
Settings = tuple[tuple[str, Any], ...]
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
        world, newcomers = self.point.world, self.point.newcomers
        most = max(self.largest, newcomers.old_pairs) if newcomers else self.largest
        return (world.n_users, most, world.d1, world.d2, world.rank)


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


def draw_seeds(seed: int, repetition: int) -> tuple[int, int]:
    """Seeds of a repetition's world and of its sample."""
    of_world, of_sample = streams.generator(seed, "repetition", repetition).integers(2**62, size=2)
    return int(of_world), int(of_sample)


def drawn_world(seed: int, draw: Draw) -> tuple[World, int]:
    """The world of a draw, and the seed of its sample."""
    of_world, of_sample = draw_seeds(seed, draw.repetition)
    config = draw.point.world
    return make_world(config, seed=of_world, mdp=prompts_of(config, seed=of_world)), of_sample


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


def settings_of(fit: Settings, estimator: str) -> Settings:
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


def fit_in_worlds(
    samples: Sequence[tuple[World, Preferences]], estimator: str, *, rank: int, settings: Settings
) -> list[FitResult]:
    """Fit every sample with what its world tells: its base reward, and the oracle its basis."""
    given = dict(settings)
    told = given.pop("theta_init", "known")
    worlds = [world for world, _ in samples]
    return fit_many(
        [preferences for _, preferences in samples],
        estimator,
        # its basis has the world's rank, which with a deficiency is below k
        rank=None if estimator == "oracle" else rank,
        bases=[world.basis for world in worlds] if estimator == "oracle" else None,
        theta_inits="global" if told == "global" else [_base(world, told) for world in worlds],
        **given,
    )


def _base(world: World, told: str) -> np.ndarray | None:
    known = told == "known" and world.theta_init.any()
    return world.theta_init if known else None


def stopwatch() -> Callable[[], float]:
    """Start a clock that tells the seconds since then, without what went into compiling."""
    compiled, started = numerics.compile_seconds(), time.perf_counter()

    def seconds() -> float:
        taken = time.perf_counter() - started - (numerics.compile_seconds() - compiled)
        return max(taken, 0.0)

    return seconds


def measured_row(draw: Draw, key: str, *, measured: Row, result: FitResult, seconds: float) -> Row:
    """What was asked, what was measured, and how the fit ended."""
    return {
        **_identity(draw, key),
        **measured,
        "neg_log_likelihood": result.neg_log_likelihood,
        "gradient_norm": result.gradient_norm,
        "status": result.status.name,
        "message": None,
        "iterations": result.iterations,
        "data_passes": result.data_passes,
        "seconds": seconds,
    }


def failed_rows(draws: Iterable[Draw], reason: str) -> list[Row]:
    """Rows of cells that could not be computed."""
    return [failed_row(draw, key, reason) for draw in draws for key in draw.cells]


def failed_row(draw: Draw, key: str, reason: str) -> Row:
    """The row of one cell that could not be computed."""
    return {**_identity(draw, key), "status": FAILED, "message": reason}


def reason_of(error: Exception) -> str:
    """One line for a row's `message`."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _identity(draw: Draw, key: str) -> Row:
    """What was asked: the columns that every row has."""
    cell, point = draw.cells[key], draw.point
    return {
        "key": key,
        "repetition": draw.repetition,
        "estimator": cell.estimator,
        "n_pairs": cell.n_pairs,
        **world_columns(point.world),
        **newcomer_columns(point.newcomers),
        **{f"fit_{name}": value for name, value in settings_of(point.fit, cell.estimator)},
    }
