"""What a sweep will take: time, disk and memory, before anything is computed."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import pandas as pd

from simrlhf.core import checks
from simrlhf.study.store import Stored
from simrlhf.study.tasks import Draw

# Seconds of one fit on one core of 2020s make, measured with the benchmark sweep_speed.py. A fit
# costs a constant (dispatch, small algebra) and so much for every number of its features.
_CONSTANT = 3e-3
_PER_FEATURE = {
    **{"share_b": 4e-8, "local": 4e-8, "global": 1e-8, "oracle": 1e-8},
    "first_order": 1.5e-6,  # of its 200 epochs
}
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
# matrices of side d1 that the other estimators form, as `estimators.kernels` counts them
_MATRICES = 10


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
    draws: tuple[Draw, ...], stored: Stored, *, stored_bytes: int, processes: int
) -> Estimate:
    """Needs of `draws` on `processes` processes of this machine.

    The time is a model of the fits' work, scaled for every estimator by what stored rows of the
    study took, and a compilation of every kernel that no stored row has run.
    """
    scales, known = _scales(stored.rows)
    usual = float(np.median([*scales.values()])) if scales else 1.0
    seconds, kernels, n_rows = 0.0, set(), 0
    for draw in draws:
        n_rows += len(draw.cells)
        for cell in draw.cells.values():
            kernels.add((*_sizes(draw), cell.estimator))
            seconds += scales.get(cell.estimator, usual) * _model(draw, cell.estimator)
    seconds += _COMPILATION * len(kernels - known)
    per_row = stored_bytes / len(stored.rows) if len(stored.rows) else _BYTES_PER_ROW
    largest = max((_task_bytes(draw, len(draws)) for draw in draws), default=0.0)
    return Estimate(
        seconds / processes,
        n_rows * per_row,
        (largest + _BYTES_PER_PROCESS) * processes,
        bool(scales),
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


def most_draws(draw: Draw) -> int:
    """Draws like this one that a task may hold in memory."""
    return max(1, int(_BYTES_PER_TASK // _draw_bytes(draw)))


def _sizes(draw: Draw) -> tuple[int, ...]:
    """What kernels are compiled for, but for the number of pairs."""
    n_users, _, d1, d2, rank = draw.shape
    return (n_users, d1, d2, rank)


def _model(draw: Draw, estimator: str) -> float:
    n_users, n_pairs, d1, d2, rank = draw.shape
    return _fit_seconds(estimator, n_users=n_users, n_pairs=n_pairs, d1=d1, d2=d2, rank=rank)


def _fit_seconds(
    estimator: str, *, n_users: int, n_pairs: int, d1: int, d2: int, rank: int
) -> float:
    features = float(n_users * n_pairs * d1 * d2)
    if estimator == "full" or (estimator == "local" and rank >= min(d1, d2)):
        return _CONSTANT + _FULL_PER_PRODUCT * features * min(d1 * d2, n_pairs)
    return _CONSTANT + _PER_FEATURE.get(estimator, _PER_FEATURE["share_b"]) * features


def _task_bytes(draw: Draw, n_draws: int) -> float:
    """A task of such draws: their samples, and the matrices that one fit forms."""
    n_users, n_pairs, d1, d2, _ = draw.shape
    per_user = min(8.0 * n_users * min(d1 * d2, n_pairs) ** 2, _BYTES_PER_GROUP)
    held = _draw_bytes(draw) * min(most_draws(draw), n_draws)
    return held + max(_GROUP_COPIES * per_user, 8.0 * _MATRICES * d1**2)


def _draw_bytes(draw: Draw) -> float:
    """Features of one draw, once for each sample size."""
    n_users, n_pairs, d1, d2, _ = draw.shape
    sizes = len({cell.n_pairs for cell in draw.cells.values()})
    return 8.0 * n_users * n_pairs * d1 * d2 * (_COPIES + sizes - 1)


def _scales(rows: pd.DataFrame) -> tuple[dict[str, float], set[tuple]]:
    """Time taken over time modelled, by estimator; and the kernels that have run."""
    fitted = rows.dropna(subset="seconds") if "seconds" in rows else rows.iloc[:0]
    if fitted.empty:
        return {}, set()
    shape = ["n_users", "d1", "d2", "rank"]
    # every fit runs on arrays of the largest sample of its shape
    pairs = fitted[[name for name in ("n_pairs", "old_pairs") if name in fitted]].max(axis=1)
    largest = pairs.groupby([fitted[name] for name in shape]).transform("max")
    modelled = [
        _fit_seconds(name, n_users=n, n_pairs=n_pairs, d1=d1, d2=d2, rank=k)
        for name, n, d1, d2, k, n_pairs in zip(
            fitted["estimator"], *(fitted[name] for name in shape), largest, strict=True
        )
    ]
    ratio = (fitted["seconds"] / modelled).groupby(fitted["estimator"]).median()
    known = set(fitted[[*shape, "estimator"]].itertuples(index=False, name=None))
    return {str(name): float(value) for name, value in ratio.items()}, known


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
