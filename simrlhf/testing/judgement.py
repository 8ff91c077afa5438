"""What a judge says: the claim, what was measured, what the rival got, and two ways to fail."""

from __future__ import annotations

from dataclasses import dataclass

from simrlhf.core.statistics import Interval


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One statement held against one body of evidence.

    Attributes:
        statement: its name.
        claim: what it says, in words and numbers.
        measured: the number by which the claim was judged, between the ends of its interval (the
            same number three times where nothing is random).
        holds: whether the evidence bears the claim out.
        rival: what the rival says, in words and numbers.
        rival_measured: the number by which the same procedure judged the rival.
        rival_rejected: whether the evidence rejects the rival.
        tightness: largest measured value over its bound, for an inequality; else `None`.
        evidence: named counts and side results: how much there was, and what else it shows.
        summary: all of it in one sentence.
    """

    statement: str
    claim: str
    measured: Interval
    holds: bool
    rival: str
    rival_measured: Interval
    rival_rejected: bool
    tightness: float | None
    evidence: dict[str, float]
    summary: str


class _Failure(AssertionError):
    """A judgement that did not end well; `judgement` holds the numbers."""

    headline = ""
    advice = ""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement)  # as the only argument, so that it survives pickling
        self.judgement = judgement

    def __str__(self) -> str:
        return f"{self.headline} {self.judgement.summary} {self.advice}"


class ClaimRejected(_Failure):
    """The evidence speaks against the claim, whatever became of the rival."""

    headline = "Claim rejected."
    advice = (
        "Either the statement is wrong here, or one of its conditions does not hold, such as the "
        "regime from which it does."
    )


class ControlAccepted(_Failure):
    """The claim holds, but the evidence does not reject the rival: it has no power."""

    headline = "Control accepted."
    advice = (
        "Evidence that lets a wrong statement pass says nothing for a right one: take more of it, "
        "tighter instances, or a rival that differs here."
    )


def conclude(
    *,
    statement: str,
    claim: str,
    measured: Interval,
    finding: str,
    holds: bool,
    rival: str,
    rival_measured: Interval,
    rival_finding: str,
    rival_rejected: bool,
    evidence: dict[str, float],
    tightness: float | None = None,
) -> Judgement:
    """Return the judgement, or raise it as the failure that it is.

    Args:
        finding, rival_finding: what was seen of claim and rival, as clauses of the summary.

    Raises:
        ClaimRejected: `holds` is false.
        ControlAccepted: `holds` is true and `rival_rejected` false.
    """
    __tracebackhide__ = True
    judgement = Judgement(
        statement=statement,
        claim=claim,
        measured=measured,
        holds=holds,
        rival=rival,
        rival_measured=rival_measured,
        rival_rejected=rival_rejected,
        tightness=tightness,
        evidence={name: float(value) for name, value in evidence.items()},
        summary=(
            f"{statement}: {finding}, so the claim ({claim}) "
            f"{'holds' if holds else 'is rejected'}; {rival_finding}, so the rival ({rival}) is "
            f"{'rejected' if rival_rejected else 'not rejected'}."
        ),
    )
    if not holds:
        raise ClaimRejected(judgement)
    if not rival_rejected:
        raise ControlAccepted(judgement)
    return judgement
