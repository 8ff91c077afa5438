"""What a plan says on the terminal: the setting, a table for each target, and how to read it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from rich.table import Table

from simrlhf.estimators import FitStatus
from simrlhf.study import plan_draws, plan_searches
from simrlhf.study.plan_draws import Drawing
from simrlhf.study.plan_formulas import Answer, Limits, Target, local_is_full
from simrlhf.study.store import FAILED
from simrlhf.study.terminal import console
from simrlhf.world import WorldConfig

# longer lines are hard to read
_WIDEST = 100
_LETTERS = {"n_users": "N", "d1": "d1", "d2": "d2", "rank": "k", "nu": "nu"}


def print_plan(
    drawing: Drawing, answers: dict[Target, list[Answer]], limits: Limits, *, delta: float
) -> None:
    """Print everything.

    Args:
        answers: of every target, in the order of the table.
        delta: failure probability of Theorem 4.1.
    """
    width = min(console.width, _WIDEST)
    console.print(_setting(drawing), soft_wrap=False, width=width)
    for target, lines in answers.items():
        without = (
            "the largest distance there is"
            if target.name == "subspace_distance"
            else "the error of Delta = 0, without data"
        )
        console.print(
            f"\nPairs for a {target.name.replace('_', ' ')} of {target.value:g} "
            f"({target.ceiling:.3g} is {without}):\n",
            soft_wrap=False,
            width=width,
        )
        console.print(_table(lines, drawing), soft_wrap=False, width=width)
    notes = Table.grid(padding=(0, 1))
    for sentence in _notes(drawing, answers, limits, delta=delta):
        notes.add_row("*", sentence)
    console.print()
    console.print(notes, soft_wrap=False, width=width)


def _setting(drawing: Drawing) -> str:
    """What every reader asks for, and what is not as by default."""
    config, usual = asdict(drawing.config), asdict(WorldConfig())
    shown = [f"{letter} = {config[name]:g}" for name, letter in _LETTERS.items()]
    shown += [
        f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in config.items()
        if name not in _LETTERS and (value != usual[name] or name in ("condition", "link"))
    ]
    count = drawing.repetitions
    radius = "no norm bound" if drawing.norm_bound is None else f"R = {drawing.norm_bound:g}"
    return (
        f"World: {', '.join(shown)}. Drawn: {count} world{'s' * (count > 1)} from seed "
        f"{drawing.seed}. Fits: {radius}."
    )


def _table(lines: list[Answer], drawing: Drawing) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("kind", "statement", "estimator"):
        table.add_column(heading, no_wrap=True)
    for heading in ("pairs\nper user", "pairs\nin all"):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("remark")
    n_users = drawing.config.n_users
    for line in lines:
        if line.n_pairs is not None:
            counts = (f"{line.n_pairs:,}", f"{n_users * line.n_pairs:,}")
        elif line.status == "NOT_REACHED":
            counts = (f"> {drawing.largest:,}", "")
        else:
            counts = ("none" if line.status == "NONE" else "n/a", "")
        drawn = f"{line.value:.3g} at {line.n_pairs or drawing.largest:,}"
        remark = line.remark or ("" if line.kind in ("limit", "printed") else drawn)
        table.add_row(line.kind, line.statement, line.estimator, *counts, remark)
    return table


def _notes(
    drawing: Drawing, answers: dict[Target, list[Answer]], limits: Limits, *, delta: float
) -> list[str]:
    """How to read the table, and what it says of sharing and of the fits."""
    fitted = bool(drawing.fits)
    said = _limit_notes(drawing.config, limits)
    said.append(
        f"printed: Theorem 4.1 with failure probability {delta:g}. The paper leaves its constant "
        "c_1 open; here it is 1, so compare how it grows and not its level. Other classes than "
        "share_b enter with their size (Proposition 1)."
    )
    levels = (
        " (a priori), what a fit shows along its error (bregman), or this with the bias of the "
        "draw itself (a posteriori; the last two differ with a tail only)"
        if fitted
        else "; its other levels need fits"
    )
    said.append(
        "proved: the inequality S2, with explicit constants, in the median over the worlds. Its "
        f"curvature is the worst that R and the largest feature allow{levels}. a priori needs "
        "n >= d1 d2. vacuous: no better than what is true without data."
    )
    if fitted:
        said.append(
            "measured: the median error of fits, one in each drawn world. Of few worlds it can "
            "fall below the limit by chance."
        )
    said.append(_search_note(drawing, fitted=fitted))
    if any(target.name == "reward_error" for target in answers):
        said += _sharing(limits)
    return said + (_statuses(drawing) if fitted else [])


def _search_note(drawing: Drawing, *, fitted: bool) -> str:
    """What was tried, and how far an answer is checked."""
    largest = drawing.largest
    sizes = ", ".join(
        f"{name} {plan_searches.parameters_per_user(drawing.config, name):.3g}"
        for name in plan_searches.FITTED
    )
    peak = (
        f", and up to twice the parameters per user ({sizes}), where errors of fits can peak"
        if fitted
        else ""
    )
    return (
        f"proved{' and measured' if fitted else ''}: bisection over n = 1 .. {largest:,} in steps "
        "of 10 %. The target is met at the n shown and at each further step up to twice this n"
        f"{peak}, all as far as {largest:,}. --largest sets the end, here at most "
        f"{plan_draws.most_pairs(drawing.config):,}."
    )


def _limit_notes(config: WorldConfig, limits: Limits) -> list[str]:
    said = [
        "limit: the root mean square error that no regular estimator of the class beats, to first "
        "order in 1/n; a fit needs somewhat more. oracle knows the subspace, full has no rank"
        + ("; local is full here, for k >= min(d1, d2)." if local_is_full(config) else "."),
    ]
    if limits.reason:
        said.append(
            f"n/a: {limits.reason}. A limit holds for truths in the interior of the estimator's "
            "class, with norms below R; S2 a priori for norms up to R."
        )
    return said


def _sharing(limits: Limits) -> list[str]:
    shared, full, oracle = (limits.traces.get(name, 0.0) for name in ("share_b", "full", "oracle"))
    if not 0.0 < shared < float("inf"):
        return []
    return [
        f"The value of sharing, by the limits of the reward error: full needs {full / shared:.3g} "
        f"times the pairs of share_b, and share_b {shared / oracle:.3g} times those of oracle."
    ]


def _statuses(drawing: Drawing) -> list[str]:
    rows = [row for made in drawing.fits.values() for row in made]
    counts = Counter(row["status"] for row in rows)
    said = ["Fits: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + "."]
    said += [
        f"{status.sentence}."
        for status in FitStatus
        if counts[status.name] and status != FitStatus.CONVERGED
    ]
    failed = Counter(row["message"] for row in rows if row["status"] == FAILED)
    return said + [f"{count} fits FAILED: {message}" for message, count in failed.items()]
