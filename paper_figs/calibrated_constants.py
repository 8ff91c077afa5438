"""Measured over printed bound against every swept variable: where a constant covers, and where not.

Reads the rows that `simrlhf check` keeps; computes nothing but ratios, medians, ranges and slopes.
One figure for each printed bound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from simrlhf import testing
from simrlhf.core import checks
from simrlhf.study import figures
from simrlhf.study.checking.report import FOLDER

_COLUMNS = 4
_UNIT = "scale"
_COLOUR = "#0072B2"


class _Printed(NamedTuple):
    """A bound: the check's name, its title, its constant and the measured column."""

    check: str
    title: str
    constant: str
    measured: str


PRINTED = (
    _Printed("theorem_4_1", "Theorem 4.1: distance over its bound", "c_1", "dist"),
    _Printed("lemma_1", "Lemma 1: likelihood excess over its bound", "C_1", "excess"),
    _Printed("lemma_3", "Lemma 3: squared L1 distance over its bound", "C_2", "squared_l1"),
    _Printed("lemma_5", "Lemma 5: squared distance over its bound", "C", "squared_distance"),
    _Printed("lemma_6", "Theorem B.3: a user's squared error over its bound", "C_8", "empirical"),
)
CHECKS = tuple(one.check for one in PRINTED)
_LABELS = {
    "n": "pairs per user  n",
    "N": "users  N",
    "d1": "rows  $d_1$",
    "d2": "columns  $d_2$",
    "k": "rank  k",
    "nu": r"$\nu$",
    "tail": r"tail  $(\Sigma_{tail}/N)^{1/2}$, no label noise",
    "scale": r"unit of the features  c",
    "lambda": r"smallest variance of the features  $\lambda$",
    "zero": "pairs per user  n,  at r = 0",
}


def draw(results: Path, out: Path) -> list[Path]:
    """Write `calibrated_NAME.png` and `.pdf` into `out` for every bound whose check was run."""
    found = [(one, results / FOLDER / f"{one.check}.parquet") for one in PRINTED]
    there = [(one, pd.read_parquet(path)) for one, path in found if path.exists()]
    names = ", ".join(CHECKS)
    checks.require(
        len(there) > 0,
        f"{results / FOLDER} holds no rows of {names}; run simrlhf check {names.replace(',', '')} "
        f"--out {results}",
    )
    out.mkdir(parents=True, exist_ok=True)
    return [path for one, rows in there for path in _figure(one, rows, out)]


def _figure(one: _Printed, rows: pd.DataFrame, out: Path) -> list[Path]:
    rows = rows.assign(ratio=rows[one.measured] / rows["bound"])
    swept = [axis for axis in _LABELS if (rows["swept"] == axis).any()]
    height = -(-len(swept) // _COLUMNS)
    figure, axes = plt.subplots(
        height,
        _COLUMNS,
        figsize=(2.6 * _COLUMNS, 2.5 * height + 0.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, place in zip(swept, axes.flat, strict=False):
        # in another unit of the features another constant covers (A11)
        constant = None if axis == _UNIT else _covering(rows)
        _panel(place, axis, rows[rows["swept"] == axis], constant)
    for place in axes.flat[len(swept) :]:
        place.set_axis_off()
    low, high = np.log10(axes[0, 0].get_ylim())
    if high - low < 1.0:  # a scale without a number on it says nothing: whole decades
        axes[0, 0].set_ylim(10.0 ** np.floor(low), 10.0 ** np.ceil(high))
    for first in axes[:, 0]:
        first.set_ylabel(f"measured / bound\n(${one.constant}$ needed)", fontsize=9)
    figure.suptitle(f"{one.title}\n{_caption(rows, one)}", fontsize=9)
    return figures.save(figure, out, f"calibrated_{one.check}")


def _covering(rows: pd.DataFrame) -> float:
    """The smallest constant that covers every row in the usual unit, as the check has it."""
    return float(rows.loc[rows["swept"] != _UNIT, "ratio"].max())


def _panel(place: Any, axis: str, rows: pd.DataFrame, largest: float | None) -> None:
    """Median over seeds with its range; dotted: the constant that covers everything."""
    table = rows.groupby("value")["ratio"].quantile([0.0, 0.5, 1.0]).unstack()
    middle = table[0.5].to_numpy()
    place.errorbar(
        table.index.to_numpy(),
        middle,
        yerr=[middle - table[0.0], table[1.0] - middle],
        color=_COLOUR,
        marker="o",
        ms=4,
        lw=1.2,
        capsize=2,
    )
    if largest is not None:
        place.axhline(largest, color="#555555", ls=":", lw=1.2)
    place.set(xscale="log", yscale="log")
    values = table.index.to_list()
    if len(values) > 1:
        place.set_title(_slope(axis, rows), fontsize=8)
    else:
        place.set_xlim(0.5 * values[0], 2.0 * values[0])
    place.set_xticks(values, [f"{value:g}" for value in values], fontsize=8)
    place.xaxis.minorticks_off()
    place.set_xlabel(_LABELS[axis], fontsize=8)
    place.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _slope(axis: str, rows: pd.DataFrame) -> str:
    """The drift that the check judges."""
    found = testing.calibrate(
        rows["ratio"], 1.0, variables={axis: rows["value"]}, repetition=rows["repetition"]
    )
    slope = found.drifts[axis].slope
    return f"slope {slope.estimate:.2f} ({slope.low:.2f} to {slope.high:.2f})"


def _caption(rows: pd.DataFrame, one: _Printed) -> str:
    """The cell that most sweeps share, the seeds, and what is drawn."""
    names = ("N", "d1", "d2", "k", "n")
    base = ", ".join(f"{name} = {rows[name].mode().iloc[0]}" for name in names)
    return (
        f"around {base}; {rows['repetition'].nunique()} seeds. Points: median over seeds; bars: "
        "their range;\nslopes: mean over seeds, 99 % interval; dotted: "
        f"{_covering(rows):.3g}, the smallest ${one.constant}$ that covers in one unit"
    )
