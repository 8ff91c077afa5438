"""Talking to the terminal: results on stdout, progress and questions on stderr."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from simrlhf.core import checks

console = Console(highlight=False, soft_wrap=True, markup=False)


def wide_console(least: int) -> Console:
    """The console for a table that needs a width: a narrower terminal wraps its lines."""
    return Console(
        highlight=False, markup=False, width=max(console.width, least), file=console.file
    )


class _Note(ProgressColumn):
    """What a job says of itself, as the failures so far; nothing by default."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("note", ""))


def progress_bar() -> Progress:
    """Bar with units done, time passed, time left, and a job's `note`."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # a study's name may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        _Note(),
        console=Console(stderr=True),
    )


def confirm(question: str, *, remedy: str) -> None:
    """Ask on a terminal; refuse where nobody can answer.

    Raises:
        InputError: the answer is no, or there is no terminal.
    """
    checks.require(sys.stdin.isatty(), f"{question}; {remedy}")
    print(f"{question}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    checks.require(sys.stdin.readline().strip().lower() in ("y", "yes"), "nothing was computed")
