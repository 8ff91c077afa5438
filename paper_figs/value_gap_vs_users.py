"""Value lost by greedy policies against the number of users, at fixed pairs per user.

Reads the rows of the study `value_gap_vs_users`; computes nothing but medians.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from simrlhf.study import figures
from simrlhf.study.curves import value_gaps
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "value_gap_vs_users"


def draw(results: Path, out: Path) -> list[Path]:
    """Write `value_gap_vs_users.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows)
    sizes = sorted(rows["n_pairs"].unique())
    figure, axes = plt.subplots(
        1,
        len(sizes),
        figsize=(max(4.6 * len(sizes), 7.0), 4.8),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, n_pairs in zip(axes[0], sizes, strict=True):
        value_gaps(axis, rows[rows["n_pairs"] == n_pairs], against="n_users")
        axis.set_title(f"n = {n_pairs} pairs per user", fontsize=11)
        axis.set_xlabel("users  N")
    axes[0, 0].set_ylabel("value gap, mean over users")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    bound = one.get("fit_norm_bound")
    return (
        f"{one['decision_mdp']}: S = {one['decision_n_states']}, A = {one['decision_n_actions']}, "
        f"H = {one['decision_horizon']}; d1 = {one['d1']}, d2 = {one['d2']}, k = {one['rank']}, "
        f"nu = {one['nu']:g}, tail = {one['tail']:g}, {one['link']} link, R = "
        f"{'none' if pd.isna(bound) else format(bound, 'g')}; {rows['repetition'].nunique()} seeds."
        f"\nPoints: median over seeds; bars: their middle half.{lost}"
    )
