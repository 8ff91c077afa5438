"""Subspace distance against the number of users N at fixed pairs per user, and where it stops.

Reads the rows of the check A12 (`simrlhf check A12`); computes nothing but medians and slopes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.checking.report import read_rows

CHECKS = ("a12",)
LAWS = {
    "isotropic": "isotropic features",
    "anisotropic": "anisotropic features",
    "regression": "anisotropic, identity link",
}
STYLES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "v"), ("#CC79A7", "D"))


def draw(results: Path, out: Path) -> list[Path]:
    """Write `users.png` and `.pdf` into `out`."""
    rows = read_rows(*CHECKS, results)
    laws = [law for law in LAWS if law in set(rows["law"])]
    figure, axes = plt.subplots(
        1,
        len(laws),
        figsize=(4.4 * len(laws) + 0.6, 5.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, law in zip(axes[0], laws, strict=True):
        _distances(axis, rows[rows["law"] == law])
        axis.set_title(LAWS[law], fontsize=11)
        axis.set(xscale="log", yscale="log", xlabel="users  N")
        axis.grid(True, which="major", color="#DDDDDD", lw=0.5)
        axis.legend(fontsize=8, frameon=False, loc="lower left")
    axes[0, 0].set_ylabel(r"subspace distance  dist$(\hat B, B^\diamond)$")
    figure.suptitle(_caption(rows), fontsize=9)
    return figures.save(figure, out, "users")


def _distances(axis: Axes, rows: pd.DataFrame) -> None:
    for (colour, marker), (n_pairs, mine) in zip(STYLES, rows.groupby("n_pairs"), strict=False):
        table = mine.groupby("n_users")["dist"].quantile([0.25, 0.5, 0.75]).unstack()
        users, middle = table.index.to_numpy(), table[0.5].to_numpy()
        slope = statistics.mean_slope(
            mine["n_users"], mine["dist"], mine["repetition"], confidence=0.99
        )
        axis.errorbar(
            users,
            middle,
            yerr=[middle - table[0.25], table[0.75] - middle],
            color=colour,
            marker=marker,
            ms=5,
            lw=1.2,
            capsize=2,
            label=f"n = {n_pairs}: slope {slope.estimate:.2f} "
            f"({slope.low:.2f} to {slope.high:.2f})",
        )
        bracket = mine.groupby("n_users")["bracket"].first()
        scale = middle[0] / bracket.iloc[0]
        axis.plot(users, scale * bracket, "-.", color=colour, lw=1.0)
    axis.plot([], [], "-.", color="#555555", lw=1.0, label="Theorem 4.1 through the first point")


def _caption(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    return (
        f"share_b, d1 = {one['d1']}, d2 = 1, k = {one['rank']}, nu = {one['nu']:g}, R = "
        f"{one['norm_bound']:g}, logistic link unless said otherwise; "
        f"{rows['repetition'].nunique()} worlds.\n"
        "Points: median over worlds; bars: their middle half; slopes: mean over worlds, 99 % "
        "interval."
    )
