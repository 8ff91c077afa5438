"""Subspace distance against the tail, soft labels: its slope is 1, where Theorem 4.1 prints 1/2.

Reads the rows of the check A2 (`simrlhf check A2`); computes nothing but means and slopes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.checking.report import read_rows

CHECKS = ("a2",)
# the check's own: beyond, the next order of the tail shows
_REGIME = 0.03
STYLES = {
    "gaussian": ("#0072B2", "o", "isotropic features"),
    "anisotropic": ("#D55E00", "s", "anisotropic features"),
}


def draw(results: Path, out: Path) -> list[Path]:
    """Write `bias_exponent.png` and `.pdf` into `out`."""
    rows = read_rows(*CHECKS, results)
    figure, axis = plt.subplots(figsize=(7.2, 5.2), layout="constrained")
    for features, (colour, marker, label) in STYLES.items():
        mine = rows[rows["features"] == features]
        table = mine.groupby("tail")["dist"].quantile([0.0, 0.5, 1.0]).unstack()
        kept = mine[mine["tail"] <= _REGIME]
        slope = statistics.mean_slope(
            kept["tail"], kept["dist"], kept["repetition"], confidence=0.99
        )
        axis.errorbar(
            table.index.to_numpy(),
            table[0.5],
            yerr=[table[0.5] - table[0.0], table[1.0] - table[0.5]],
            color=colour,
            marker=marker,
            ms=5,
            lw=1.2,
            capsize=2,
            label=f"{label}: slope {slope.estimate:.3f} ({slope.low:.3f} to {slope.high:.3f})",
        )
    printed = rows.groupby("tail")["printed"].median()
    axis.plot(
        printed.index, printed, "-.", color="#CC79A7", lw=1.6, label="printed bias, $c_1 = 1$: 1/2"
    )
    last = rows[rows["tail"] == rows["tail"].max()]["dist"].median() / printed.iloc[-1]
    axis.plot(
        printed.index, last * printed, ":", color="#555555", lw=1.4,
        label="the same through the last points",
    )  # fmt: skip
    axis.axvspan(_REGIME * 1.2, rows["tail"].max() * 1.3, color="#EEEEEE", zorder=0)
    axis.set(xscale="log", yscale="log", xlabel=r"tail of the truth  $\sqrt{\Sigma_{tail}/N}$")
    axis.set_ylabel(r"subspace distance  dist$(\hat B, B^\diamond)$")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)
    axis.legend(fontsize=9, frameon=False)
    axis.set_title(_caption(rows), fontsize=9)
    return figures.save(figure, out, "bias_exponent")


def _caption(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    return (
        f"share_b, logistic link, soft labels, N = {one['n_users']}, n = {one['n_pairs']}, d1 = "
        f"{one['d1']}, d2 = 1, k = {one['rank']}, nu = {one['nu']:g}; "
        f"{rows['repetition'].nunique()} worlds.\n"
        "Points: median over worlds; bars: their range.\nSlopes: up to the tail "
        f"{_REGIME:g}, left of the grey zone; mean over worlds, 99 % interval."
    )
