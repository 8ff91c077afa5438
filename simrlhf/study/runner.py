"""Run a study: find what is missing, compute it task by task, store every task at once.

A task is one world with one repetition. All its sample sizes and estimators use the same pairs:
the smaller samples are the larger one with the later pairs switched off, so comparisons are
paired and every estimator is compiled once for each number of users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from simrlhf.core import checks
from simrlhf.study.cells import CELLS, Cell, Task
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import Store, content_key


@dataclass(frozen=True)
class Plan:
    """What a study asks for and what of it is missing.

    Attributes:
        keys: content keys of all rows of the study.
        tasks: tasks with something to do; each holds only its missing cells.
        n_missing: rows to compute.
    """

    keys: frozenset[str]
    tasks: tuple[Task, ...]
    n_missing: int


# called after every task with the rows it added
Progress = Callable[[int], None]


def plan_study(spec: StudySpec, store: Store) -> Plan:
    """Compare the study with the store."""
    checks.choice("cell function", spec.cell, CELLS)
    stored = store.keys()
    keys: set[str] = set()
    tasks: list[Task] = []
    for task in _tasks(spec):
        wanted = {key: cell for key, cell in task.cells.items() if key not in stored}
        keys |= set(task.cells)
        if wanted:
            tasks.append(replace(task, cells=wanted))
    return Plan(frozenset(keys), tuple(tasks), sum(len(task.cells) for task in tasks))


def run_study(
    spec: StudySpec, store: Store, plan: Plan, *, progress: Progress | None = None
) -> None:
    """Compute the plan's tasks in order. Killed at any moment, nothing but one task is lost."""
    run_task = CELLS[spec.cell]
    for task in plan.tasks:
        rows = [{"study": spec.name, **row} for row in run_task(task)]
        store.write(rows)
        if progress is not None:
            progress(len(rows))


def _tasks(spec: StudySpec) -> Iterator[Task]:
    for world in spec.worlds:
        for repetition in range(spec.repetitions):
            cells: dict[str, Cell] = {}
            for n_pairs in spec.n_pairs:
                for estimator in spec.estimators:
                    cell = Cell(n_pairs, estimator)
                    cells[content_key(_description(spec, asdict(world), repetition, cell))] = cell
            yield Task(world, repetition, spec.seed, max(spec.n_pairs), cells, dict(spec.fit))


def _description(
    spec: StudySpec, world: Mapping[str, Any], repetition: int, cell: Cell
) -> dict[str, Any]:
    return {
        "cell": spec.cell,
        "world": world,
        "fit": dict(spec.fit),
        "seed": spec.seed,
        "repetition": repetition,
        "n_pairs": cell.n_pairs,
        "estimator": cell.estimator,
    }
