"""Run a study: find what is missing, compute it task by task, store every task at once.

A draw is one world with one repetition. All its sample sizes and estimators use the same pairs:
the smaller samples are the larger one with the later pairs switched off, so comparisons are
paired and every estimator is compiled once for each number of users. A task is as many draws, of
one grid point or of several, as take about half a second and fit into 256 MB, and one file of the
store.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from simrlhf.study.axes import Point
from simrlhf.study.columns import newcomer_columns
from simrlhf.study.estimate import most_draws
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import FAILED, Store, content_key, row_key
from simrlhf.study.tasks import Cell, Draw, Task, failed_rows
from simrlhf.study.worker import Answer, run_task

# a task is meant to take this long: far above what storing it costs, and little to lose
_SECONDS_PER_TASK = 0.5


@dataclass(frozen=True)
class Plan:
    """What a study asks for and what of it is missing.

    Attributes:
        keys: content keys of all rows of the study.
        draws: those with something to do; they hold missing cells only.
        n_missing: rows to compute.
    """

    keys: frozenset[str]
    draws: tuple[Draw, ...]
    n_missing: int


class Tally(NamedTuple):
    """Rows done so far, and how many of them say FAILED."""

    done: int
    failed: int


# how tasks are run: takes them one by one when it has room, yields each with its answer
Executor = Callable[[str, Iterable[Task]], Iterator[tuple[Task, Answer]]]


def study_keys(spec: StudySpec) -> frozenset[str]:
    """Content keys of all rows of a study."""
    return frozenset(key for draw in _draws(spec) for key in draw.cells)


def plan_study(spec: StudySpec, stored: Iterable[str]) -> Plan:
    """Compare the study with the keys in the store."""
    stored = set(stored)
    keys: set[str] = set()
    missing: list[Draw] = []
    for draw in _draws(spec):
        keys.update(draw.cells)  # `|=` with a view of keys would copy the whole set
        wanted = {key: cell for key, cell in draw.cells.items() if key not in stored}
        if wanted:
            missing.append(draw._replace(cells=wanted))
    return Plan(frozenset(keys), tuple(missing), sum(len(draw.cells) for draw in missing))


def run_serially(cell: str, tasks: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
    """One task after the other in this process."""
    for task in tasks:
        yield task, run_task(cell, task)


def run_study(
    spec: StudySpec,
    store: Store,
    plan: Plan,
    *,
    executor: Executor = run_serially,
    progress: Callable[[Tally], None] | None = None,
) -> Tally:
    """Compute the plan. Killed at any moment, nothing but the tasks in flight is lost."""
    queue = _Queue(spec, plan.draws)
    tally = Tally(0, 0)
    for task, answer in executor(spec.cell, queue):
        if answer.crash is not None and len(task.draws) > 1:
            queue.split(task)  # one of the draws is at fault: find it
            continue
        if answer.crash is None:
            rows = answer.rows
            queue.learn(task, answer.seconds)
        else:
            rows = failed_rows(task.draws, answer.crash)
        store.write([{"study": spec.name, **row} for row in rows], facts=answer.facts)
        failed = sum(row["status"] == FAILED for row in rows)
        tally = Tally(tally.done + len(rows), tally.failed + failed)
        if progress is not None:
            progress(tally)
    return tally


class _Queue:
    """Tasks cut to a good length while they are taken, from what earlier ones took."""

    def __init__(self, spec: StudySpec, draws: Iterable[Draw]) -> None:
        self._spec = spec
        self._waiting = deque(draws)
        self._alone: deque[Draw] = deque()
        # seconds of a cell, by the draws' shape: the least so far, for the first ones warm up
        self._seconds: dict[tuple[int, ...], float] = {}

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self._alone:
            return self._task([self._alone.popleft()])
        if not self._waiting:
            raise StopIteration
        first = self._waiting[0]
        count = min(self._good_number(first), most_draws(first))
        taken = []
        while len(taken) < count and self._waiting and self._waiting[0].shape == first.shape:
            taken.append(self._waiting.popleft())
        return self._task(taken)

    def learn(self, task: Task, seconds: float) -> None:
        """Remember what a cell took."""
        shape, found = task.draws[0].shape, seconds / task.n_cells
        self._seconds[shape] = min(found, self._seconds.get(shape, found))

    def split(self, task: Task) -> None:
        """Give a task's draws out again, one by one."""
        self._alone.extend(task.draws)

    def _good_number(self, draw: Draw) -> int:
        """Draws like this one that take as long as a task is meant to; one where that is unknown.

        A power of two, so that batches come in few sizes: on accelerators each is compiled.
        """
        if draw.shape not in self._seconds:
            return 1
        seconds = max(self._seconds[draw.shape] * len(draw.cells), 1e-6)
        return 2 ** max(0, int(math.log2(_SECONDS_PER_TASK / seconds)))

    def _task(self, draws: list[Draw]) -> Task:
        return Task(self._spec.seed, self._spec.metrics, tuple(draws))


def _draws(spec: StudySpec) -> Iterator[Draw]:
    """Every draw of a study, those of equal shape after one another."""
    largest: dict[tuple[int, ...], int] = {}
    for point in spec.points:
        sizes = _sizes(point)
        largest[sizes] = max(largest.get(sizes, 0), *point.n_pairs)
    for point in sorted(spec.points, key=_sizes):
        prefix = content_key(_description(spec, point))
        for repetition in range(spec.repetitions):
            cells = {
                row_key(prefix, f"{repetition}/{n_pairs}/{estimator}"): Cell(n_pairs, estimator)
                for n_pairs in point.n_pairs
                for estimator in spec.estimators
            }
            yield Draw(point, largest[_sizes(point)], repetition, cells)


def _sizes(point: Point) -> tuple[int, ...]:
    """What decides the shapes of a point's arrays, but for the number of pairs."""
    world = point.world
    return (world.n_users, world.d1, world.d2, world.rank)


def _description(spec: StudySpec, point: Point) -> Mapping[str, Any]:
    """What determines the numbers of a point's rows, but for repetition, size and estimator."""
    return {
        "cell": spec.cell,
        "metrics": spec.metrics,
        "world": asdict(point.world),
        "fit": dict(point.fit),
        "seed": spec.seed,
        # rows of studies without new users keep the keys that they had before there were any
        **newcomer_columns(point.newcomers),
    }
