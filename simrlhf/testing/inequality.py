"""A bound against what was measured: in every row, or with probability 1 - delta."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks, statistics
from simrlhf.core.statistics import Interval
from simrlhf.testing import evidence
from simrlhf.testing.judgement import Judgement, conclude


def never_violated(
    measured: ArrayLike,
    bound: ArrayLike,
    *,
    rival: ArrayLike | None = None,
    tight: tuple[ArrayLike, ArrayLike] | None = None,
    delta: float | None = None,
    ceiling: ArrayLike | None = None,
    slack: float = 1e-9,
    confidence: float = evidence.CONFIDENCE,
    statement: str = "the inequality",
) -> Judgement:
    """Judge whether `measured <= bound`, where the rival's bound is broken.

    Without `delta` the claim holds if no row has `measured > (1 + slack) bound`, and the rival is
    rejected if at least one row exceeds its bound so. With `delta`, the failure probability that
    the statement allows, either is rejected when the Clopper-Pearson interval of its violation
    rate lies above `delta`.

    A row whose bound is infinite, or at its ceiling, cannot be violated and is no evidence: it is
    counted and left out. With `delta` this asks that a row's bound is fixed before chance has its
    say (for instance given the design): only then does `delta` hold among the rows that are left.

    Against a loose bound, random rows reject no rival. Then hand over instances at which the bound
    is nearly attained as `tight`: the rival is judged there, and the claim there and on the rows.

    Args:
        measured: one number for each row; any sign.
        bound: one for each row, or one number; not negative, infinite where vacuous. Add what the
            rounding of values near zero needs, such as `bound + 1e-14`.
        rival: a wrong bound for the same rows or, with `tight`, for those instances.
        tight: `(measured, bound)` of the tight instances.
        delta: failure probability; `None` for a statement without one.
        ceiling: what `measured` never exceeds anyway, for each row or one number.
        slack: relative room for rounding; 1e-9 is more than sums over a million float64 terms
            lose, and far less than any mistake in a formula makes.
        confidence: of the interval; a true claim is accepted at least that often, provided that
            the rows are independent (one per repetition: samples nested in n fail together).

    Returns:
        `Judgement` by the largest `measured / bound` of the rows or, with `delta`, by their
        violation rate; `tightness` is the largest ratio in both cases; `evidence` holds `rows`,
        `informative`, `violations`, `median` (of the ratio), and `rival_informative`,
        `rival_violations`, `rival_median`; with `tight` also `tight_informative` and so on.

    Raises:
        ClaimRejected, ControlAccepted: as said above.
        InputError: other shapes or indices, NaN, a negative bound, no informative row, a measured
            value above its ceiling, too few rows for `delta`, or a rival that is nowhere below the
            bound.
    """
    __tracebackhide__ = True
    rival = evidence.rival_given(rival)
    rule = _rule(slack, delta, confidence)
    evidence.require_aligned(measured=measured, bound=bound, ceiling=ceiling)
    of_rival = (measured, bound) if tight is None else _pair(tight)
    evidence.require_aligned(measured=of_rival[0], bound=of_rival[1], rival=rival)
    rows = _informative("", measured, bound, ceiling)
    edge = rows if tight is None else _informative("tight ", *of_rival, None)
    wrong = _bound("rival", rival, edge.mask.shape)[edge.mask]
    checks.require(
        bool((wrong < edge.bound).any()),
        "the rival is nowhere below the bound, so it holds wherever the bound does; take a smaller "
        "one",
    )
    for name, some in (("", rows), ("tight ", edge)):
        rule.require_power(f"{name}informative rows", some.bound.size)
    claims = {"": rule.judge(rows.measured, rows.bound)}
    if tight is not None:
        claims["tight_"] = rule.judge(edge.measured, edge.bound)
    against = rule.judge(edge.measured, wrong)
    vacuous = rows.mask.size - rows.bound.size
    return conclude(
        statement=statement,
        claim=rule.claim("measured <= bound"),
        measured=claims[""].found,
        finding=" and ".join(
            score.words(f"{name.removesuffix('_') or 'informative'} rows")
            for name, score in claims.items()
        )
        + (f" ({vacuous} rows more are vacuous)" if vacuous else ""),
        holds=not any(score.rejects for score in claims.values()),
        rival=rule.claim("measured <= wrong bound"),
        rival_measured=against.found,
        rival_finding=f"under the rival's bound {against.words('rows')}",
        rival_rejected=against.rejects,
        tightness=claims[""].largest,
        evidence={
            "rows": rows.mask.size,
            **{
                f"{name}{key}": value
                for name, score in (*claims.items(), ("rival_", against))
                for key, value in score.counts.items()
            },
        },
    )


class _Rows(NamedTuple):
    """The informative rows, and which of all rows they are."""

    measured: np.ndarray
    bound: np.ndarray
    mask: np.ndarray


class _Score(NamedTuple):
    """What rows say of one bound."""

    found: Interval
    rejects: bool
    rows: int
    violations: int
    largest: float
    median: float
    share: str

    @property
    def counts(self) -> dict[str, float]:
        return {
            "informative": self.rows,
            "violations": self.violations,
            "median": self.median,
        }

    def words(self, which: str) -> str:
        return (
            f"{self.violations} of {self.rows} {which} are violations{self.share}, with measured / "
            f"bound at most {self.largest:.6g} (median {self.median:.3g})"
        )


@dataclass(frozen=True)
class _Rule:
    """The procedure, the same for claim and rival."""

    slack: float
    delta: float | None
    confidence: float

    def claim(self, inequality: str) -> str:
        if self.delta is None:
            return f"{inequality} in every row"
        return f"{inequality} but for a share of at most {self.delta:g}"

    def require_power(self, name: str, rows: int) -> None:
        if self.delta is None:
            return
        most = statistics.clopper_pearson(rows, rows, confidence=self.confidence)
        checks.require(
            most.low > self.delta,
            f"{rows} {name} could not reject any bound at delta = {self.delta:g}, even if all were "
            f"violated (the interval would start at {most.low:.3g}); repeat more often",
        )

    def judge(self, measured: np.ndarray, bound: np.ndarray) -> _Score:
        # a bound of zero has no ratio: infinite if exceeded, attained by zero
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.where((measured == 0) & (bound == 0), 1.0, measured / bound)
            violations = int((measured > bound * (1.0 + self.slack)).sum())
            largest, median = float(ratio.max()), float(np.median(ratio))
        if self.delta is None:
            found, rejects, share = Interval(largest, largest, largest), violations > 0, ""
        else:
            found = statistics.clopper_pearson(violations, ratio.size, confidence=self.confidence)
            rejects = found.low > self.delta
            share = f", a rate of {evidence.spelt(found, self.confidence)}"
        return _Score(found, rejects, ratio.size, violations, largest, median, share)


def _rule(slack: float, delta: float | None, confidence: float) -> _Rule:
    remedy = "it is a failure probability, such as 0.05"
    return _Rule(
        checks.real("slack", slack, low=0.0, high=0.01, remedy="it is for rounding only"),
        None if delta is None else checks.real("delta", delta, above=0.0, high=0.5, remedy=remedy),
        evidence.level(confidence),
    )


def _pair(tight: tuple[ArrayLike, ArrayLike]) -> tuple[ArrayLike, ArrayLike]:
    checks.require(
        isinstance(tight, tuple) and len(tight) == 2,
        "tight must be a pair (measured, bound), so that the claim is judged on it as well",
    )
    return tight


def _informative(
    name: str, measured: ArrayLike, bound: ArrayLike, ceiling: ArrayLike | None
) -> _Rows:
    found = evidence.values(f"{name}measured", measured)
    limit = _bound(f"{name}bound", bound, found.shape)
    top = _bound("ceiling", np.inf if ceiling is None else ceiling, found.shape)
    above = found > top * (1.0 + 1e-9)
    checks.require(
        not above.any(),
        f"{int(above.sum())} measured values exceed their ceiling, which nothing should; mend it",
    )
    mask = limit < top
    checks.require(
        bool(mask.any()),
        f"no {name}row is informative: every bound is infinite or at its ceiling; take more pairs "
        "or fewer parameters",
    )
    return _Rows(found[mask], limit[mask], mask)


def _bound(name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = evidence.alongside(name, given, shape)
    checks.require(not np.isnan(array).any(), f"{name} holds NaN; infinity stands for no bound")
    checks.require(
        bool((array >= 0.0).all()), f"{name} has entries below 0; state it of a norm or a gap"
    )
    return array
