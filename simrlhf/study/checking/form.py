"""The form of a check: what a statement claims, how that is judged, and what was found.

A file of `theory_checks/` declares `CHECK` and two functions. `measure(size)` draws worlds, fits
and measures; it never calls `simrlhf.theory`. `judge(measured)` evaluates the statement on what was
measured and returns a `Finding`. Kept apart, the prediction cannot see the measurement, and one
measurement can be judged under many wrong theories (`mutation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pandas as pd

from simrlhf.core import checks
from simrlhf.core.statistics import Interval
from simrlhf.testing import ClaimRejected, Judgement

# a bound that measurements never fill by more than half is called loose
TIGHT = 0.5
SIZES = ("tiny", "smoke", "paper")


class Kind(StrEnum):
    """What kind of statement it is (theory.md)."""

    DEFINITION = "definition"
    PRINTED = "printed"
    SOUND = "sound"
    LIMIT = "limit"
    AUDIT = "audit"

    @property
    def must_hold(self) -> bool:
        """Whether a refutation is a defect of this package rather than a finding."""
        return self in (Kind.DEFINITION, Kind.SOUND, Kind.LIMIT)


class Verdict(StrEnum):
    """What became of the claim."""

    HOLDS = "HOLDS"
    LOOSE = "HOLDS BUT LOOSE"
    REFUTED = "REFUTED"
    VACUOUS = "VACUOUS"
    NOT_APPLICABLE = "NOT APPLICABLE"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One statement, declared before anything is measured.

    Attributes:
        statement: its name, as `Theorem 4.1`, `S2`, `A3`.
        title: what it is about, in a few words.
        kind: of the statement.
        claim: what is claimed (of an audit: what is printed).
        procedure: what is measured, and which judge decides.
        rival: the wrong formula that the same procedure must reject.
        tolerance: the rule of acceptance, with its reason.
        source: where it is stated.
    """

    statement: str
    title: str
    kind: Kind
    claim: str
    procedure: str
    rival: str
    tolerance: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the evidence says.

    Attributes:
        verdict: of the claim.
        quantity: what `measured` is a number of.
        measured: the number, with its interval (thrice the same where nothing is random).
        remark: one sentence or two: by how much, in which variable, in which regime.
        judgements: what the judges said, each with its rival.
        tightness: largest measured value over its bound; `None` where there is no bound.
        n_star: smallest number of pairs per user at which the bound says something in the cell that
            the remark or the procedure names; infinite where no feasible number does; `None` where
            the question does not arise.
        rows: the evidence, tidy.
        constants: of a printed bound, its smallest covering constant and drifts (`calibrate`).
    """

    verdict: Verdict
    quantity: str
    measured: Interval
    remark: str
    judgements: Sequence[Judgement]
    rows: pd.DataFrame
    tightness: float | None = None
    n_star: float | None = None
    constants: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checks.require(len(self.judgements) > 0, "a finding needs a judgement with its rival")
        checks.require(len(self.rows) > 0, "a finding needs rows of evidence")


def attempt(judge: Callable[..., Judgement], *arguments: Any, **settings: Any) -> Judgement:
    """Ask a judge, and take a rejected claim as an answer.

    Raises:
        ControlAccepted: claim and rival both pass, so that the evidence has no power.
    """
    try:
        return judge(*arguments, **settings)
    except ClaimRejected as rejected:
        return rejected.judgement


class Inconclusive(AssertionError):
    """A control, an identity or a proved statement inside a check failed: no verdict follows."""


def require_sound(judgements: Sequence[Judgement]) -> None:
    """Refuse to conclude on a printed claim from evidence that is not in order.

    Args:
        judgements: all that must hold whatever becomes of the printed claim: identities, proved
            statements, control arms, and the right statement in an audit whose rival is the claim.

    Raises:
        Inconclusive: one of them does not hold.
    """
    failed = [judgement.summary for judgement in judgements if not judgement.holds]
    if failed:
        raise Inconclusive(f"what must hold beside the claim does not: {' '.join(failed)}")


def proved(judgements: Sequence[Judgement], *, informative: bool = True, **found: Any) -> Finding:
    """The finding of a statement that is proved, by the one rule for all of them.

    REFUTED if a judge rejects it; VACUOUS if no cell is informative; HOLDS BUT LOOSE if there is a
    bound and no measurement fills half of it; HOLDS otherwise.
    """
    tightness = found.get("tightness")
    if not all(judgement.holds for judgement in judgements):
        verdict = Verdict.REFUTED
    elif not informative:
        verdict = Verdict.VACUOUS
    elif tightness is not None and tightness < TIGHT:
        verdict = Verdict.LOOSE
    else:
        verdict = Verdict.HOLDS
    return Finding(verdict=verdict, judgements=judgements, **found)


def exactly(value: float) -> Interval:
    """A number in which nothing is random."""
    return Interval(value, value, value)
