"""New users on others' basis, on the true one and alone: error and lost value against their pairs.

Reads the rows of the study `new_user_shots`; computes nothing but medians and inverted means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from simrlhf.study import figures
from simrlhf.study.curves import STYLES, measured_curve
from simrlhf.study.inversion import pairs_needed_of
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "new_user_shots"
# of share_b, from few old pairs to many; the ends of one sequential map
_SHADES = ("#FDBE85", "#FD8D3C", "#D94701", "#7F2704")
_MARKERS = ("^", "o", "P", "*")
_BOUND = "#7F3C8D"
# what a new user may want: a share of the truth's size, and of what a random policy loses
_ERROR_WANTED, _LOSS_WANTED = 0.5, 0.1


def draw(results: Path, out: Path) -> list[Path]:
    """Write `new_user_shots.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows, swept=("old_pairs",))
    figure, axes = plt.subplots(1, 2, figsize=(11.0, 5.9), sharex=True, layout="constrained")
    wanted = (
        ("reward_error", "reward_limit", _ERROR_WANTED * _size(rows), 2.0),
        ("value_gap", "gap_limit", _LOSS_WANTED * _random_loss(rows), 1.0),
    )
    for axis, each in zip(axes, wanted, strict=True):
        _panel(axis, rows, *each)
    _bounds(axes[0], rows)
    axes[0].set(
        ylabel=r"reward error  $(\mathrm{mean}_i\,E\langle E_i,x\rangle^2)^{1/2}$",
        title="reward error of new users",
    )
    axes[1].set(ylabel="value gap, mean over new users", title="value that new users lose")
    axes[1].axhline(_random_loss(rows), color="#999999", lw=1.0, ls="--")
    axes[1].annotate(
        "loss of a random policy", (0.02, _random_loss(rows) * 1.04), fontsize=8, color="#555555",
        xycoords=("axes fraction", "data"), va="bottom",
    )  # fmt: skip
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _curves(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str, str]]:
    """Name, rows, colour and marker: share_b by old pairs, the others once."""
    sizes = sorted(rows["old_pairs"].unique())
    # oracle and full do not see the old users; global's mean hardly depends on them
    once = rows[rows["old_pairs"] == sizes[-1]]
    for name in ("oracle", "full", "global"):
        mine = once[once["estimator"] == name]
        if not mine.empty:
            label = {"oracle": "true basis", "full": "alone (full)", "global": "old users' common"}
            yield label[name], mine, STYLES[name][0], STYLES[name][1]
    shared = rows[rows["estimator"] == "share_b"]
    for place, old_pairs in enumerate(sizes):
        mine = shared[shared["old_pairs"] == old_pairs]
        if not mine.empty:
            style = min(place + max(len(_SHADES) - 1 - len(sizes), 0), len(_SHADES) - 1)
            yield f"basis of n = {old_pairs}", mine, _SHADES[style], _MARKERS[style]


def _panel(
    axis: Axes, rows: pd.DataFrame, column: str, limit: str, target: float, power: float
) -> None:
    """Measured curves, limits, and the pairs at which means fall to the target."""
    said = [r"$n_0$ at which the mean falls to the dotted line:"]
    for label, mine, colour, marker in _curves(rows):
        flat = mine["estimator"].iloc[0] == "global"
        measured_curve(axis, mine, column, colour=colour, marker=marker, label=label)
        expected = mine.groupby("n_pairs")[limit].median().dropna()
        axis.plot(expected.index, expected, ":", color=colour, lw=2.0, zorder=5)
        if not flat and min(mine["n_pairs"].nunique(), mine["repetition"].nunique()) > 1:
            found = pairs_needed_of(mine, column, np.array([target]), power=power)
            said.append(f"{label}: {_with_interval(found.pairs[0], found.low[0], found.high[0])}")
    axis.plot([], [], ":", color="#555555", lw=2.0, label="expected from the limit (L5, L2)")
    axis.axhline(target, color="#555555", lw=1.0, ls=(0, (1, 3)))
    axis.annotate(
        "\n".join(said), (0.02, 0.02), xycoords="axes fraction", fontsize=8, va="bottom",
        bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "#DDDDDD"},
    )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel=r"pairs of a new user  $n_0$")
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _bounds(axis: Axes, rows: pd.DataFrame) -> None:
    """S6 on the best basis, where it is below what 2 R says."""
    last = rows[(rows["estimator"] == "share_b") & (rows["old_pairs"] == rows["old_pairs"].max())]
    if "s6" not in last or last["s6"].isna().all():
        return
    curve = last.groupby("n_pairs")[["s6", "s6_ceiling"]].median()
    informs = curve["s6"] < (1.0 - 1e-9) * curve["s6_ceiling"]
    axis.plot(
        curve.index[informs], curve["s6"][informs], color=_BOUND, lw=1.6,
        label=f"S6 (proved), basis of n = {last['old_pairs'].iloc[0]}",
    )  # fmt: skip


def _size(rows: pd.DataFrame) -> float:
    """Reward error of `Delta = 0`: what guessing the base reward costs."""
    return float((rows["reward_error"] / rows["relative_error"]).median())


def _random_loss(rows: pd.DataFrame) -> float:
    return float((rows["optimal_value"] - rows["random_value"]).median())


def _with_interval(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "not reached"
    ends = f" ({low:.0f} to {high:.0f})" if np.isfinite(low + high) else ""
    return f"{value:.0f}{ends}"


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    bound = one.get("fit_norm_bound")
    old = one["n_users"] - one["new_users"]
    return (
        f"{old} old users with n pairs each, {one['new_users']} new ones with $n_0$; d1 = "
        f"{one['d1']}, d2 = {one['d2']}, k = {one['rank']}, nu = {one['nu']:g} of all, tail = "
        f"{one['tail']:g}, {one['decision_mdp']} with S = {one['decision_n_states']}, A = "
        f"{one['decision_n_actions']}, {one['link']} link, R = "
        f"{'none' if pd.isna(bound) else format(bound, 'g')}; {rows['repetition'].nunique()} seeds."
        f"\nPoints: median over seeds; bars: their middle half. Dotted line: {_ERROR_WANTED:g} of "
        f"the truth's size (left), {_LOSS_WANTED:g} of a random policy's loss (right).\nMeans over "
        "seeds, root mean squares for errors, with 95 % intervals; S6 holds with probability 0.95 "
        "for all new users together,\nand is drawn where it says less than 2 R. Few pairs separate "
        f"the labels, and fits then lie on the ball of radius R.{lost}"
    )
