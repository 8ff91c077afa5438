"""Confidence sets of every kind: nominal against actual coverage, and where pessimism pays.

Reads the rows of the study `pessimism_vs_greedy`; computes nothing but means and paired intervals.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from simrlhf.core import statistics
from simrlhf.study import figures
from simrlhf.study.curves import STYLES
from simrlhf.study.results import fitted, load_results, require_one_world

STUDY = "pessimism_vs_greedy"
_AXIS = "decision_coverage"
# colour by shape (Okabe and Ito), marker by radius
_KINDS = {
    "fisher": ("#D55E00", "o", "Fisher ellipsoid, chi-square"),
    "likelihood": ("#CC79A7", "s", "likelihood ratio, chi-square"),
    "design_bootstrap": ("#009E73", "^", "design ellipsoid, bootstrap"),
    "design_oracle": ("#009E73", "x", "design ellipsoid, true error"),
    "ball_bootstrap": ("#0072B2", "^", "ball, bootstrap"),
    "ball_oracle": ("#0072B2", "x", "ball, true error"),
    "ball_printed": ("#0072B2", "D", "ball, (B.1) with constant 1"),
    "ball_explicit": ("#000000", "v", "ball, explicit (S2 + S3, S4, 2R)"),
}


def draw(results: Path, out: Path) -> list[Path]:
    """Write `pessimism_vs_greedy.png` and `.pdf` into `out`."""
    everything = load_results(STUDY, results)
    rows = fitted(everything)
    require_one_world(rows, swept=(_AXIS,))
    shares = sorted(rows[_AXIS].unique())
    names = [name for name in STYLES if (rows["estimator"] == name).any()]
    figure, axes = plt.subplots(
        1 + len(shares),
        len(names),
        figsize=(max(3.9 * len(names), 7.0), 3.2 * (1 + len(shares)) + 1.6),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, name in zip(axes.T, names, strict=True):
        mine = rows[rows["estimator"] == name]
        _calibration(column[0], mine[mine[_AXIS] == shares[-1]])
        for axis, share in zip(column[1:], shares, strict=True):
            _differences(axis, mine[mine[_AXIS] == share])
            if column is axes.T[0]:
                axis.set_ylabel(f"greedy minus pessimistic\n{_share(share)}")
        column[0].set_title(STYLES[name][2], fontsize=11)
        column[-1].set_xlabel("pairs per user  n")
    axes[0, 0].set_ylabel(f"actual coverage\n{_share(shares[-1])}, n = {rows['n_pairs'].max()}")
    handles = [
        Line2D([], [], color=colour, marker=marker, lw=1.2, ms=5, label=label)
        for kind, (colour, marker, label) in _KINDS.items()
        if f"pessimistic_gap_{kind}" in rows
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    figure.suptitle(_caption(rows, len(everything) - len(rows)), fontsize=9)
    return figures.save(figure, out, STUDY)


def _calibration(axis: Axes, rows: pd.DataFrame) -> None:
    """Share of users whose set holds the truth, at the largest n, against what the set claims."""
    largest = rows[rows["n_pairs"] == rows["n_pairs"].max()]
    axis.plot([0, 1], [0, 1], color="#999999", lw=1.0, ls="--")
    for kind, (colour, marker, _) in _KINDS.items():
        prefix = f"covered_{kind}_"
        levels = sorted(float(c.removeprefix(prefix)) for c in rows if c.startswith(prefix))
        if levels:
            actual = [largest[f"{prefix}{level:g}"].mean() for level in levels]
            nominal = np.asarray(levels) / 100.0
            axis.plot(nominal, actual, color=colour, marker=marker, ms=5, lw=1.2, clip_on=False)
    axis.set(xlim=(0.45, 1.0), ylim=(0.0, 1.0), xlabel="nominal coverage")
    axis.grid(True, color="#DDDDDD", lw=0.5)


def _differences(axis: Axes, rows: pd.DataFrame) -> None:
    """Paired over worlds: above zero pessimism pays."""
    axis.axhline(0.0, color="#999999", lw=1.0)
    for number, (kind, (colour, marker, _)) in enumerate(_KINDS.items()):
        column = f"pessimistic_gap_{kind}"
        if column not in rows:
            continue
        # side by side, so that intervals of one n do not hide each other
        beside = 1.04 ** (number - len(_KINDS) / 2)
        found = [
            (n * beside, *statistics.mean_interval((part["value_gap"] - part[column]).to_numpy()))
            for n, part in rows.groupby("n_pairs")
        ]
        n, middle, low, high = np.array(found).T
        axis.errorbar(
            n, middle, yerr=[middle - low, high - middle],
            color=colour, marker=marker, ms=5, lw=1.0, capsize=2,
        )  # fmt: skip
    axis.set(xscale="log")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.grid(True, which="major", color="#DDDDDD", lw=0.5)


def _share(coverage: float) -> str:
    return "all actions at random" if coverage == 1.0 else f"{coverage:g} of actions at random"


def _caption(rows: pd.DataFrame, failed: int) -> str:
    lost = f" {failed} fits failed and are not drawn." if failed else ""
    one = rows.iloc[0]
    return (
        f"{one['decision_mdp']}: S = {one['decision_n_states']}, A = {one['decision_n_actions']}, "
        f"H = {one['decision_horizon']}, behaviour {one['decision_behaviour']}; N = "
        f"{one['n_users']}, d1 = {one['d1']}, k = {one['rank']}, nu = {one['nu']:g}, base "
        f"{one['base_norm']:g}; {rows['repetition'].nunique()} seeds.\n"
        "Above: share of users whose set holds their truth (an oracle's holds it by construction). "
        "Below: 95 % sets,\npaired differences of mean value gaps with 95 % intervals; above zero "
        f"pessimism pays.{lost}"
    )
