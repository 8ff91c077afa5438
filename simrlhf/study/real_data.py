"""`simrlhf fit`: real comparisons, judged honestly and fitted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from simrlhf.core import checks, links, numerics
from simrlhf.data import PairTable, load_shipped, load_table, shipped_datasets
from simrlhf.estimators import ESTIMATORS
from simrlhf.study import honest, honest_report, terminal
from simrlhf.study.honest_settings import HonestSettings, largest_rank


@dataclass(frozen=True)
class RealRun:
    """What a run said and wrote.

    Attributes:
        sentences: one for each estimator, then what belongs under the numbers.
        table: the summary, a row for each estimator.
        files: everything written; the figures among them end in `.png`.
    """

    sentences: list[str]
    table: pd.DataFrame
    files: list[Path]


def open_data(data: str, *, link: str = "logistic") -> PairTable:
    """A shipped data set by name, or a user's file by path.

    Raises:
        InputError: a name that is neither, a link that is unknown, or not for preferences where a
            shipped data set holds them, or a file that cannot be read.
    """
    path, known = Path(data), shipped_datasets()
    if data not in known and (path.suffix or path.exists()):
        return load_table(data, link=link)
    table = load_shipped(checks.choice("data set", data, known, remedy="or give a file's path"))
    checks.require(
        links.get_link(link).is_preference,
        f"{data} holds preferences, so its link is {table.link}, not {link}",
    )
    return replace(table, link=link)


def evaluate_data(
    table: PairTable, name: str, settings: HonestSettings, out: Path, *, keep: str | None = None
) -> RealRun:
    """Evaluate on held-out groups; keep the model of estimator `keep`, fitted to all pairs.

    Writes tables, figure and model into `out`.
    """
    numerics.configure()
    honest_report.open_folder(out, data=name)
    with terminal.progress_bar() as bar:
        job = bar.add_task(name, total=None)
        evaluation = honest.evaluate_honestly(
            table,
            settings,
            progress=lambda done, total, said: bar.update(
                job, completed=done, total=total, description=said
            ),
        )
        bar.update(job, completed=bar.tasks[0].total, description=name)
    model, features = honest.fit_chosen(table, evaluation, keep) if keep else (None, None)
    files = honest_report.write(evaluation, out, data=name, model=model, features=features)
    summary = honest_report.summarise(evaluation)
    sentences = [*honest_report.sentences(summary), *evaluation.notes]
    return RealRun(sentences, summary, files)


def run_fit(
    data: str, *, estimator: str, ranks: str, ridges: str, out: Path, **options: Any
) -> None:
    """The command: settings from its texts, the run, and what it says.

    Args:
        ranks, ridges: `auto`, a number, or numbers separated by commas.
        out: folder of all results.
        options: `link`, and fields of `HonestSettings`.
    """
    checks.choice("estimator", estimator, [name for name in ESTIMATORS if name != "oracle"])
    default = HonestSettings()
    link = options.pop("link")
    settings = HonestSettings(
        estimators=tuple(dict.fromkeys((*default.estimators, estimator))),
        ranks=default.ranks if ranks == "auto" else _numbers("--rank", ranks, int),
        ridges=default.ridges if ridges == "auto" else _numbers("--ridge", ridges, float),
        **options,
    )
    table = open_data(data, link=link)
    if ranks != "auto":
        limit = largest_rank(table, settings)
        for rank in settings.ranks:
            checks.integer(
                "rank", rank, low=1, high=limit, remedy="the limit is min(d1, N d2) of these data"
            )
    # the whole file name, ending included: own.csv and own.jsonl are different data
    name = data if data in shipped_datasets() else Path(data).name
    run = evaluate_data(table, name, settings, out / name, keep=estimator)
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
