"""What a computing process does with a task: rows, the time they took, where they come from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from simrlhf.core import numerics
from simrlhf.study import provenance
from simrlhf.study.cells import CELLS
from simrlhf.study.tasks import Row, Task, stopwatch


class Answer(NamedTuple):
    """What became of a task.

    Attributes:
        rows: one for each cell.
        seconds: wall-clock time, without what went into compiling.
        facts: provenance of the process that computed.
        crash: why there are no rows, where the process died.
    """

    rows: list[Row]
    seconds: float
    facts: dict[str, str]
    crash: str | None = None


def run_task(cell: str, task: Task) -> Answer:
    """Compute a task in this process."""
    seconds = stopwatch()
    rows = CELLS[cell].run(task)
    return Answer(rows, seconds(), provenance.provenance())


def portable_runner() -> Callable[[str, bytes, str], bytes | str]:
    """A function that runs a pickled task where simrlhf may be another one, or missing.

    Pickle finds an inner function by no name, so Dask sends its code, and the scheduler and the
    workers read it without simrlhf. What cannot be read there ends the connection and is sent
    again, for ever and without a word.

    Returns:
        A function of the cell, the pickled `Task`, and the digest of the program that sends it:
        another program would give other numbers under the same keys. It returns the pickled
        `Answer`, or a line that says why this worker must not compute.
    """

    def run_portable(cell: str, packed: bytes, code: str) -> bytes | str:
        # names of this module would be sent along: only what is imported here, by name
        import os
        import pickle

        remedy = "install the same version on every machine"
        host = os.uname().nodename
        try:
            from simrlhf.study import provenance

            mine = provenance.code_digest()
            if mine != code:
                return (
                    f"worker on {host} runs other code of simrlhf ({mine}) than this process "
                    f"({code}); {remedy}"
                )
            from simrlhf.study.worker import run_remote_task

            task = pickle.loads(packed)
        except Exception as error:  # whatever fails so early is the installation, not the task
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            return f"worker on {host} cannot run simrlhf ({reason}); {remedy}"
        return pickle.dumps(run_remote_task(cell, task))

    return run_portable


def run_remote_task(cell: str, task: Task) -> Answer:
    """Compute a task in a worker process that shares its machine with others."""
    _configure_worker()
    return run_task(cell, task)


@cache
def _configure_worker() -> None:
    # before the first array: XLA reads its thread count once. A worker started by any launcher is
    # so set up by its first task; BLAS, loaded already, is limited by `configure`
    os.environ.update(numerics.worker_environment())
    numerics.configure()
