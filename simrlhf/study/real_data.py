"""`simrlhf fit`: real comparisons, judged honestly and fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from simrlhf.core import checks, numerics
from simrlhf.data import PairTable, load_shipped, load_table, shipped_datasets
from simrlhf.estimators import ESTIMATORS
from simrlhf.study import honest, honest_report, terminal


@dataclass(frozen=True)
class RealRun:
    """What a run said and wrote.

    Attributes:
        sentences: one for each estimator.
        table: the summary, a row for each estimator.
        files: everything written; the figures among them end in `.png`.
    """

    sentences: list[str]
    table: pd.DataFrame
    files: list[Path]


def open_data(data: str) -> PairTable:
    """A shipped data set by name, or a user's file by path."""
    return load_shipped(data) if data in shipped_datasets() else load_table(data)


def fit_data(
    data: str, settings: honest.HonestSettings, out: Path, *, keep: str | None = None
) -> RealRun:
    """Evaluate on held-out groups, and keep the model of estimator `keep` fitted to all pairs."""
    numerics.configure()
    table = open_data(data)
    with terminal.progress_bar() as bar:
        job = bar.add_task(data, total=None)
        evaluation = honest.evaluate_honestly(
            table,
            settings,
            progress=lambda done, total, said: bar.update(
                job, completed=done, total=total, description=said
            ),
        )
    model, features = honest.fit_chosen(table, evaluation, keep) if keep else (None, None)
    files = honest_report.write(evaluation, out, data=data, model=model, features=features)
    summary = honest_report.summarise(evaluation)
    return RealRun(honest_report.sentences(summary), summary, files)


def run_fit(
    data: str,
    *,
    estimator: str,
    ranks: str,
    ridges: str,
    norm_bound: float | None,
    n_splits: int,
    seed: int,
    out: Path,
) -> None:
    """The command: settings from its texts, the run, and what it says."""
    checks.choice("estimator", estimator, [name for name in ESTIMATORS if name != "oracle"])
    default = honest.HonestSettings()
    settings = honest.HonestSettings(
        estimators=tuple(dict.fromkeys((*default.estimators, estimator))),
        ranks=default.ranks if ranks == "auto" else _numbers("--rank", ranks, int),
        ridges=default.ridges if ridges == "auto" else _numbers("--ridge", ridges, float),
        norm_bound=norm_bound,
        n_splits=n_splits,
        seed=seed,
    )
    run = fit_data(data, settings, out, keep=estimator)
    for sentence in run.sentences:
        terminal.console.print(sentence)
    for path in run.files:
        terminal.console.print(f"wrote: {path}")


def _numbers(option: str, text: str, kind: type) -> tuple:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise checks.InputError(
            f"{option} {text!r} must be auto, a number, or numbers separated by commas"
        ) from None
