"""Value lost by greedy policies against pairs per user, with L4's prediction and the crossings.

Reads the rows of the study `value_gap_vs_pairs`; computes nothing but medians and crossings.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.curves import value_gaps
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "value_gap_vs_pairs"
# keys of a problem's zip move together, so the first tells them apart
_SWEPT = ("tail", "decision_mdp", "decision_n_states", "decision_n_actions", "decision_horizon",
          "decision_behaviour")  # fmt: skip


def draw(results: Path, out: Path) -> list[Path]:
    """Write `value_gap_vs_pairs.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows, swept=_SWEPT)
    tails = sorted(rows["tail"].unique())
    # the bandit first: it has the prediction that the legend names
    problems = rows.sort_values("decision_horizon")["decision_mdp"].unique()
    figure, axes = plt.subplots(
        len(problems),
        len(tails),
        figsize=(max(4.6 * len(tails), 7.5), 3.6 * len(problems) + 1.2),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for line, problem in zip(axes, problems, strict=True):
        for axis, tail in zip(line, tails, strict=True):
            _panel(axis, rows[(rows["decision_mdp"] == problem) & (rows["tail"] == tail)])
        line[0].set_ylabel("value gap, mean over users")
    for axis in axes[-1]:
        axis.set_xlabel("pairs per user  n")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    value_gaps(axis, rows)
    one = rows.iloc[0]
    crossing = crossing_of(rows, "share_b", "full")
    if math.isfinite(crossing):
        axis.axvline(crossing, color="#7F3C8D", lw=1.0)
        axis.annotate(
            f"full beats share_b\nfrom n = {crossing:.0f} on",
            (crossing, 0.04),
            xytext=(4, 0),
            textcoords="offset points",
            xycoords=("data", "axes fraction"),
            fontsize=8,
            color="#7F3C8D",
        )
    axis.set_title(
        f"{one['decision_mdp']}: S = {one['decision_n_states']}, A = {one['decision_n_actions']}, "
        f"H = {one['decision_horizon']}; tail = {one['tail']:g}",
        fontsize=10,
    )


def crossing_of(rows: pd.DataFrame, first: str, second: str) -> float:
    """Pairs per user from which on `second` loses less, linear in log n; NaN without a crossing.

    A crossing counts where the paired 95 % intervals of the differences lie on one side of zero
    somewhere before it, and on the other somewhere after it.
    """
    table = rows.pivot_table(
        index="n_pairs", columns=["estimator", "repetition"], values="value_gap"
    )
    lead = (table[first] - table[second]).dropna()
    intervals = [statistics.mean_interval(line.to_numpy()) for _, line in lead.iterrows()]
    means = np.array([one.estimate for one in intervals])
    turns = np.flatnonzero((means[:-1] < 0.0) & (means[1:] >= 0.0))
    if turns.size != 1:
        return math.nan
    turn = int(turns[0])
    before = any(one.high < 0.0 for one in intervals[: turn + 1])
    after = any(one.low > 0.0 for one in intervals[turn + 1 :])
    if not (before and after):
        return math.nan
    logs = np.log(lead.index.to_numpy(dtype=float))
    share = means[turn] / (means[turn] - means[turn + 1])
    return float(np.exp(logs[turn] + share * (logs[turn + 1] - logs[turn])))


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    bound = one.get("fit_norm_bound")
    return (
        f"N = {one['n_users']}, d1 = {one['d1']}, d2 = {one['d2']}, k = {one['rank']}, nu = "
        f"{one['nu']:g}, {one['link']} link, R = "
        f"{'none' if pd.isna(bound) else format(bound, 'g')}; {rows['repetition'].nunique()} seeds."
        "\nPoints: median over seeds; bars: their middle half. L4: two actions and one step, where "
        f"the truth is in the class.{lost}"
    )
