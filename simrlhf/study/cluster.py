"""Sweeps on Dask: workers of this machine, or a scheduler that runs already."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import queue
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

from simrlhf.core import checks, numerics
from simrlhf.study import provenance
from simrlhf.study.tasks import Task
from simrlhf.study.worker import Answer, portable_runner

if TYPE_CHECKING:
    from distributed import Client, Future

    from simrlhf.study.runner import Executor

_SECONDS_TO_ANSWER = 10
_SECONDS_TO_START = 120
# tasks beyond the running ones that wait at the workers, so that none is idle between two
_WAITING_PER_THREAD = 1
# how long no answer comes before the sweep looks whether there are workers
_SECONDS_BETWEEN_LOOKS = 10.0
_ABSENT = "the Dask scheduler has no worker; the sweep waits until one comes (Ctrl-C ends it)"
_PRESENT = "the Dask scheduler has workers again; the sweep goes on"
# Dask gives some of them levels of their own, which their parents' do not reach
_LOGGERS = (
    "distributed",
    "distributed.client",
    "distributed.gc",
    "tornado",
    "tornado.application",
    "asyncio",
)
_MISSING = "Dask is not installed; install simrlhf with its cluster extra: pip install '.[cluster]'"


@contextmanager
def open_executor(*, workers: int | None, scheduler: str | None) -> Iterator[Executor]:
    """Run tasks on Dask.

    Args:
        workers: start so many processes here, each with one BLAS and one XLA thread; or
        scheduler: the address of a running scheduler, as `tcp://host:8786`.

    Raises:
        InputError: Dask is not installed, nobody answers at the address, or no worker comes.
    """
    try:
        import distributed
    except ImportError:
        raise checks.InputError(_MISSING) from None
    # a lost connection or a killed worker is survived or reported by the sweep, in its own words
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if scheduler is not None:
        with _connect(distributed, scheduler) as client:
            yield partial(_run_on, client)
        return
    with (
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            env=numerics.worker_environment(),
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(_deaf_to_interrupts(distributed))
        yield partial(_run_on, client)


def _deaf_to_interrupts(distributed):
    """Ctrl-C reaches every process of the terminal; the sweep ends its workers itself."""

    class DeafToInterrupts(distributed.WorkerPlugin):
        def setup(self, worker) -> None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    return DeafToInterrupts()


@contextmanager
def _connect(distributed, scheduler: str) -> Iterator[Client]:
    from distributed.comm.addressing import get_address_host_port

    try:
        get_address_host_port(scheduler)  # a client of an ill-formed address never closes
        client = distributed.Client(scheduler, timeout=_SECONDS_TO_ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise checks.InputError(
            f"no Dask scheduler answers at {scheduler} ({reason}); start one with: dask scheduler"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_START)
        except TimeoutError:
            raise checks.InputError(
                f"the scheduler at {scheduler} had no worker for {_SECONDS_TO_START} s; start some "
                f"with: dask worker {scheduler}"
            ) from None
        yield client


def _run_on(client: Client, cell: str, tasks: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
    """Keep every thread of the cluster busy, and yield answers as they come.

    A task whose worker dies runs again elsewhere; one that kills its workers time after time is
    answered with a crash. Without a worker the sweep waits, and says so: a launcher may start some.
    """
    threads = cast(Callable[[], dict[str, int]], client.nthreads)  # its type is the awaitable's
    waiting = iter(tasks)
    run, code = portable_runner(), provenance.code_digest()
    running: dict[Future, Task] = {}
    done: queue.SimpleQueue[Future] = queue.SimpleQueue()
    silent = absent = False
    while True:
        with _connection(client):
            present = sum(threads().values())
            room = max(present * (1 + _WAITING_PER_THREAD), 1)
            for task in itertools.islice(waiting, max(room - len(running), 0)):
                # impure: a task given again after a crash must not be answered from memory
                future = client.submit(run, cell, pickle.dumps(task), code, pure=False)
                running[future] = task
                future.add_done_callback(done.put)
            if not running:
                return
            # a worker that its nanny starts again is away for seconds: not worth a line
            if absent != (present == 0) and (absent or silent):
                absent = not absent
                print(_ABSENT if absent else _PRESENT, file=sys.stderr, flush=True)
            answered = _next_answer(done)
        silent = answered is None
        if answered is not None:
            future, answer = answered
            task = running.pop(future)
            future.release()
            yield task, answer


@contextmanager
def _connection(client: Client) -> Iterator[None]:
    """A scheduler that goes away in the middle is a line, not a traceback."""
    from distributed.client import FutureCancelledError

    try:
        yield
    except (FutureCancelledError, OSError) as error:
        raise checks.InputError(
            f"the Dask scheduler went away ({type(error).__name__}); start it again and run the "
            "same command: rows already written are kept"
        ) from None


def _next_answer(done: queue.SimpleQueue[Future]) -> tuple[Future, Answer] | None:
    """The next answer, or None where none comes for a while.

    Raises:
        InputError: a worker has another simrlhf, or none.
    """
    from distributed import KilledWorker

    try:
        future = done.get(timeout=_SECONDS_BETWEEN_LOOKS)
    except queue.Empty:
        return None
    try:
        said = future.result(timeout=_SECONDS_BETWEEN_LOOKS)
    except TimeoutError:  # a worker died with the answer before it was fetched; it will come again
        future.add_done_callback(done.put)
        return None
    except KilledWorker as error:
        reason = (
            f"KilledWorker: {os.path.basename(str(error.last_worker.address))} was the last of "
            f"{error.allowed_failures + 1} workers that died over it (out of memory?)"
        )
        return future, Answer([], 0.0, provenance.provenance(), crash=reason)
    if isinstance(said, str):
        raise checks.InputError(said)
    return future, pickle.loads(said)
