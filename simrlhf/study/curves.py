"""Curves of estimators, drawn alike in every figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

# colour-blind safe (Okabe and Ito); order of the legend
STYLES = {
    "oracle": ("#000000", "x", "oracle (basis given)"),
    "share_b": ("#D55E00", "o", "share_b"),
    "full": ("#0072B2", "s", "full"),
    "local": ("#56B4E9", "D", "local"),
    "global": ("#009E73", "v", "global"),
}


def value_gaps(axis: Axes, rows: pd.DataFrame, *, against: str = "n_pairs") -> None:
    """Gaps of greedy policies, what L4 lets expect of them, and the loss of a random policy."""
    measured(axis, rows, "value_gap", against=against)
    for name in ("share_b", "full", "oracle"):
        curve = rows[rows["estimator"] == name].groupby(against)["gap_limit"].median().dropna()
        axis.plot(curve.index, curve, ":", color=STYLES[name][0], lw=2.0, zorder=5)
    axis.plot([], [], ":", color="#555555", lw=2.0, label="expected from the limit (L4)")
    scale = (rows["optimal_value"] - rows["random_value"]).median()
    axis.axhline(scale, color="#999999", lw=1.0, ls="--", label="loss of a random policy")
    axis.set(xscale="log", yscale="log")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def measured(axis: Axes, rows: pd.DataFrame, column: str, *, against: str = "n_pairs") -> None:
    """Median over seeds with the middle half of them, for every estimator with a style."""
    for name, (colour, marker, label) in STYLES.items():
        mine = rows[rows["estimator"] == name]
        if mine.empty:
            continue
        one = mine.iloc[0]
        # local coincides with full where a matrix cannot have a rank above k: drawn around it
        hollow = name == "local" and min(one["d1"], one["d2"]) <= one["rank"]
        measured_curve(
            axis, mine, column, against=against, colour=colour, marker=marker, hollow=hollow,
            label="local (= full: d2 <= k)" if hollow else label,
            zorder=4 if name == "share_b" else 3,
        )  # fmt: skip


def measured_curve(
    axis: Axes,
    rows: pd.DataFrame,
    column: str,
    *,
    against: str = "n_pairs",
    colour: str,
    marker: str,
    label: str,
    hollow: bool = False,
    zorder: int = 3,
) -> None:
    """Median over seeds with the middle half of them."""
    table = rows.groupby(against)[column].quantile([0.25, 0.5, 0.75]).unstack()
    middle = table[0.5].to_numpy()
    axis.errorbar(
        table.index.to_numpy(),
        middle,
        yerr=[middle - table[0.25], table[0.75] - middle],
        color=colour,
        marker=marker,
        ms=9 if hollow else 5,
        mfc="none" if hollow else colour,
        lw=1.2,
        capsize=2,
        label=label,
        zorder=zorder,
    )
