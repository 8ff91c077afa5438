"""Evidence as arrays: what is handed to a judge, checked before anything is judged."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks
from simrlhf.core.statistics import Interval

T = TypeVar("T")

# a 95 % interval would reject one true claim in twenty
CONFIDENCE = 0.99
# least-squares lines through exact values are right to some 1e-14; an interval of no width must
# still hold the number it stands for
_ROUNDING = 1e-9


def values(name: str, given: ArrayLike) -> np.ndarray:
    """Return `given` as a float64 array, neither empty nor with NaN or infinity."""
    array = _numbers(name, given)
    checks.require(array.size > 0, f"{name} is empty; there is nothing to judge")
    checks.finite(name, array)
    return array


def alongside(name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Return `given` as a float64 array of this shape; one number stands for all entries.

    Nothing else is broadcast; see `require_aligned` for tables.
    """
    array = _numbers(name, given)
    if array.ndim:
        checks.shape(name, array, shape, remedy="give one entry for each measured one, or a number")
    return np.broadcast_to(array, shape)


def _numbers(name: str, given: ArrayLike) -> np.ndarray:
    checks.require(
        not np.ma.isMaskedArray(given),
        f"{name} is a masked array, and its mask would be lost; hand over the values that count",
    )
    return checks.numbers(name, given)


def require_aligned(**given: object) -> None:
    """Refuse tables with different indices: entries are matched by position alone.

    Args:
        given: what a judge received, by name; what has no index is left out.
    """
    indexed = {name: part for name, part in given.items() if hasattr(part, "iloc")}
    first = next(iter(indexed), None)
    for name, part in indexed.items():
        checks.require(
            part.index.equals(indexed[first].index),  # type: ignore[attr-defined, index]
            f"{first} and {name} have different indices, and entries are matched by position; "
            "align them, or hand over arrays",
        )


def rival_given(rival: T | None) -> T:
    """Return the rival; a judge's call without one is refused."""
    if rival is None:
        raise checks.InputError(
            "a rival is missing; name a wrong formula or value that this evidence must reject"
        )
    return rival


def level(confidence: float) -> float:
    """Return a confidence that is neither too low for a true claim nor 1."""
    return checks.real("confidence", confidence, low=0.9, high=0.9999, remedy="for instance 0.99")


def contains(interval: Interval, value: float) -> bool:
    """Whether an interval holds a value, rounding of a part in 1e9 aside."""
    room = _ROUNDING * max(1.0, abs(value))
    return interval.low - room <= value <= interval.high + room


def spelt(interval: Interval, confidence: float) -> str:
    """An interval in words."""
    return (
        f"{interval.estimate:.6g} ({100 * confidence:g} % interval {interval.low:.6g} to "
        f"{interval.high:.6g})"
    )
