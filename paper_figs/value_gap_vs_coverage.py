"""Value lost by greedy and by pessimistic policies as the comparisons cover less.

Reads the rows of the study `value_gap_vs_coverage`; computes nothing but means and paired
intervals.
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
from simrlhf.study.curves import STYLES
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "value_gap_vs_coverage"
_AXIS = "decision_coverage"


def draw(results: Path, out: Path) -> list[Path]:
    """Write `value_gap_vs_coverage.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows, swept=(_AXIS,))
    sizes = sorted(rows["n_pairs"].unique())
    figure, axes = plt.subplots(
        2,
        len(sizes),
        figsize=(max(4.8 * len(sizes), 7.0), 7.6),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
        height_ratios=(3, 2),
    )
    for (upper, lower), n_pairs in zip(axes.T, sizes, strict=True):
        mine = rows[rows["n_pairs"] == n_pairs]
        _gaps(upper, mine)
        _differences(lower, mine)
        upper.set_title(f"n = {n_pairs} pairs per user", fontsize=11)
        lower.set_xlabel("coverage: share of actions chosen at random")
    axes[0, 0].set_ylabel("value gap, mean over users")
    axes[1, 0].set_ylabel("greedy minus pessimistic")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _gaps(axis: Axes, rows: pd.DataFrame) -> None:
    for name, mine in _estimators(rows):
        colour, marker, label = STYLES[name]
        for column, line, said in (
            ("value_gap", "-", "greedy"),
            ("pessimistic_gap", "--", "pessimistic"),
        ):
            curve = mine.groupby(_AXIS)[column].mean()
            axis.plot(
                curve.index, curve, line, color=colour, marker=marker, ms=5, lw=1.3,
                mfc=colour if line == "-" else "none", label=f"{label}, {said}",
            )  # fmt: skip
    axis.set(xscale="log", yscale="log")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _differences(axis: Axes, rows: pd.DataFrame) -> None:
    """Paired over worlds: above zero pessimism pays."""
    axis.axhline(0.0, color="#999999", lw=1.0)
    for name, mine in _estimators(rows):
        colour, marker, _ = STYLES[name]
        found = pd.DataFrame(
            {
                coverage: statistics.mean_interval(
                    (part["value_gap"] - part["pessimistic_gap"]).to_numpy()
                )
                for coverage, part in mine.groupby(_AXIS)
            },
            index=["estimate", "low", "high"],
        ).T
        axis.errorbar(
            found.index.to_numpy(),
            found["estimate"],
            yerr=[found["estimate"] - found["low"], found["high"] - found["estimate"]],
            color=colour,
            marker=marker,
            ms=5,
            lw=1.2,
            capsize=2,
        )
    axis.set(xscale="log")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _estimators(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Those that have confidence sets, in the order of the legend."""
    found = [(name, rows[rows["estimator"] == name]) for name in STYLES]
    return [(name, mine) for name, mine in found if mine["pessimistic_gap"].notna().any()]


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    covered = rows.groupby("estimator")["set_coverage"].mean()
    said = ", ".join(f"{name} {covered[name]:.2f}" for name, _ in _estimators(rows))
    return (
        f"{one['decision_mdp']}: S = {one['decision_n_states']}, A = {one['decision_n_actions']}, "
        f"H = {one['decision_horizon']}, behaviour {one['decision_behaviour']}; N = "
        f"{one['n_users']}, d1 = {one['d1']}, k = {one['rank']}, nu = {one['nu']:g}, base "
        f"{one['base_norm']:g}; {rows['repetition'].nunique()} seeds.\n"
        "Above: means over seeds. Below: paired differences with 95 % intervals; above zero "
        f"pessimism pays.\nUsers whose 95 % set holds their truth: {said}.{lost}"
    )
