"""What a statement says about one instance: a value, the terms it is made of, and a status."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from simrlhf.core import checks


class BoundStatus(StrEnum):
    """Whether a value says more than what is true anyway."""

    INFORMATIVE = "informative"
    VACUOUS = "vacuous"
    NOT_APPLICABLE = "not applicable"

    @property
    def sentence(self) -> str:
        """One sentence for a reader who has not seen the statement."""
        return _SENTENCES[self]


_SENTENCES = {
    BoundStatus.INFORMATIVE: "The value lies below its trivial ceiling, so it says something.",
    BoundStatus.VACUOUS: (
        "The value says nothing: it is at or above its trivial ceiling, or one of its ingredients "
        "is infinite or undefined."
    ),
    BoundStatus.NOT_APPLICABLE: (
        "The statement assumes what this instance does not have, so it makes no claim here; there "
        "is no value."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A statement evaluated on plain numbers.

    Attributes:
        value: the right side of the statement; infinite where an ingredient is, NaN where the
            statement does not apply.
        terms: the named ingredients of the value.
        status: whether the value says anything.
        ceiling: what the bounded quantity never exceeds; infinite where there is no such number.
        statement: which statement of the paper or of this package the value implements.
    """

    value: float
    terms: dict[str, float]
    status: BoundStatus
    ceiling: float
    statement: str


def make_bound(value: float, *, terms: dict[str, float], ceiling: float, statement: str) -> Bound:
    """Return a `Bound` whose status follows from its numbers.

    It is VACUOUS when `value >= ceiling`, or when the value or any term is infinite or NaN (the
    value is then reported as infinite, so that it can be drawn and compared).
    """
    terms = {name: float(term) for name, term in terms.items()}
    value = float(value)
    sound = all(math.isfinite(number) for number in (value, *terms.values()))
    value = value if sound else math.inf
    status = BoundStatus.INFORMATIVE if value < ceiling else BoundStatus.VACUOUS
    return Bound(
        value=value, terms=terms, status=status, ceiling=float(ceiling), statement=statement
    )


def not_applicable(*, ceiling: float, statement: str) -> Bound:
    """Return the `Bound` of a statement whose assumptions fail: no value, no terms."""
    return Bound(
        value=math.nan,
        terms={},
        status=BoundStatus.NOT_APPLICABLE,
        ceiling=float(ceiling),
        statement=statement,
    )


def ingredient(name: str, value: object, *, remedy: str = "") -> float:
    """Return `value` as a number that is not negative; infinity and NaN pass, to end as VACUOUS.

    Raises:
        InputError: not a real number, or negative.
    """
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return checks.real(name, value)  # the one place that words the refusal
    if math.isfinite(number):
        return checks.real(name, value, low=0.0, remedy=remedy)
    checks.require(number != -math.inf, f"{name} = -inf must be at least 0")
    return number


def ratio(numerator: float, denominator: float) -> float:
    """`numerator / denominator`; infinite at a zero denominator, whatever stands above it."""
    return numerator / denominator if denominator != 0.0 else math.inf
