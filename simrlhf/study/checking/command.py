"""simrlhf check: run checks, print the table of verdicts, keep the evidence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from simrlhf.core import checks, numerics
from simrlhf.study import folders
from simrlhf.study.checking import mutation, report
from simrlhf.study.checking.run import Outcome, chosen, list_checks, load_check, run_side_by_side
from simrlhf.study.terminal import console, progress_bar, wide_console

# remarks in longer lines are hard to read
_WIDEST = 110
# narrower, the table would be all folds
_TABLE = 136


def print_checks() -> None:
    """Every check with its title."""
    for name in list_checks():
        check = load_check(name).CHECK
        console.print(f"{name:16} {check.statement}: {check.title}")


def explain(names: Sequence[str]) -> None:
    """What checks declare before they measure."""
    for name in chosen(names):
        check = load_check(name).CHECK
        console.print(f"{check.statement} ({check.kind}): {check.title}")
        for label, text in report.declaration(check):
            console.print(f"  {label:10} {text}")


def mutate(names: Sequence[str], *, size: str, out: Path) -> bool:
    """Spoil every formula of the theory; returns whether the checks noticed all that matter.

    Of checks that are named, only the functions that they call are theirs.
    """
    wanted = chosen(names)
    folder = out / report.FOLDER
    folders.make_writable(folder)
    numerics.compile_quickly()
    numerics.configure()
    with progress_bar() as bar:
        total = sum(1 for module in mutation.formula_modules() for _ in mutation.mutations(module))
        job = bar.add_task("mutations", total=total)
        fates = mutation.run_mutations(wanted, size=size, report=lambda _: bar.advance(job))
    table = mutation.as_table(fates)
    if names:  # what the checks named do not call is not theirs to notice
        table = table[table["tried"] > 0]
    table.to_csv(folder / "mutations.csv", index=False)
    console.print(mutation.by_module(table).to_string())
    unexplained = table[(table["caught_by"] == "") & (table["equivalent"] == "")]
    for _, row in unexplained.iterrows():
        console.print(f"NOT CAUGHT {row['name']} (line {row['line']}, {row['kind']})")
    console.print(f"\nEvery mutation with the check that caught it: {folder / 'mutations.csv'}")
    return unexplained.empty


def check(names: Sequence[str], *, size: str, out: Path, workers: int | None = None) -> bool:
    """Run checks; returns whether all is well.

    It is not where a sound statement, a definition or a limit is refuted, where a rival was not
    rejected, and where a check could not be judged. A refuted or loose printed claim is a result.
    """
    wanted = chosen(names)
    workers = os.cpu_count() or 1 if workers is None else workers
    checks.integer("--workers", workers, low=1, high=1024)
    folder = out / report.FOLDER
    folders.make_writable(folder)
    if size != "paper":
        numerics.compile_quickly()
    numerics.configure()
    outcomes: list[Outcome] = []
    try:
        with progress_bar() as bar:
            job = bar.add_task(f"checks ({size})", total=len(wanted))
            for outcome in run_side_by_side(wanted, size, workers=workers):
                outcomes.append(outcome)
                report.store([outcome], folder, size=size)
                bar.advance(job)
    except KeyboardInterrupt:
        done = {outcome.name for outcome in outcomes}
        left = " ".join(name for name in wanted if name not in done)
        raise KeyboardInterrupt(
            f"{len(outcomes)} verdicts are in {folder}; to go on: simrlhf check {left}"
        ) from None
    outcomes.sort(key=lambda outcome: wanted.index(outcome.name))
    records = [report.as_record(outcome) for outcome in outcomes]
    wide_console(_TABLE).print(report.verdict_table(records), soft_wrap=False)
    console.print()
    width = min(console.width, _WIDEST)
    for line in report.remarks(records):
        console.print(f"* {line}", soft_wrap=False, width=width)
    console.print(f"\nVerdicts and evidence are in {folder}")
    defects = [outcome for outcome in outcomes if outcome.is_defect]
    for outcome in defects:
        finding = outcome.finding
        said = outcome.failure or (finding.remark if finding else "")
        console.print(f"FAILED {outcome.check.statement}: {said}")
    return not defects
