"""Run a study: find what is missing, compute it task by task, store every task at once.

A draw is one world with one repetition. All its sample sizes and estimators use the same pairs:
the smaller samples are the larger one with the later pairs switched off, so comparisons are
paired and every estimator is compiled once for each number of users. A task is as many draws of
one grid point as take about half a second and fit into 256 MB, and one file of the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from simrlhf.study.axes import Point
from simrlhf.study.cells import Cell, Draw, Task, failed_rows
from simrlhf.study.estimate import most_draws
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import FAILED, Store, content_key, row_key
from simrlhf.study.worker import Answer, run_task

# a task is meant to take this long: far above what storing it costs, and little to lose
_SECONDS_PER_TASK = 0.5


@dataclass(frozen=True)
class Plan:
    """What a study asks for and what of it is missing.

    Attributes:
        keys: content keys of all rows of the study.
        tasks: one for each grid point with something to do; it holds only missing cells.
        n_missing: rows to compute.
    """

    keys: frozenset[str]
    tasks: tuple[Task, ...]
    n_missing: int


class Tally(NamedTuple):
    """Rows done so far, and how many of them say FAILED."""

    done: int
    failed: int


# how tasks are run: takes them one by one when it has room, yields each with its answer
Executor = Callable[[str, Iterable[Task]], Iterator[tuple[Task, Answer]]]


def study_keys(spec: StudySpec) -> frozenset[str]:
    """Content keys of all rows of a study."""
    return frozenset(key for task in _tasks(spec) for draw in task.draws for key in draw.cells)


def plan_study(spec: StudySpec, stored: Iterable[str]) -> Plan:
    """Compare the study with the keys in the store."""
    stored = set(stored)
    keys: set[str] = set()
    tasks: list[Task] = []
    for task in _tasks(spec):
        missing = []
        for draw in task.draws:
            keys.update(draw.cells)  # `|=` with a view of keys would copy the whole set
            wanted = {key: cell for key, cell in draw.cells.items() if key not in stored}
            if wanted:
                missing.append(Draw(draw.repetition, wanted))
        if missing:
            tasks.append(replace(task, draws=tuple(missing)))
    return Plan(frozenset(keys), tuple(tasks), sum(task.n_cells for task in tasks))


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
    queue = _Queue(plan.tasks)
    tally = Tally(0, 0)
    for task, answer in executor(spec.cell, queue):
        if answer.crash is not None and len(task.draws) > 1:
            queue.split(task)  # one of the draws is at fault: find it
            continue
        rows = answer.rows if answer.crash is None else failed_rows(task, task.draws, answer.crash)
        store.write([{"study": spec.name, **row} for row in rows], facts=answer.facts)
        queue.learn(task, answer.seconds)
        failed = sum(row["status"] == FAILED for row in rows)
        tally = Tally(tally.done + len(rows), tally.failed + failed)
        if progress is not None:
            progress(tally)
    return tally


class _Queue:
    """Tasks cut to a good length while they are taken, from what earlier ones took."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._waiting = deque(tasks)
        self._alone: deque[Task] = deque()
        self._seconds: dict[Point, float] = {}

    def __iter__(self) -> Iterator[Task]:
        return self

    def __next__(self) -> Task:
        if self._alone:
            return self._alone.popleft()
        if not self._waiting:
            raise StopIteration
        task = self._waiting.popleft()
        size = min(self._size(task.point), most_draws(task))
        if size < len(task.draws):
            self._waiting.appendleft(replace(task, draws=task.draws[size:]))
        return replace(task, draws=task.draws[:size])

    def learn(self, task: Task, seconds: float) -> None:
        """Remember what a draw took; the latest counts, for the first one compiles."""
        self._seconds[task.point] = seconds / len(task.draws)

    def split(self, task: Task) -> None:
        """Give a task's draws out again, one by one."""
        self._alone.extend(replace(task, draws=(draw,)) for draw in task.draws)

    def _size(self, point: Point) -> int:
        """Draws that take as long as a task is meant to."""
        if point not in self._seconds:
            return 1
        return max(1, round(_SECONDS_PER_TASK / max(self._seconds[point], 1e-6)))


def _tasks(spec: StudySpec) -> Iterator[Task]:
    for point in spec.points:
        prefix = content_key(_description(spec, point))
        draws = []
        for repetition in range(spec.repetitions):
            cells = {}
            for n_pairs in point.n_pairs:
                for estimator in spec.estimators:
                    key = row_key(prefix, f"{repetition}/{n_pairs}/{estimator}")
                    cells[key] = Cell(n_pairs, estimator)
            draws.append(Draw(repetition, cells))
        yield Task(point, spec.seed, spec.metrics, tuple(draws))


def _description(spec: StudySpec, point: Point) -> Mapping[str, Any]:
    """What determines the numbers of a point's rows, but for repetition, size and estimator."""
    return {
        "cell": spec.cell,
        "metrics": spec.metrics,
        "world": asdict(point.world),
        "fit": dict(point.fit),
        "seed": spec.seed,
    }
