"""What a sweep will take: time, disk and memory, before anything is computed."""

from __future__ import annotations

import os
from typing import NamedTuple

import pandas as pd

from simrlhf.core import checks
from simrlhf.study.cells import Task
from simrlhf.study.store import Stored

# Seconds of one fit on one core of 2020s make, measured with the benchmark sweep_speed.py. A fit
# costs a constant (dispatch, small algebra) and so much for every number of its features.
_CONSTANT = 3e-3
_PER_FEATURE = {"share_b": 4e-8, "local": 4e-8, "global": 1e-8, "oracle": 1e-8}
# Newton's method on all d1 d2 parameters of a user forms Gram matrices
_FULL_PER_PRODUCT = 1e-9
_COMPILATION = 2.5
# draws of one task are held together: so many bytes of them, and one draw at least
_BYTES_PER_TASK = 2**28
# a row of 60 columns in a file of a few rows; measured on the shipped studies
_BYTES_PER_ROW = 1500
# the features of a draw, as sampled, as stored, as the kernels read them, and one temporary
_COPIES = 4
_BYTES_PER_PROCESS = 0.5e9
# `full` works on groups of users, each with at most so many bytes (estimators.users_apart)
_BYTES_PER_GROUP = 256 * 2**20
_GROUP_COPIES = 3


class Estimate(NamedTuple):
    """Rough needs of a sweep.

    Attributes:
        seconds: wall-clock time.
        disk, memory: bytes.
        calibrated: whether rows of this study, stored already, set the scale of the time.
    """

    seconds: float
    disk: float
    memory: float
    calibrated: bool

    @property
    def sentence(self) -> str:
        """For the terminal."""
        how = (
            "from the rows stored" if self.calibrated else "rough: no row of this study stored yet"
        )
        return (
            f"about {duration(self.seconds)} ({how}), {_bytes(self.disk)} of disk, "
            f"{_bytes(self.memory)} of memory"
        )


def estimate(
    tasks: tuple[Task, ...], stored: Stored, *, stored_bytes: int, processes: int
) -> Estimate:
    """Needs of `tasks` on `processes` processes of this machine.

    The time is a model of the fits' work, scaled by what stored rows of the study took.
    """
    model = sum(_task_seconds(task) for task in tasks)
    n_rows = sum(task.n_cells for task in tasks)
    scale = _scale(stored.rows)
    shapes = {
        (task.point.world.n_users, estimator)
        for task in tasks
        for estimator in {cell.estimator for draw in task.draws for cell in draw.cells.values()}
    }
    seconds = model * (scale or 1.0) + (0.0 if scale else _COMPILATION * len(shapes))
    per_row = stored_bytes / len(stored.rows) if len(stored.rows) else _BYTES_PER_ROW
    largest = max((_task_bytes(task) for task in tasks), default=0.0)
    return Estimate(
        seconds / processes,
        n_rows * per_row,
        (largest + _BYTES_PER_PROCESS) * processes,
        scale is not None,
    )


def require_memory(needs: Estimate) -> None:
    """Refuse a sweep that cannot fit into the machine, before it fails half way."""
    if not hasattr(os, "sysconf"):  # no such question to Windows
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    checks.require(
        needs.memory <= total,
        f"the largest task needs about {_bytes(needs.memory)} of memory, this machine has "
        f"{_bytes(total)}; lower n_users, n_pairs or d1, or use fewer --workers",
    )


def most_draws(task: Task) -> int:
    """Draws of this task's point that one task may hold in memory."""
    return max(1, int(_BYTES_PER_TASK // _draw_bytes(task)))


def _task_seconds(task: Task) -> float:
    world, largest = task.point.world, max(task.point.n_pairs)
    return sum(
        _fit_seconds(
            cell.estimator,
            n_users=world.n_users,
            n_pairs=largest,
            d1=world.d1,
            d2=world.d2,
            rank=world.rank,
        )
        for draw in task.draws
        for cell in draw.cells.values()
    )


def _fit_seconds(
    estimator: str, *, n_users: int, n_pairs: int, d1: int, d2: int, rank: int
) -> float:
    features = float(n_users * n_pairs * d1 * d2)
    if estimator == "full" or (estimator == "local" and rank >= min(d1, d2)):
        return _CONSTANT + _FULL_PER_PRODUCT * features * min(d1 * d2, n_pairs)
    return _CONSTANT + _PER_FEATURE.get(estimator, _PER_FEATURE["share_b"]) * features


def _task_bytes(task: Task) -> float:
    """The largest task that is cut from this one, and the curvature matrices of `full`."""
    world, largest = task.point.world, max(task.point.n_pairs)
    held = _draw_bytes(task) * min(most_draws(task), len(task.draws))
    matrices = 8.0 * world.n_users * min(world.d1 * world.d2, largest) ** 2
    return held + _GROUP_COPIES * min(matrices, _BYTES_PER_GROUP)


def _draw_bytes(task: Task) -> float:
    """Features of one draw, once for each sample size."""
    world, largest = task.point.world, max(task.point.n_pairs)
    features = 8.0 * world.n_users * largest * world.d1 * world.d2
    sizes = max(len({cell.n_pairs for cell in draw.cells.values()}) for draw in task.draws)
    return features * (_COPIES + sizes - 1)


def _scale(rows: pd.DataFrame) -> float | None:
    """Time taken over time modelled, of the stored rows that were fitted."""
    fitted = rows.dropna(subset="seconds") if "seconds" in rows else rows.iloc[:0]
    if fitted.empty:
        return None
    columns = fitted[["estimator", "n_users", "d1", "d2", "rank"]]
    # every fit of a draw runs on the arrays of its largest sample
    largest = int(fitted["n_pairs"].max())
    modelled = sum(
        _fit_seconds(name, n_users=n, n_pairs=largest, d1=d1, d2=d2, rank=k)
        for name, n, d1, d2, k in columns.itertuples(index=False)
    )
    return float(fitted["seconds"].sum() / modelled)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h` or `2.1 days`."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            count = seconds / unit
            return f"{count:.2g} {name}" if count < 10 else f"{count:.0f} {name}"
    return f"{seconds / 86400:.3g} days"


def _bytes(count: float) -> str:
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
