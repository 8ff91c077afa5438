"""Largest sine between true and fitted subspace against all comparisons N n, for regression.

Reads the rows of the study `identity_rate`; computes nothing but medians, ranges and slopes.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "identity_rate"
STYLES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "v"), ("#CC79A7", "D"))


def draw(results: Path, out: Path) -> list[Path]:
    """Write `identity_rate.png` and `.pdf` into `out`."""
    rows = fitted(load_results(STUDY, results))
    require_one_world(rows)
    figure, axis = plt.subplots(figsize=(7.2, 5.2), layout="constrained")
    for (colour, marker), (n_pairs, mine) in zip(STYLES, rows.groupby("n_pairs"), strict=False):
        table = mine.groupby("n_users")["largest_sine"].quantile([0.0, 0.5, 1.0]).unstack()
        total, middle = table.index.to_numpy() * n_pairs, table[0.5].to_numpy()
        slope = statistics.mean_slope(mine["n_users"], mine["largest_sine"], mine["repetition"])
        axis.errorbar(
            total,
            middle,
            yerr=[middle - table[0.0], table[1.0] - middle],
            color=colour,
            marker=marker,
            ms=5,
            lw=1.2,
            capsize=2,
            label=f"n = {n_pairs}: slope {slope.estimate:.3f} "
            f"({slope.low:.3f} to {slope.high:.3f})",
        )
        axis.plot(total, middle[-1] * (total / total[-1]) ** -0.5, ":", color="#555555", lw=1.4)
    axis.plot([], [], ":", color="#555555", label=r"slope $-1/2$ through the last point")
    axis.set(xscale="log", yscale="log", xlabel="comparisons of all users  N n")
    axis.set_ylabel(r"largest sine between $\hat B$ and $B^\diamond$")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)
    axis.legend(fontsize=9, frameon=False)
    axis.set_title(_caption(rows), fontsize=9)
    return figures.save(figure, out, STUDY)


def _caption(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    users = sorted(rows["n_users"].unique())
    return (
        f"identity link, noise {one['noise']:g}, d1 = {one['d1']}, d2 = {one['d2']}, k = "
        f"{one['rank']}, nu = {one['nu']:g}, N = {users[0]} to {users[-1]}; "
        f"{rows['repetition'].nunique()} seeds.\n"
        "Points: median over seeds; bars: their range; slopes: mean over seeds, 95 % interval."
    )
