"""Find the checks, run them, keep their evidence."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from simrlhf.core import checks, numerics
from simrlhf.study import shipped
from simrlhf.study.checking.form import SIZES, Check, Finding, Verdict
from simrlhf.testing import ControlAccepted

FOLDER = "theory_checks"
# order of the table: what the paper defines and prints, what is proved here, limits, the audit
_ORDER = (
    *("definition", "assumption", "theorem", "corollary", "proposition", "remark", "lemma"),
    *("park", "s", "l", "a"),
)
# checks that measure on the same draws
_TOGETHER = (
    ("l1", "l2", "l3", "l4"),
    ("theorem_4_1", "lemma_1", "lemma_3", "lemma_5", "lemma_6"),
    ("theorem_4_2", "corollary_4_1"),
    ("park_3_1", "park_3_2"),
)
# those that take longest, which must not come last
_LONG = (
    *("l1", "l5", "s2", "theorem_4_1", "a1v", "a12", "s6", "park_3_1", "s3", "a7", "remark_3"),
    *("park_3_3", "s5", "s4", "a1", "a3"),
)
# other names of statements
_ALIASES = {"wilks": "l3"}


@dataclass(frozen=True)
class Outcome:
    """A check after it ran.

    Attributes:
        name: the file's stem, by which the command line knows it.
        check: what was declared.
        finding: what was found; `None` where the check itself failed.
        failure: why it failed, in one line: a rival that was not rejected, or an error.
        seconds: wall-clock time, compilation included.
    """

    name: str
    check: Check
    finding: Finding | None
    failure: str
    seconds: float

    @property
    def is_defect(self) -> bool:
        """Whether the command must not end with success."""
        if self.finding is None:
            return True
        return self.check.kind.must_hold and self.finding.verdict is Verdict.REFUTED


def list_checks() -> dict[str, Path]:
    """Shipped checks by name, in the order of the table."""
    folder = shipped.shipped_folder(FOLDER)
    return {path.stem: path for path in sorted(folder.glob("*.py"), key=lambda p: _place(p.stem))}


def load_check(name: str) -> ModuleType:
    """The module of a check: it has `CHECK`, `measure` and `judge`."""
    return shipped.load_script(list_checks()[name])


def chosen(names: Iterable[str]) -> list[str]:
    """Names as given on the command line, `S2` or `lemma_5` or `"Lemma 5"`; all without any.

    Raises:
        InputError: a name that no check has.
    """
    known = list(list_checks())
    wanted = [re.sub(r"[ .]", "_", name.strip().lower()) for name in names]
    wanted = [_ALIASES.get(name, name) for name in wanted]
    for given in wanted:
        checks.choice("check", given, known)
    return [name for name in known if name in wanted] or known


def run_checks(names: Iterable[str], size: str) -> Iterator[Outcome]:
    """Run checks one after the other; a check that fails does not end the others."""
    checks.choice("size", size, SIZES)
    for name in names:
        module = load_check(name)
        started = time.perf_counter()
        finding, failure = None, ""
        try:
            finding = module.judge(module.measure(size))
        except ControlAccepted as accepted:
            failure = str(accepted)
        except Exception as error:  # the table says so: one check must not hide the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())
            failure = f"{type(error).__name__}: {said} ({Path(where.filename).name}:{where.lineno})"
        yield Outcome(name, module.CHECK, finding, failure, time.perf_counter() - started)


def run_side_by_side(names: list[str], size: str, *, workers: int) -> Iterator[Outcome]:
    """Run checks on several processes of one thread each; outcomes come as they are found.

    Checks that share draws stay together, and the longest jobs begin first. One worker is this
    process.
    """
    jobs = _jobs(names)
    if min(workers, len(jobs)) == 1:
        yield from run_checks(names, size)
        return
    # children read it when they load their libraries; this process computes nothing itself
    os.environ.update(numerics.worker_environment())
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
    )
    try:
        for done in as_completed([pool.submit(_run_job, job, size) for job in jobs]):
            yield from done.result()
    except BaseException:
        # an interrupted command waits for no check, and the pool has no public way to end one
        for process in pool._processes.values():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _jobs(names: list[str]) -> list[list[str]]:
    """Checks that share draws in one job, long jobs first."""
    jobs: dict[str, list[str]] = {}
    for name in names:
        shared = next((group for group in _TOGETHER if name in group), (name,))
        jobs.setdefault(shared[0], []).append(name)
    long = {name: place for place, name in enumerate(_LONG)}
    return sorted(jobs.values(), key=lambda job: min(long.get(n, len(long)) for n in job))


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command itself is told, and ends its workers
    numerics.configure()


def _run_job(names: list[str], size: str) -> list[Outcome]:
    return list(run_checks(names, size))


def _place(name: str) -> tuple[int, list[int], str]:
    """Place of a check in the table: its family, then its number, as (3, [4, 1]) for a theorem."""
    family = max((f for f in _ORDER if name.startswith(f)), key=len, default="")
    place = _ORDER.index(family) if family else len(_ORDER)
    return place, [int(number) for number in re.findall(r"\d+", name)], name
