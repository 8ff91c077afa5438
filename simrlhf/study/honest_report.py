"""What an honest evaluation says: the summary table, sentences, and the files of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from simrlhf.core import checks, statistics
from simrlhf.data import text
from simrlhf.estimators import FitResult
from simrlhf.study import figures, folders
from simrlhf.study.honest import HonestEvaluation
from simrlhf.study.honest_settings import REFERENCE

FIGURE = "accuracy_per_user"
_METRICS = ("accuracy", "nll")
_HOW_TO_READ = (
    f"Every user is averaged over the splits first. Differences are to `{REFERENCE}`, paired by "
    "user, plus or minus one standard error over users, which takes the topics (groups) as given. "
    "The last columns show the standard deviation over splits of the mean over users; splits share "
    "groups, so it is not a standard error."
)


def summarise(evaluation: HonestEvaluation) -> pd.DataFrame:
    """One row for each estimator: means over users, paired differences, spread over splits.

    For `accuracy` and `nll` (negative log-likelihood per pair): the mean over users, the mean
    `_difference` to `global` with its standard error `_difference_se` over users (each averaged
    over splits first), and the standard deviation over splits of both means (`_split_sd`,
    `_difference_split_sd`). Accuracy is NaN for regression.
    """
    grids = {metric: _grids(evaluation.per_user, metric) for metric in _METRICS}
    rows = []
    for name in dict.fromkeys(evaluation.per_user["estimator"].tolist()):
        n_users, n_splits = grids["nll"][name].shape
        row = {"estimator": name, "same_as": evaluation.same_as.get(name, "")}
        row |= {"n_users": n_users, "n_splits": n_splits}
        for metric in _METRICS:
            row |= _metric_columns(grids[metric], name, metric)
        rows.append(row)
    return pd.DataFrame(rows)


def _grids(per_user: pd.DataFrame, metric: str) -> dict[str, np.ndarray]:
    """`(users, splits)` of a metric for each estimator; NaN where a user was not scored."""
    users, user = np.unique(per_user["user_id"].to_numpy(str), return_inverse=True)
    split = per_user["split"].to_numpy(int)
    names, estimator = np.unique(per_user["estimator"].to_numpy(str), return_inverse=True)
    cube = np.full((names.size, users.size, split.max() + 1), np.nan)
    cube[estimator, user, split] = per_user[metric].to_numpy(float)
    return dict(zip(names.tolist(), cube, strict=True))


def _metric_columns(grids: dict[str, np.ndarray], name: str, metric: str) -> dict[str, float]:
    columns = (
        *(metric, f"{metric}_difference", f"{metric}_difference_se"),
        *(f"{metric}_split_sd", f"{metric}_difference_split_sd"),
    )
    own, gain = grids[name], grids[name] - grids[REFERENCE]
    if np.isnan(own).all():  # accuracy of regression
        return dict.fromkeys(columns, np.nan)
    difference = statistics.mean_and_error(np.nanmean(gain, axis=1))
    spread = [
        float(np.std(np.nanmean(grid, axis=0), ddof=1)) if grid.shape[1] > 1 else np.nan
        for grid in (own, gain)
    ]
    values = (float(np.nanmean(own, axis=1).mean()), *difference, *spread)
    return dict(zip(columns, values, strict=True))


def sentences(summary: pd.DataFrame) -> list[str]:
    """What the summary says, one sentence for each estimator; the notes name those that repeat."""
    return [_sentence(row) for row in summary.to_dict("records") if not row["same_as"]]


def _sentence(row: dict) -> str:
    has_accuracy = np.isfinite(row["accuracy"])
    parts = [f"{row['accuracy']:.1%} of held-out choices right"] if has_accuracy else []
    said = f"{row['estimator']}: " + ", ".join([*parts, f"log-loss {row['nll']:.4f}"])
    if row["estimator"] == REFERENCE:
        return said + "."
    gains = [f"{_points(row)} points of accuracy"] if has_accuracy else []
    gains.append(f"{row['nll_difference']:+.4f} +- {row['nll_difference_se']:.4f} of log-loss")
    return f"{said}; against {REFERENCE} {' and '.join(gains)}."


def _points(row: dict) -> str:
    return f"{100 * row['accuracy_difference']:+.2f} +- {100 * row['accuracy_difference_se']:.2f}"


def write(
    evaluation: HonestEvaluation,
    out: str | Path,
    *,
    data: str,
    model: FitResult | None = None,
    features: text.TextFeatures | np.ndarray | None = None,
) -> list[Path]:
    """Write the run into a folder: rows, tables, summary, the model and the figure.

    Args:
        data: name of the data, for the title.
        model, features: of `fit_chosen`; saved as `model.npz` and `features.npz`.

    Returns:
        `per_user.parquet`, `choices.csv`, `splits.csv`, `summary.csv`, `settings.json`,
        `summary.md`, the model and its features, and the figure (none for regression).
    """
    folder = open_folder(out, data=data)
    summary = summarise(evaluation)
    evaluation.per_user.to_parquet(folder / "per_user.parquet", index=False)
    evaluation.choices.to_csv(folder / "choices.csv", index=False)
    evaluation.splits.to_csv(folder / "splits.csv", index=False)
    summary.to_csv(folder / "summary.csv", index=False)
    record = {"data": data, **asdict(evaluation.settings), "notes": evaluation.notes}
    (folder / "settings.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "summary.md").write_text(markdown(evaluation, summary, data=data), encoding="utf-8")
    tables = ("per_user.parquet", "choices.csv", "splits.csv", "summary.csv")
    written = [folder / name for name in (*tables, "settings.json", "summary.md")]
    if model is not None:
        written.append(model.save(folder / "model.npz"))
    if isinstance(features, text.TextFeatures):
        written.append(text.save(features, folder / "features.npz"))
    elif features is not None:
        np.savez_compressed(folder / "features.npz", scales=features)
        written.append(folder / "features.npz")
    if summary["accuracy"].isna().all():  # regression has no accuracy to draw
        return written
    return [*written, *figures.draw_figure(FIGURE, folder, folder)]


def open_folder(out: str | Path, *, data: str) -> Path:
    """Make the folder of a run, before the work; one that holds a run on other data is refused."""
    folder = Path(out)
    folders.make_writable(folder)
    before = folder / "settings.json"
    if before.is_file():
        try:
            other = json.loads(before.read_text(encoding="utf-8")).get("data")
        except (ValueError, AttributeError):
            other = data  # damaged by an interrupted run: this one writes it anew
        checks.require(
            other == data, f"{folder} holds a run on {other}, not on {data}; give another --out"
        )
    return folder


def is_run(folder: Path) -> bool:
    """Whether a folder holds what `write` wrote."""
    return (folder / "per_user.parquet").is_file() and (folder / "settings.json").is_file()


def markdown(evaluation: HonestEvaluation, summary: pd.DataFrame, *, data: str) -> str:
    """The summary as a page: sentences, table, choices, notes."""
    settings = evaluation.settings
    lines = [
        f"# Held-out choices of real people: {data}",
        "",
        f"{summary['n_users'].max()} users, {settings.n_splits} random splits, "
        f"seed {settings.seed}.",
        "",
        *(f"* {sentence}" for sentence in sentences(summary)),
        "",
        *_table(summary),
        "",
        _HOW_TO_READ,
        "",
        "Chosen on the validation groups (rank, ridge; one for each split):",
        "",
        *(f"* {name}: {_listed(evaluation.choices, name)}" for name in summary["estimator"]),
        "",
        *(f"* {note}" for note in evaluation.notes),
    ]
    return "\n".join(lines) + "\n"


def _listed(choices: pd.DataFrame, name: str) -> str:
    return ", ".join(
        f"({'-' if pd.isna(row['rank']) else row['rank']}, {row['ridge']:g})"
        for row in choices.to_dict("records")
        if row["chosen"] and row["estimator"] == name
    )


def _table(summary: pd.DataFrame) -> list[str]:
    heads = (
        *("estimator", "accuracy, %", "difference, points", "log-loss", "difference"),
        *("sd over splits: accuracy", "its difference", "log-loss", "its difference"),
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in summary.to_dict("records"):
        cells = (
            row["estimator"] + (f" (= {row['same_as']})" if row["same_as"] else ""),
            f"{100 * row['accuracy']:.2f}",
            _points(row),
            f"{row['nll']:.4f}",
            f"{row['nll_difference']:+.4f} +- {row['nll_difference_se']:.4f}",
            f"{100 * row['accuracy_split_sd']:.2f}",
            f"{100 * row['accuracy_difference_split_sd']:.2f}",
            f"{row['nll_split_sd']:.4f}",
            f"{row['nll_difference_split_sd']:.4f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines
