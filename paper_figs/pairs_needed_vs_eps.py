"""Pairs per user needed against the accuracy wanted: measured, in the limit, and as printed.

Reads the rows of the study `pairs_needed_vs_eps`; inverts the mean error of every estimator, and
evaluates Remark 3 and Corollary 4.1 (audit A1).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scipy.optimize
from matplotlib.axes import Axes

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.study import figures
from simrlhf.study.curves import STYLES
from simrlhf.study.inversion import PairsNeeded, ends, pairs_at, pairs_needed_of
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "pairs_needed_vs_eps"
# error, its limit, and the power of the mean over seeds that the limit speaks of
_TARGETS = (("reward_error", "reward_limit", 2.0), ("value_gap", "gap_limit", 1.0))
_ESTIMATORS = ("full", "share_b", "oracle")
_READINGS = {"printed": ("--", "Remark 3 as printed"), "corollary": ("-.", "by Corollary 4.1")}
_POINTS = 16
# slopes are fitted from so many pairs for each parameter on: with fewer the factor 1 + c / n by
# which errors exceed their limit still bends the curves
_PAIRS_PER_PARAMETER = 30.0
_DELTA = 0.05
_LARGEST_CONSTANT = 1e6


def draw(results: Path, out: Path) -> list[Path]:
    """Write `pairs_needed_vs_eps.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows, swept=())
    checks.require(
        {"share_b", "full"} <= set(rows["estimator"]),
        f"the figure compares share_b with full; sweep {STUDY} with both estimators",
    )
    figure, axes = plt.subplots(
        2, 2, figsize=(11.0, 8.6), sharex="col", layout="constrained", height_ratios=(5, 2)
    )
    for (upper, lower), target in zip(axes.T, _TARGETS, strict=True):
        needed = inverted(rows, target[0], power=target[2])
        limits = _limits(rows, needed, target)
        _pairs(upper, rows, needed, limits)
        _savings(lower, rows, needed, limits)
    axes[0, 0].set(ylabel="pairs per user needed  n", title="target: reward error")
    axes[0, 1].set(title="target: value gap")
    axes[1, 0].set(ylabel="n of full / n of share_b", xlabel=r"reward error wanted  $\epsilon$")
    axes[1, 1].set(xlabel=r"value gap wanted  $\epsilon$")
    figure.legend(
        *_common(axes[0, 0], axes[1, 0]),
        loc="outside lower center", ncols=3, fontsize=9, frameon=False,
    )  # fmt: skip
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def inverted(rows: pd.DataFrame, column: str, *, power: float) -> dict[str, PairsNeeded]:
    """Every estimator's pairs at targets common to all, spread over all mean errors."""
    means = (rows[column] ** power).groupby([rows["estimator"], rows["n_pairs"]]).mean()
    means = means ** (1.0 / power)
    # just inside: the ends themselves bracket nothing
    targets = np.geomspace(0.98 * means.max(), 1.02 * means.min(), _POINTS)
    return {
        name: pairs_needed_of(rows[rows["estimator"] == name], column, targets, power=power)
        for name in _ESTIMATORS
        if name in set(rows["estimator"])
    }


def _limits(
    rows: pd.DataFrame, needed: dict[str, PairsNeeded], target: tuple[str, str, float]
) -> dict[str, np.ndarray]:
    """Pairs at which the limit of each estimator's error, mean over worlds, falls to the targets.

    `n = trace / eps^2` of the reward error, the inverse of L4's expected gap of the value gap.
    """
    _, column, power = target
    found = {}
    for name, each in needed.items():
        mine = rows[rows["estimator"] == name]
        curve = (mine[column] ** power).groupby(mine["n_pairs"]).mean() ** (1.0 / power)
        found[name] = pairs_at(curve.index.to_numpy(float), curve.to_numpy(), each.targets)
    return found


def _pairs(
    axis: Axes,
    rows: pd.DataFrame,
    needed: dict[str, PairsNeeded],
    limits: dict[str, np.ndarray],
) -> None:
    for name, found in needed.items():
        colour, marker, label = STYLES[name]
        slope = found.slope(found.pairs >= _PAIRS_PER_PARAMETER * _parameters(rows, name))
        said = f"slope {slope.estimate:.2f} ({slope.low:.2f} to {slope.high:.2f})"
        axis.errorbar(
            found.targets, found.pairs, yerr=_bars(found.pairs, found.low, found.high),
            color=colour, marker=marker, ms=5, lw=1.2, capsize=2, zorder=4,
            label=f"{label}: {said}" if np.isfinite(slope.estimate) else label,
        )  # fmt: skip
        axis.plot(found.targets, limits[name], ":", color=colour, lw=2.0, zorder=5)
    axis.legend(fontsize=8, loc="lower left", framealpha=1.0, edgecolor="#DDDDDD").set_zorder(6)
    for reading, (line, _) in _READINGS.items():
        for name, curve in printed(rows, needed["share_b"], reading).items():
            axis.plot(needed["share_b"].targets, curve, line, color=STYLES[name][0], lw=1.1)
    axis.set(xscale="log", yscale="log")
    counts = rows["n_pairs"]
    axis.set_ylim(0.7 * counts.min(), 1.5 * counts.max())
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def printed(rows: pd.DataFrame, shared: PairsNeeded, reading: str) -> dict[str, np.ndarray]:
    """Pairs that a reading of Remark 3 asks of share_b and of full, with one constant for both.

    The constant, which is not printed, is the one with which share_b's line passes through its
    measured pairs at the largest target that is bracketed.
    """
    first = int(np.flatnonzero(np.isfinite(shared.pairs))[0])
    target, pairs = shared.targets[first], shared.pairs[first]
    one = rows.iloc[0]

    def asked(target: float, constant: float, model_class: str) -> float:
        found = theory.pairs_needed(
            target, n_users=int(one["n_users"]), d1=int(one["d1"]), d2=int(one["d2"]),
            rank=int(one["rank"]), nu=float(one["nu"]),
            tail_energy=float(one["n_users"] * one["tail"] ** 2), delta=_DELTA, reading=reading,
            model_class=model_class, constant=constant,
        )  # fmt: skip
        return float(theory.LARGEST_SAMPLE) if found is None else float(found)

    largest = np.log(_LARGEST_CONSTANT)
    constant = float(
        np.exp(
            scipy.optimize.bisect(
                lambda c: asked(target, float(np.exp(c)), "share_b") - pairs, -largest, largest
            )
        )
    )
    return {
        name: np.array([asked(float(eps), constant, name) for eps in shared.targets])
        for name in ("share_b", "full")
    }


def _savings(
    axis: Axes,
    rows: pd.DataFrame,
    needed: dict[str, PairsNeeded],
    limits: dict[str, np.ndarray],
) -> None:
    """How many times the pairs of share_b `full` needs, measured and by count."""
    full, shared = needed["full"], needed["share_b"]
    ratio = full.pairs / shared.pairs
    low, high = ends(full.resampled / shared.resampled)
    axis.errorbar(
        full.targets, ratio, yerr=_bars(ratio, low, high), color="#000000", marker="o", ms=5,
        lw=1.2, capsize=2, label="measured ratio, with 95 % intervals",
    )  # fmt: skip
    axis.plot(
        full.targets, limits["full"] / limits["share_b"], ":", color="#555555", lw=2.0,
        label="ratio of this world's limits",
    )  # fmt: skip
    for value, line, label in (
        (printed_ratio(rows), "--", "printed: d1 d2 N / (k (d1 + N d2))"),
        (_parameters(rows, "full") / _parameters(rows, "share_b"), "-",
         "free parameters (L3): N d1 d2 / (k (N d2 + d1 - k))"),
    ):  # fmt: skip
        axis.axhline(value, ls=line, color="#D55E00", lw=1.1, label=f"{label} = {value:.2f}")
    axis.set(xscale="log", ylim=(0.0, 1.25 * max(np.nanmax(ratio), printed_ratio(rows))))
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def printed_ratio(rows: pd.DataFrame) -> float:
    """Remark 3's saving, `d1 d2 N / (k (d1 + N d2))`."""
    one = rows.iloc[0]
    sizes = {name: int(one[name]) for name in ("n_users", "d1", "d2", "rank")}
    full, shared = (theory.class_dimension(name, **sizes) for name in ("full", "share_b"))
    return full / shared


def _parameters(rows: pd.DataFrame, name: str) -> float:
    """Free parameters of a class, for each user (L3)."""
    one = rows.iloc[0]
    sizes = {size: int(one[size]) for size in ("n_users", "d1", "d2", "rank")}
    return theory.parameter_count(name, **sizes) / sizes["n_users"]


def _bars(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Lengths of error bars; none where there is no interval."""
    return np.nan_to_num(np.clip([middle - low, high - middle], 0.0, None))


def _common(upper: Axes, lower: Axes) -> tuple[list, list[str]]:
    """Entries for all panels: line styles above, and what is in the lower panels."""
    lines = {":": "limit (L2, L4)"} | dict(_READINGS.values())
    extra = [upper.plot([], [], ls, color="#555555", lw=1.5)[0] for ls in lines]
    handles, labels = lower.get_legend_handles_labels()
    return [*extra, *handles], [*lines.values(), *labels]


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    bound = one.get("fit_norm_bound")
    return (
        f"N = {one['n_users']}, d1 = {one['d1']}, d2 = {one['d2']}, k = {one['rank']}, nu = "
        f"{one['nu']:g}, tail = {one['tail']:g}, {one['decision_mdp']} with S = "
        f"{one['decision_n_states']}, A = {one['decision_n_actions']}, {one['link']} link, R = "
        f"{'none' if pd.isna(bound) else format(bound, 'g')}; {rows['repetition'].nunique()} seeds."
        "\nPoints: n at which the mean over seeds (root mean square of the reward error) falls to "
        "eps, log-log between measured n, where the curve brackets eps.\nBars and slopes: 95 % "
        f"intervals, seeds resampled; slopes from {_PAIRS_PER_PARAMETER:g} pairs per free "
        "parameter on. Remark 3 and Corollary 4.1 leave their constants\nopen: here each has the "
        f"one with which its line for share_b passes through the measured n at the largest "
        f"eps.{lost}"
    )
