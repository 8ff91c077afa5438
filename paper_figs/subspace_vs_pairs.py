"""Measured subspace distance against pairs per user, beside Theorem 4.1, S2, its ceiling and L1.

Reads the rows of the study `subspace_vs_pairs`; computes nothing but medians and intervals.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simrlhf.core import checks
from simrlhf.study import figures
from simrlhf.study.curves import STYLES, measured
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "subspace_vs_pairs"
BOUND, SOUND, LIMIT, VACUOUS = "#CC79A7", "#7F3C8D", "#555555", "#EEEEEE"


def draw(results: Path, out: Path) -> list[Path]:
    """Write `subspace_vs_pairs.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows)
    checks.require(
        "share_b" in set(rows["estimator"]),
        f"the figure needs rows of share_b, which carry the bounds; sweep {STUDY} with share_b",
    )
    users = sorted(rows["n_users"].unique())
    figure, axes = plt.subplots(
        2,
        len(users),
        figsize=(max(4.1 * len(users), 9.5), 9.2),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 2),
    )
    constant = _constant(rows)
    for (upper, lower), n_users in zip(axes.T, users, strict=True):
        mine = rows[rows["n_users"] == n_users]
        _distances(upper, mine, constant)
        _rewards(lower, mine)
        upper.set_title(f"N = {n_users} users", fontsize=11)
        lower.set_xlabel("pairs per user  n")
    _frame_rows(axes, rows)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _distances(axis: Axes, rows: pd.DataFrame, constant: float) -> None:
    shared = rows[rows["estimator"] == "share_b"]
    ceiling = float(shared["ceiling"].iloc[0])
    axis.axhspan(ceiling, 100.0, color=VACUOUS, zorder=0)
    axis.axhline(ceiling, color="#999999", lw=1, zorder=1)
    axis.annotate(
        rf"vacuous: above {_ceiling_name(rows)}",
        (0.02, ceiling * 1.05),
        ha="left",
        va="bottom",
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="#555555",
    )
    # the oracle's distance is 0 by construction: it has no place on a logarithmic axis
    measured(axis, rows[rows["estimator"] != "oracle"], "subspace_distance")
    if "oracle" in set(rows["estimator"]):
        axis.plot([], [], color=STYLES["oracle"][0], marker="x", lw=1.2, label=STYLES["oracle"][2])
    sound = shared.groupby("n_pairs")["s2_a_posteriori"].median()
    axis.plot(sound.index, sound, color=SOUND, lw=1.6, label="S2, a posteriori (proved)")
    printed = constant * shared.groupby("n_pairs")["theorem_4_1"].median()
    axis.plot(
        printed.index,
        printed,
        "-.",
        color=BOUND,
        lw=1.6,
        label=f"Theorem 4.1, fitted $c_1$ = {constant:.2g}",
    )
    _limit(axis, shared, "limit")


def _rewards(axis: Axes, rows: pd.DataFrame) -> None:
    measured(axis, rows, "reward_error")
    _limit(axis, rows[rows["estimator"] == "share_b"], "reward_limit")


def _limit(axis: Axes, shared: pd.DataFrame, column: str) -> None:
    curve = shared.groupby("n_pairs")[column].median()
    axis.plot(
        curve.index,
        curve,
        ":",
        color=LIMIT,
        lw=2.2,
        zorder=5,
        label="efficiency limit (L1 above, L2 below)",
    )


def _frame_rows(axes: np.ndarray, rows: pd.DataFrame) -> None:
    for axis in axes.flat:
        axis.set(xscale="log", yscale="log")
        axis.grid(True, which="major", color="#DDDDDD", lw=0.5)
    shared = rows[rows["estimator"] == "share_b"]
    lowest = min(shared["subspace_distance"].min(), shared["limit"].min())
    axes[0, 0].set_ylim(0.7 * lowest, 5.0 * float(shared["ceiling"].max()))
    axes[0, 0].set_ylabel(r"subspace distance  dist$(\hat B, B^\diamond)$")
    axes[1, 0].set_ylabel(r"reward error  $(\mathrm{mean}_i\,E\langle E_i,x\rangle^2)^{1/2}$")


def _ceiling_name(rows: pd.DataFrame) -> str:
    """What a distance cannot exceed: `sqrt(min(k, d1 - k))`."""
    one = rows.iloc[0]
    return r"$\sqrt{k}$" if one["rank"] <= one["d1"] - one["rank"] else r"$\sqrt{d_1-k}$"


def _constant(rows: pd.DataFrame) -> float:
    """Smallest constant with which the printed bound covers every `share_b` row."""
    shared = rows[rows["estimator"] == "share_b"]
    return float((shared["subspace_distance"] / shared["theorem_4_1"]).max())


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    bound = one.get("fit_norm_bound")
    return (
        f"d1 = {one['d1']}, d2 = {one['d2']}, k = {one['rank']}, nu = {one['nu']:g}, condition = "
        f"{one['condition']:g}, tail = {one['tail']:g}, {one['features']} features, {one['link']} "
        f"link, R = {'none' if pd.isna(bound) else format(bound, 'g')}; "
        f"{rows['repetition'].nunique()} seeds.\n"
        "Points: median over seeds; bars: middle half of the seeds; bounds and limits: median. "
        "c1: the smallest that covers every share_b run.\n"
        f"The oracle's distance is 0 by construction.{lost}"
    )
