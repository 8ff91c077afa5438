"""What the checks found, in a table: on the terminal, as Markdown, as JSON, with rows beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from simrlhf.core import checks
from simrlhf.study import provenance
from simrlhf.study.checking import run
from simrlhf.study.checking.form import Check, Finding
from simrlhf.study.checking.run import Outcome

# a verdict as JSON holds it
Record = dict[str, Any]
COLUMNS = ("statement", "kind", "claim", "measured", "verdict", "tightness", "n*", "seconds")
# of the two columns that hold sentences
_WIDTHS = {"claim": 40, "measured": 28}
VERDICTS = "verdicts"
FOLDER = "checks"


def verdict_table(records: Sequence[Record]) -> Table:
    """The table for a terminal."""
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column, overflow="fold", min_width=_WIDTHS.get(column))
    for record in records:
        table.add_row(*cells(record))
    return table


def cells(record: Record) -> list[str]:
    """One line of the table."""
    seconds = f"{record['seconds']:.1f}"
    head = [record["statement"], record["kind"], record["claim"]]
    if record["failure"]:
        return [*head, record["failure"].partition(". ")[0], "NO VERDICT", "", "", seconds]
    tightness = record["tightness"]
    return [
        *head,
        f"{record['quantity']}: {spelt(record['measured'])}",
        record["verdict"],
        "" if tightness is None else f"{float(tightness):.3g}",
        _sample_size(record["n_star"]),
        seconds,
    ]


def spelt(measured: Mapping[str, float | str]) -> str:
    """A number with its interval; alone where nothing is random."""
    # JSON has infinity as a word
    estimate, low, high = (float(measured[part]) for part in ("estimate", "low", "high"))
    return f"{estimate:.4g}" if low == high else f"{estimate:.4g} ({low:.4g} to {high:.4g})"


def _sample_size(n_star: float | str | None) -> str:
    if n_star is None:
        return ""
    return "none" if isinstance(n_star, str) else f"{n_star:.0f}"


def markdown(records: Sequence[Record]) -> str:
    """The table and every remark as Markdown; times are left out, they are not results."""
    columns = COLUMNS[:-1]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in cells(record)[:-1]) + " |"
        for record in records
    ]
    return "\n".join([*lines, "", *(f"- {line}" for line in remarks(records))]) + "\n"


def remarks(records: Sequence[Record]) -> list[str]:
    """What the verdicts leave to be said."""
    return [f"{record['statement']}: {record['remark']}" for record in records if record["remark"]]


def store(outcomes: Sequence[Outcome], folder: Path, *, size: str) -> None:
    """Keep the rows of checks as Parquet, and bring `verdicts.json` and `verdicts.md` up to date.

    Verdicts of other checks stay: the JSON holds the last of each, with its size and the digest of
    the program that found it; the Markdown shows those of the size and program of now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    codes = {name: provenance.check_digest(path) for name, path in run.list_checks().items()}
    known = {record["name"]: record for record in _stored(folder)}
    for outcome in outcomes:
        record = as_record(outcome) | {"size": size, "code": codes[outcome.name]}
        known[outcome.name] = record
        if outcome.finding is not None:
            rows = folder / f"{outcome.name}.parquet"
            outcome.finding.rows.to_parquet(rows.with_suffix(".part"), index=False)
            rows.with_suffix(".part").replace(rows)
    records = [known[name] for name in codes if name in known]
    everything = {"provenance": provenance.provenance(), "checks": records}
    same = [r for r in records if (r["size"], r["code"]) == (size, codes[r["name"]])]
    for name, text in (
        (f"{VERDICTS}.json", json.dumps(everything, indent=1, allow_nan=False) + "\n"),
        (f"{VERDICTS}.md", markdown(same)),
    ):
        part = folder / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)


def _stored(folder: Path) -> list[Record]:
    """Verdicts of earlier runs; none where the file is not one of ours."""
    try:
        found = json.loads((folder / f"{VERDICTS}.json").read_text(encoding="utf-8"))["checks"]
        return [record for record in found if "code" in record]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []


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


def as_record(outcome: Outcome) -> Record:
    """All that a check declared and found, but for its rows, as JSON can hold it."""
    found = {"remark": ""} if outcome.finding is None else _of_finding(outcome.finding)
    return {
        "name": outcome.name,
        **_plain(asdict(outcome.check)),
        "failure": outcome.failure,
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
