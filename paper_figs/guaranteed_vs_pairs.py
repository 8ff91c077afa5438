"""What pessimism over the rank-k likelihood-ratio set guarantees: from below, from above, searched.

Reads the rows of the study `guaranteed_vs_pairs`; computes nothing but means and intervals.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "guaranteed_vs_pairs"
# colour-blind safe (Okabe and Ito)
_CURVES = {
    "guaranteed_fisher": ("#E69F00", "D", "Fisher ellipsoid of each user (95 % for him alone)"),
    "guaranteed_slice": ("#0072B2", "s", "likelihood ratio at the fitted basis (too much)"),
    "guaranteed_searched": ("#D55E00", "o", "rank-k likelihood ratio, as searched"),
}


def draw(results: Path, out: Path) -> list[Path]:
    """Write `guaranteed_vs_pairs.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.8), layout="constrained")
    _values(left, rows)
    _shares(right, rows)
    for axis in (left, right):
        axis.set(xscale="log", xlabel="pairs per user  n")
        axis.grid(True, which="major", color="#DDDDDD", lw=0.5)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _values(axis: Axes, rows: pd.DataFrame) -> None:
    """Mean guaranteed values, and the band that the rank-k set's lies in."""
    means = rows.groupby("n_pairs")[[*_CURVES, "guaranteed_below", "guaranteed_above"]].mean()
    n = means.index.to_numpy()
    axis.fill_between(
        n, means["guaranteed_below"], means["guaranteed_above"],
        color="#D55E00", alpha=0.25, lw=0, label="between the bounds of the rank-k set",
    )  # fmt: skip
    for column, (colour, marker, label) in _CURVES.items():
        axis.plot(n, means[column], color=colour, marker=marker, ms=5, lw=1.2, label=label)
    best = rows["attainable"].mean()
    axis.axhline(best, color="#999999", lw=1.0, ls="--", label="best policies under the truth")
    axis.set(ylabel="guaranteed value over the reference's", ylim=(0.0, None))


def _shares(axis: Axes, rows: pd.DataFrame) -> None:
    """Paired over worlds: everything as a share of the value above."""
    for column, (colour, marker) in {
        "guaranteed_below": ("#000000", "v"),
        # a Fisher set is of another coverage
        **{name: _CURVES[name][:2] for name in ("guaranteed_slice", "guaranteed_searched")},
    }.items():
        shown = rows[rows["guaranteed_above"] > 0.0]
        ratio = shown[column] / shown["guaranteed_above"]
        found = [(n, *_interval(part)) for n, part in ratio.groupby(shown["n_pairs"])]
        if not found:
            continue
        n, middle, low, high = np.array(found).T
        axis.errorbar(
            n, middle, yerr=[middle - low, high - middle],
            color=colour, marker=marker, ms=5, lw=1.2, capsize=2,
            label="from below" if column == "guaranteed_below" else None,
        )  # fmt: skip
    axis.axhline(1.0, color="#999999", lw=1.0)
    axis.set(ylabel="share of the value above")
    axis.legend(loc="lower right", fontsize=9, frameon=False)


def _interval(sample: pd.Series) -> tuple[float, float, float]:
    """Mean and ends; a single world has no interval."""
    if len(sample) == 1:
        alone = float(sample.iloc[0])
        return alone, alone, alone
    found = statistics.mean_interval(sample.to_numpy())
    return found.estimate, found.low, found.high


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    return (
        f"{one['decision_mdp']}: S = {one['decision_n_states']}, A = {one['decision_n_actions']}, "
        f"H = {one['decision_horizon']}; N = {one['n_users']}, d1 = {one['d1']}, d2 = {one['d2']}, "
        f"k = {one['rank']}, nu = {one['nu']:g}, {one['link']} link; "
        f"{rows['repetition'].nunique()} seeds, two users each, means.\nThe rank-k set is of "
        "nominal coverage .95 for all users at once; it held the truth of all in "
        f"{rows['truth_is_in'].mean():.2f} of the samples.\nRight: paired over worlds, 95 % "
        f"intervals.{lost}"
    )
