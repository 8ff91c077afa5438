"""The cell `new_users`: users who join a finished fit with a few pairs of their own.

The last `new_users` of a world's users are new, the others are fitted without them. Splitting one
world keeps its spectrum exact and the basis common, whatever the population; no law of "one more
user" beside an exact spectrum exists. The price: `nu` and the other settings of the world are those
of all its users together, and those of the old ones alone scatter about them, little where they are
many.

How a row's estimator meets the new users:

* one that learns a basis (`share_b`, `spectral` ...): fitted to the old users, whose basis the new
  ones take as it is (`adapt_users`);
* `oracle`: on the world's own basis; `full` and `local`: alone. No old user enters;
* `global`: the old users' common reward as it comes, whatever the new users' pairs.

Every user has his own stream of pairs, nested in their number: samples of old and of new users are
the same at every `old_pairs` and `n_pairs`, so all comparisons are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, adapt_users
from simrlhf.metrics import Arrival, new_user_bounds, new_user_errors, new_user_gaps
from simrlhf.sampling import sample_preferences
from simrlhf.study.axes import Newcomers, Point
from simrlhf.study.tasks import (
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

METRICS: dict[str, Callable[[Arrival], Row]] = {
    "recovery": new_user_errors,
    "bounds": new_user_bounds,
    "decisions": new_user_gaps,
}
# those that fit the new users without any old one
_WITHOUT_OLD = ("oracle", "full", "local")


class _Sample(NamedTuple):
    """A world with the pairs of its old users, and the most that new ones have."""

    world: World
    old: Preferences
    new: Preferences

    @property
    def n_old(self) -> int:
        return self.old.n_users


def require_newcomers(cell: str, point: Point, estimators: Iterable[str]) -> None:
    """Refuse newcomers where the cell has no use for them, and what the cell cannot do with them.

    Raises:
        InputError: one line with the value, the limit and the remedy.
    """
    newcomers, world = point.newcomers, point.world
    if cell != "new_users":
        checks.require(
            newcomers is None,
            f"[newcomers] is for cell = 'new_users', this study has cell = {cell!r}; leave it out",
        )
        return
    checks.require(
        newcomers is not None,
        "cell = 'new_users' needs a section [newcomers] with new_users and old_pairs; add it",
    )
    assert newcomers is not None
    checks.integer(
        "newcomers.new_users",
        newcomers.new_users,
        low=1,
        high=world.n_users - 1,
        remedy="they are among the world's n_users, and one at least is old",
    )
    for estimator in estimators:
        told = dict(settings_of(point.fit, estimator)).get("theta_init", "known")
        checks.require(
            told != "global",
            "theta_init = 'global' would give old and new users another base each; with cell = "
            "'new_users' take 'known' or 'zero'",
        )
        checks.require(
            world.rank < world.d1 or estimator in (*_WITHOUT_OLD, "global"),
            f"rank = {world.rank} must be below d1 = {world.d1} for {estimator} with cell = "
            "'new_users': a basis of all of R^d1 freezes nothing; lower rank, or take full",
        )


def run_new_users(task: Task) -> list[Row]:
    """Fit the old users once for each draw and estimator, and new ones for every number of pairs.

    A row's `seconds` are those of its own fit, and an equal share of the old users'.
    """
    rows: list[Row] = []
    for draw in task.draws:
        try:
            sample = _sample(task.seed, draw)
        except Exception as error:  # a row says so: one draw must not end the others
            rows += failed_rows([draw], reason_of(error))
            continue
        for estimator in dict.fromkeys(cell.estimator for cell in draw.cells.values()):
            mine = {k: cell for k, cell in draw.cells.items() if cell.estimator == estimator}
            rows += _rows_of(draw._replace(cells=mine), estimator, sample, task.metrics)
    return rows


def _sample(seed: int, draw: Draw) -> _Sample:
    world, of_sample = drawn_world(seed, draw)
    newcomers = _newcomers(draw)
    is_new = np.arange(world.n_users) >= world.n_users - newcomers.new_users
    counts = np.where(is_new, world.counts(draw.largest), world.counts(newcomers.old_pairs))
    everything = sample_preferences(world, counts, seed=of_sample)
    return _Sample(world, everything.of_users(~is_new), everything.of_users(is_new))


def _newcomers(draw: Draw) -> Newcomers:
    newcomers = draw.point.newcomers
    assert newcomers is not None  # `require_newcomers`
    return newcomers


def _rows_of(draw: Draw, estimator: str, sample: _Sample, metrics: tuple[str, ...]) -> list[Row]:
    """Rows of one estimator's cells in one draw."""
    settings = settings_of(draw.point.fit, estimator)
    rank, before = draw.point.world.rank, stopwatch()
    old = None
    try:
        if estimator not in _WITHOUT_OLD:
            told = [(sample.world, sample.old)]
            old = fit_in_worlds(told, estimator, rank=rank, settings=settings)[0]
    except Exception as error:
        return failed_rows([draw], reason_of(error))
    share = before() / len(draw.cells)
    rows = []
    for key, cell in draw.cells.items():
        seconds = stopwatch()
        try:
            counts = sample.world.counts(cell.n_pairs)[sample.n_old :]
            preferences = sample.new.switched_to_first(counts)
            result = _join(estimator, old, sample.world, preferences, rank, settings)
            taken = share + seconds()
            arrival = Arrival(
                world=sample.world,
                estimator=estimator,
                n_old=sample.n_old,
                old_pairs=_newcomers(draw).old_pairs,
                n_pairs=cell.n_pairs,
                preferences=preferences,
                result=result,
            )
            measured = {k: v for name in metrics for k, v in METRICS[name](arrival).items()}
        except Exception as error:
            rows.append(failed_row(draw, key, reason_of(error)))
            continue
        rows.append(measured_row(draw, key, measured=measured, result=result, seconds=taken))
    return rows


def _join(
    estimator: str,
    old: FitResult | None,
    world: World,
    preferences: Preferences,
    rank: int,
    settings: Settings,
) -> FitResult:
    """The new users' fit: on the old users' basis, by their common reward, or without them."""
    if old is None:
        return fit_in_worlds([(world, preferences)], estimator, rank=rank, settings=settings)[0]
    if estimator == "global":
        return replace(old, delta=np.repeat(old.delta[:1], preferences.n_users, axis=0))
    steps = {name: value for name, value in settings if name in ("max_iterations", "tol")}
    return adapt_users(old, preferences, **steps)
