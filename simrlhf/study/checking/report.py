"""What the checks found, in a table: on the terminal, as Markdown, as JSON, with rows beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from simrlhf.core import checks
from simrlhf.core.statistics import Interval
from simrlhf.study import provenance
from simrlhf.study.checking.form import Check, Finding
from simrlhf.study.checking.run import Outcome

COLUMNS = ("statement", "kind", "claim", "measured", "verdict", "tightness", "n*", "seconds")
# of the two columns that hold sentences
_WIDTHS = {"claim": 40, "measured": 28}
VERDICTS = "verdicts"
FOLDER = "checks"


def verdict_table(outcomes: Sequence[Outcome]) -> Table:
    """The table for a terminal."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column, overflow="fold", min_width=_WIDTHS.get(column))
    for outcome in outcomes:
        table.add_row(*cells(outcome))
    return table


def cells(outcome: Outcome) -> list[str]:
    """One line of the table."""
    check, finding = outcome.check, outcome.finding
    seconds = f"{outcome.seconds:.1f}"
    head = [check.statement, str(check.kind), check.claim]
    if finding is None:
        return [*head, outcome.failure.partition(". ")[0], "NO VERDICT", "", "", seconds]
    return [
        *head,
        f"{finding.quantity}: {spelt(finding.measured)}",
        str(finding.verdict),
        "" if finding.tightness is None else f"{finding.tightness:.3g}",
        _sample_size(finding.n_star),
        seconds,
    ]


def spelt(measured: Interval) -> str:
    """A number with its interval; alone where nothing is random."""
    if measured.low == measured.high:
        return f"{measured.estimate:.4g}"
    return f"{measured.estimate:.4g} ({measured.low:.4g} to {measured.high:.4g})"


def _sample_size(n_star: float | None) -> str:
    if n_star is None:
        return ""
    return "none" if math.isinf(n_star) else f"{n_star:.0f}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table and every remark as Markdown; times are left out, they are not results."""
    columns = COLUMNS[:-1]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells(outcome)[:-1]) + " |"
        for outcome in outcomes
    ]
    return "\n".join(lines) + "\n"


def remarks(outcomes: Sequence[Outcome]) -> list[str]:
    """What the verdicts leave to be said."""
    return [
        f"{outcome.check.statement}: {outcome.finding.remark}"
        for outcome in outcomes
        if outcome.finding is not None
    ]


def store(outcomes: Sequence[Outcome], folder: Path, *, size: str) -> list[Path]:
    """Write `verdicts.json`, `verdicts.md` and the rows of every check as Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for outcome in outcomes:
        if outcome.finding is not None:
            path = folder / f"{outcome.name}.parquet"
            outcome.finding.rows.to_parquet(path, index=False)
            paths.append(path)
    record = {
        "size": size,
        "provenance": provenance.provenance(),
        "checks": [as_record(outcome) for outcome in outcomes],
    }
    document = "\n".join([markdown(outcomes), *(f"- {line}" for line in remarks(outcomes))])
    for name, text in (
        (f"{VERDICTS}.json", json.dumps(record, indent=1, allow_nan=False) + "\n"),
        (f"{VERDICTS}.md", document + "\n"),
    ):
        (folder / name).write_text(text, encoding="utf-8")
        paths.append(folder / name)
    return paths


def read_rows(name: str, results: Path) -> pd.DataFrame:
    """The rows that the last run of a check left under `results`.

    Raises:
        InputError: there are none.
    """
    path = results / FOLDER / f"{name}.parquet"
    checks.require(
        path.is_file(),
        f"no rows of the check in {path}; run `simrlhf check {name.upper()} --out {results}`",
    )
    return pd.read_parquet(path)


def as_record(outcome: Outcome) -> dict[str, Any]:
    """All that a check declared and found, but for its rows, as JSON can hold it."""
    found: dict[str, Any] = {"failure": outcome.failure}
    if outcome.finding is not None:
        found = _of_finding(outcome.finding)
    return {
        "name": outcome.name,
        **_plain(asdict(outcome.check)),
        **found,
        "seconds": round(outcome.seconds, 3),
        "defect": outcome.is_defect,
    }


def declaration(check: Check) -> list[tuple[str, str]]:
    """What a check says before it measures, in the order in which a reader wants it."""
    return [
        ("claim", check.claim),
        ("procedure", check.procedure),
        ("rival", check.rival),
        ("tolerance", check.tolerance),
        ("source", check.source),
    ]


def _of_finding(finding: Finding) -> dict[str, Any]:
    return _plain(
        {
            "verdict": str(finding.verdict),
            "quantity": finding.quantity,
            "measured": finding.measured._asdict(),
            "tightness": finding.tightness,
            "n_star": finding.n_star,
            "remark": finding.remark,
            "constants": dict(finding.constants),
            "judgements": [asdict(judgement) for judgement in finding.judgements],
            "rows": len(finding.rows),
        }
    )


def _plain(value: Any) -> Any:
    """Values that JSON has: infinity and NaN become words."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float | str | None) else str(value)
