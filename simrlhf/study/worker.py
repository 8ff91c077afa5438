"""What a computing process does with a task: rows, the time they took, where they come from."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import NamedTuple

from simrlhf.core import checks, numerics
from simrlhf.study import provenance
from simrlhf.study.cells import CELLS, Row, Task


class Answer(NamedTuple):
    """What became of a task.

    Attributes:
        rows: one for each cell.
        seconds: wall-clock time.
        facts: provenance of the process that computed.
        crash: why there are no rows, where the process died.
    """

    rows: list[Row]
    seconds: float
    facts: dict[str, str]
    crash: str | None = None


def run_task(cell: str, task: Task) -> Answer:
    """Compute a task in this process."""
    started = time.perf_counter()
    rows = CELLS[cell](task)
    return Answer(rows, time.perf_counter() - started, provenance.provenance())


def run_remote_task(cell: str, task: Task, code: str) -> Answer:
    """Compute a task in a worker process that shares its machine with others.

    Args:
        code: digest of the program that sent the task; another program would give other numbers
            under the same keys.
    """
    _configure_worker()
    mine = provenance.code_digest()
    checks.require(
        mine == code,
        f"worker on {os.uname().nodename} runs other code of simrlhf ({mine}) than this process "
        f"({code}); install the same version on every machine",
    )
    return run_task(cell, task)


@cache
def _configure_worker() -> None:
    # before the first array: XLA reads its thread count once. A worker started by any launcher is
    # so set up by its first task; BLAS, loaded already, is limited by `configure`
    os.environ.update(numerics.worker_environment())
    numerics.configure()
