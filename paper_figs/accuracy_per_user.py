"""Held-out accuracy of every user under every estimator, and the difference to `global`.

Reads `per_user.parquet`, `summary.csv` and `settings.json` of an honest evaluation (`simrlhf fit`);
computes nothing but means and intervals of what is there.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.stats
from matplotlib.axes import Axes

from simrlhf.core import checks
from simrlhf.study import figures

NAME = "accuracy_per_user"
REFERENCE = "global"
# colour-blind safe (Okabe and Ito), the same as in the other figures: colour, marker, size
STYLES = {
    "share_b": ("#D55E00", "o", 5.0),
    "global": ("#009E73", "v", 6.0),
    "full": ("#0072B2", "s", 4.5),
    "local": ("#56B4E9", "D", 4.5),
}
# of an estimator that was asked for beside those
OTHER = ("#CC79A7", "P", 5.5)
CONFIDENCE = 0.95
# above this many users the names no longer fit under the axis
MOST_NAMES = 60
# of the caption
_LETTERS_PER_INCH = 13


def draw(results: Path, out: Path) -> list[Path]:
    """Write `accuracy_per_user.png` and `.pdf` into `out`.

    Args:
        results: folder of an honest evaluation.
    """
    per_user, summary, settings = _read(Path(results))
    fitted = summary.loc[summary["same_as"] == "", "estimator"].tolist()
    names = [name for name in STYLES if name in fitted]
    names += [name for name in fitted if name not in STYLES]
    means = per_user.groupby(["estimator", "user_id"])["accuracy"].mean().unstack("estimator")
    means = means.sort_values(REFERENCE)
    width = float(np.clip(0.21 * len(means) + 3.0, 7.0, 16.0))
    figure, axes = plt.subplots(
        2, 2, figsize=(width, 7.0), layout="constrained",
        width_ratios=[max(len(means), 10), 5], height_ratios=[1.25, 1],
    )  # fmt: skip
    _accuracies(axes[0, 0], means, names)
    _overall(axes[0, 1], means, names)
    _differences(axes[1, 0], per_user, means, names)
    _overall_differences(axes[1, 1], summary, names)
    _name_users(axes, means, n_estimators=len(names))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    caption = _caption(per_user, summary, settings)
    figure.suptitle(textwrap.fill(caption, int(_LETTERS_PER_INCH * width)), fontsize=9)
    return figures.save(figure, Path(out), NAME)


def _read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    needed = [folder / name for name in ("per_user.parquet", "summary.csv", "settings.json")]
    missing = [path.name for path in needed if not path.is_file()]
    checks.require(
        not missing,
        f"{folder} holds no {missing[0] if missing else ''}; run: simrlhf fit DATA",
    )
    try:
        per_user, summary = pd.read_parquet(needed[0]), pd.read_csv(needed[1])
        settings = json.loads(needed[2].read_text(encoding="utf-8"))
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise checks.InputError(f"{folder} is damaged ({reason}); run simrlhf fit again") from None
    checks.require(
        bool(per_user["accuracy"].notna().any()),
        f"{folder} holds a regression, which has no accuracy to draw; see its summary.md",
    )
    # an empty cell comes back as NaN
    summary["same_as"] = ["" if pd.isna(name) else name for name in summary["same_as"]]
    return per_user, summary, settings


def _accuracies(axis: Axes, means: pd.DataFrame, names: list[str]) -> None:
    place = np.arange(len(means))
    low, high = means[names].min(axis=1), means[names].max(axis=1)
    axis.vlines(place, 100 * low, 100 * high, color="#CCCCCC", lw=1, zorder=1)
    for name in names:
        colour, marker, size = STYLES.get(name, OTHER)
        axis.plot(
            place, 100 * means[name], marker, ms=size, color=colour, label=name, zorder=_level(name)
        )
    axis.axhline(50, color="#888888", lw=0.8, ls=":", zorder=0)
    axis.set_ylabel("held-out choices right, %")
    axis.grid(True, axis="y", color="#E5E5E5", lw=0.6)


def _overall(axis: Axes, means: pd.DataFrame, names: list[str]) -> None:
    for place, name in enumerate(names):
        colour, marker, size = STYLES.get(name, OTHER)
        mean = 100 * means[name].mean()
        axis.plot(place, mean, marker, ms=size + 2, color=colour)
        _say(axis, place, mean, f"{mean:.1f}")
    axis.set_title("mean over users", fontsize=9)
    axis.margins(y=0.35)
    axis.grid(True, axis="y", color="#E5E5E5", lw=0.6)


def _differences(axis: Axes, per_user: pd.DataFrame, means: pd.DataFrame, names: list[str]) -> None:
    """Difference to the reference, with its standard deviation over the splits."""
    rivals = [name for name in names if name != REFERENCE]
    values = per_user.pivot(index=["user_id", "split"], columns="estimator", values="accuracy")
    for number, name in enumerate(rivals):
        gain = (values[name] - values[REFERENCE]).groupby(level="user_id")
        middle, spread = (100 * part.reindex(means.index) for part in (gain.mean(), gain.std()))
        shift = 0.24 * (number - (len(rivals) - 1) / 2)
        colour, marker, size = STYLES.get(name, OTHER)
        axis.errorbar(
            np.arange(len(means)) + shift, middle, yerr=spread.fillna(0.0), fmt=marker, ms=size,
            color=colour, elinewidth=0.9, capsize=0, zorder=_level(name),
        )  # fmt: skip
    axis.axhline(0, color=STYLES[REFERENCE][0], lw=1.4, zorder=1)
    axis.set_ylabel(f"difference to {REFERENCE}, points")
    axis.grid(True, axis="y", color="#E5E5E5", lw=0.6)


def _overall_differences(axis: Axes, summary: pd.DataFrame, names: list[str]) -> None:
    """Mean difference with its confidence interval over users."""
    rows = summary.set_index("estimator")
    for place, name in enumerate(names):
        if name == REFERENCE:
            continue
        colour, marker, size = STYLES.get(name, OTHER)
        row = rows.loc[name]
        middle = 100 * float(row["accuracy_difference"])
        quantile = scipy.stats.t.ppf(0.5 + CONFIDENCE / 2, int(row["n_users"]) - 1)
        half = 100 * float(row["accuracy_difference_se"]) * float(quantile)
        axis.errorbar(place, middle, yerr=half, fmt=marker, ms=size + 2, color=colour, capsize=4)
        _say(axis, place, middle + half, f"{middle:+.1f}")
    axis.axhline(0, color=STYLES[REFERENCE][0], lw=1.4, zorder=1)
    axis.set_title(f"mean, {CONFIDENCE:.0%} interval", fontsize=9)
    axis.grid(True, axis="y", color="#E5E5E5", lw=0.6)
    axis.margins(y=0.2)


def _say(axis: Axes, place: float, height: float, words: str) -> None:
    axis.annotate(
        words, (place, height), (0, 7), textcoords="offset points", ha="center", fontsize=9
    )


def _name_users(axes: np.ndarray, means: pd.DataFrame, *, n_estimators: int) -> None:
    """User names under the lower panel, none under the others."""
    for axis in axes[:, 0]:
        axis.set_xlim(-0.8, len(means) - 0.2)
        axis.set_xticks([])
    for axis in axes[:, 1]:
        axis.set_xticks([])
        axis.yaxis.tick_right()
        axis.set_xlim(-0.7, n_estimators - 0.3)
    if len(means) <= MOST_NAMES:
        axes[1, 0].set_xticks(np.arange(len(means)), means.index, rotation=90, fontsize=8)
    axes[1, 0].set_xlabel(f"user, in rising order of accuracy under {REFERENCE}")


def _level(name: str) -> int:
    known = list(STYLES)
    return 9 - (known.index(name) if name in known else len(known))


def _caption(per_user: pd.DataFrame, summary: pd.DataFrame, settings: dict) -> str:
    own = per_user[per_user["estimator"] == REFERENCE]
    same = summary.loc[summary["same_as"] != "", ["estimator", "same_as"]].to_numpy().tolist()
    also = "".join(f" {name} is {twin} here." for name, twin in same)
    return (
        f"{settings['data']}: {own['user_id'].nunique()} users, {settings['n_splits']} random "
        f"splits (seed {settings['seed']}), {own.groupby('split')['n_test'].sum().mean():,.0f} "
        f"test pairs per split; accuracy averaged over splits.{also} "
        f"Lower left: bars of one standard deviation over splits. Right: means over users, on "
        f"scales of their own; the intervals are over users, paired against {REFERENCE}."
    )
