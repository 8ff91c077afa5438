"""Cell functions: what a study computes for one world and repetition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, fit
from simrlhf.metrics import bounds_of_fit, recovery
from simrlhf.sampling import sample_preferences
from simrlhf.world import World, WorldConfig, make_world

Row = dict[str, Any]


class Cell(NamedTuple):
    """One row to compute: a sample size and an estimator."""

    n_pairs: int
    estimator: str


@dataclass(frozen=True)
class Task:
    """Cells that share a world and its sample.

    Attributes:
        world: settings.
        repetition, seed: which draw of world, features and labels.
        largest: pairs per user drawn; smaller samples are its first pairs.
        cells: rows to compute by content key.
        fit: settings of `fit`.
    """

    world: WorldConfig
    repetition: int
    seed: int
    largest: int
    cells: Mapping[str, Cell]
    fit: Mapping[str, Any]


def run_recovery(task: Task) -> Iterator[Row]:
    """Fit, and measure distance to the truth; for `share_b` also every bound on it.

    Worlds and samples are common random numbers: the same for every estimator and, nested, for
    every sample size.
    """
    seeds = streams.generator(task.seed, "repetition", task.repetition).integers(2**62, size=2)
    world = make_world(task.world, seed=int(seeds[0]))
    everything = sample_preferences(world, task.largest, seed=int(seeds[1]))
    by_size: dict[int, list[tuple[str, str]]] = {}
    for key, cell in task.cells.items():
        by_size.setdefault(cell.n_pairs, []).append((key, cell.estimator))
    for n_pairs, wanted in sorted(by_size.items()):
        preferences = _first(everything, n_pairs)
        for key, estimator in wanted:
            started = time.perf_counter()
            result = _fit(preferences, estimator, world, task.fit)
            seconds = time.perf_counter() - started
            row = {
                "key": key,
                "repetition": task.repetition,
                "estimator": estimator,
                "n_pairs": n_pairs,
                **asdict(task.world),
                **{f"fit_{name}": value for name, value in task.fit.items()},
                **recovery(world, result),
                "neg_log_likelihood": result.neg_log_likelihood,
                "gradient_norm": result.gradient_norm,
                "status": result.status.name,
                "iterations": result.iterations,
                "data_passes": result.data_passes,
                "seconds": seconds,
            }
            if estimator == "share_b":
                row |= bounds_of_fit(world, preferences, result, n_pairs=n_pairs)
            yield row


def _first(everything: Preferences, n_pairs: int) -> Preferences:
    """The first pairs of every user, the others switched off: same shapes, no new compilation."""
    place = np.arange(everything.n_total) - everything.offsets[everything.users]
    return everything.reweighted((place < n_pairs).astype(float))


def _fit(
    preferences: Preferences, estimator: str, world: World, settings: Mapping[str, Any]
) -> FitResult:
    extra: dict[str, Any] = {"rank": world.config.rank}
    if estimator == "oracle":
        extra["basis"] = world.basis
    theta_init = world.theta_init if world.theta_init.any() else None
    return fit(preferences, estimator, theta_init=theta_init, **extra, **settings)


CELLS: dict[str, Callable[[Task], Iterator[Row]]] = {"recovery": run_recovery}
