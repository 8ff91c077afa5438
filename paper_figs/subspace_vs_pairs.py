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

from simrlhf.study.results import load_results

STUDY = "subspace_vs_pairs"
# colour-blind safe (Okabe and Ito); order of the legend
STYLES = {
    "oracle": ("#000000", "x", "oracle (basis given)"),
    "share_b": ("#D55E00", "o", "share_b"),
    "full": ("#0072B2", "s", "full"),
    "local": ("#56B4E9", "D", "local"),
    "global": ("#009E73", "v", "global"),
}
BOUND, SOUND, LIMIT, VACUOUS = "#CC79A7", "#7F3C8D", "#555555", "#EEEEEE"


def draw(results: Path, out: Path) -> list[Path]:
    """Write `subspace_vs_pairs.png` and `.pdf` into `out`."""
    rows = load_results(STUDY, results)
    users = sorted(rows["n_users"].unique())
    columns = min(len(users), 3)
    lines = -(-len(users) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.3 * columns, 4.1 * lines + 1.5), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )
    for axis, n_users in zip(axes.flat, users, strict=False):
        _panel(axis, rows[rows["n_users"] == n_users], _constant(rows))
        axis.set_title(f"N = {n_users} users", fontsize=11)
    for axis in axes.flat[len(users):]:
        axis.set_visible(False)
    for axis in axes[:, 0]:
        axis.set_ylabel(r"subspace distance  dist$(\hat B, B^\diamond)$")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows), fontsize=9)
    paths = [out / f"{STUDY}.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=160)
    plt.close(figure)
    return paths


def _panel(axis: Axes, rows: pd.DataFrame, constant: float) -> None:
    shared = rows[rows["estimator"] == "share_b"]
    ceiling = float(shared["ceiling"].iloc[0])
    top = 4.0 * ceiling
    axis.axhspan(ceiling, top, color=VACUOUS, zorder=0)
    axis.axhline(ceiling, color="#999999", lw=1, zorder=1)
    axis.annotate(
        r"above $\sqrt{k}$: a bound says nothing", (0.98, ceiling * 1.06), ha="right", va="bottom",
        xycoords=("axes fraction", "data"), fontsize=8, color="#555555",
    )
    for name, (colour, marker, label) in STYLES.items():
        mine = rows[rows["estimator"] == name]
        if mine.empty:
            continue
        n, middle, low, high = _medians(mine)
        hollow = name == "local"  # coincides with full at d2 = 1: draw it around, not over
        axis.errorbar(
            n, middle, yerr=[middle - low, high - middle], color=colour, marker=marker,
            ms=8 if hollow else 5, mfc="none" if hollow else colour, lw=1.2, capsize=2,
            label=_label(name, label, mine), zorder=4 if name == "share_b" else 3,
        )
    for column, colour, style, label in (
        ("s2_a_posteriori", SOUND, "-", "S2, fully a posteriori (proved)"),
        ("s2_bregman", SOUND, "--", "S2, curvature of the run (proved)"),
    ):
        curve = shared.groupby("n_pairs")[column].median()
        curve = curve[curve < top]
        axis.plot(curve.index, curve, style, color=colour, lw=1.6, label=label)
    printed = constant * shared.groupby("n_pairs")["theorem_4_1"].median()
    axis.plot(
        printed.index, printed, "-.", color=BOUND, lw=1.6,
        label=f"Theorem 4.1, fitted $c_1$ = {constant:.2g}",
    )
    limit = shared.groupby("n_pairs")["limit"].median()
    axis.plot(limit.index, limit, ":", color=LIMIT, lw=1.8, label="L1, efficiency limit (r.m.s.)")
    axis.set(xscale="log", yscale="log", xlabel="pairs per user  n")
    smallest = rows.loc[rows["estimator"] != "oracle", "subspace_distance"].min()
    axis.set_ylim(0.6 * min(smallest, float(limit.min())), top)
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _label(name: str, label: str, rows: pd.DataFrame) -> str:
    if name == "local" and int(rows["d2"].iloc[0]) <= int(rows["rank"].iloc[0]):
        return "local (= full: d2 <= k)"
    return label


def _medians(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`n`, median distance, and the middle half of the seeds."""
    grouped = rows.groupby("n_pairs")["subspace_distance"]
    table = grouped.quantile([0.25, 0.5, 0.75]).unstack()
    return table.index.to_numpy(), table[0.5].to_numpy(), table[0.25].to_numpy(), table[0.75].to_numpy()


def _constant(rows: pd.DataFrame) -> float:
    """Smallest constant with which the printed bound covers every `share_b` row."""
    shared = rows[rows["estimator"] == "share_b"]
    return float((shared["subspace_distance"] / shared["theorem_4_1"]).max())


def _caption(rows: pd.DataFrame) -> str:
    one = rows.iloc[0]
    return (
        f"d1 = {one['d1']}, d2 = {one['d2']}, k = {one['rank']}, nu = {one['nu']:g}, condition = "
        f"{one['condition']:g}, tail = {one['tail']:g}, {one['features']} features, {one['link']} "
        f"link, R = {one['fit_norm_bound']:g}; {rows['repetition'].nunique()} seeds.\n"
        "Points: median over seeds, bars: middle half of the seeds; bounds: median over seeds.\n"
        "The constant of Theorem 4.1 is the smallest that covers every share_b point shown."
    )
