"""A printed bound with an unknown constant: the smallest one that covers, and how it drifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks, statistics
from simrlhf.core.statistics import Interval
from simrlhf.testing import evidence, nesting

DIRECTIONS = ("infinity", "zero", "both")
# a bound that misses or has to spare a factor under its root drifts with a power of 1/2; half of it
# is where the nearest right and wrong powers meet
HALF_A_ROOT = 0.25
_FEWEST_REPETITIONS = 5


class Drift(NamedTuple):
    """How the constant that a bound needs depends on one variable.

    Attributes:
        slope: of `log(measured / bound)` on `log(variable)`, with its interval over repetitions.
        rises: the constant grows without end where the variable may go: none covers.
        falls: it falls there: the bound is loose.
        smallest, largest: of the variable.
    """

    slope: Interval
    rises: bool
    falls: bool
    smallest: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a bound's constant must be.

    Attributes:
        constant: the smallest that covers all rows, `max measured / bound`.
        median: of `measured / bound`.
        drifts: of each swept variable.
        tolerance: slopes nearer to 0 are no drift.
    """

    constant: float
    median: float
    drifts: Mapping[str, Drift]
    tolerance: float

    @property
    def rising(self) -> tuple[str, ...]:
        """Variables in which no constant covers."""
        return tuple(name for name, drift in self.drifts.items() if drift.rises)

    @property
    def falling(self) -> tuple[str, ...]:
        """Variables in which the bound is loose."""
        return tuple(name for name, drift in self.drifts.items() if drift.falls)

    @property
    def numbers(self) -> dict[str, float]:
        """Constant and slopes by name, for a record."""
        slopes = {f"drift_{name}": drift.slope.estimate for name, drift in self.drifts.items()}
        return {"constant": self.constant, "median": self.median, **slopes}

    def spelt(self, *names: str) -> str:
        """Slopes in words, of all variables or of those named."""
        return ", ".join(
            f"{name} {drift.slope.estimate:.2f} ({drift.slope.low:.2f} to {drift.slope.high:.2f})"
            for name, drift in self.drifts.items()
            if not names or name in names
        )


def calibrate(
    measured: ArrayLike,
    bound: ArrayLike,
    *,
    variables: Mapping[str, ArrayLike],
    repetition: ArrayLike,
    towards: Mapping[str, str] | None = None,
    tolerance: float = HALF_A_ROOT,
    confidence: float = evidence.CONFIDENCE,
) -> Calibration:
    """Find the constant of `measured <= constant * bound`, and its drift with each variable.

    A drift is the slope of `log(measured / bound)` on `log(variable)` along a sweep in which
    nothing else changes: one slope for each repetition (samples of a repetition are nested, so its
    points are not independent), then a Student interval of their mean. It rises if the whole
    interval lies beyond `tolerance` on the side that asks for a larger constant where the variable
    may go, and falls if it lies beyond on the other.

    A ratio that saturates, as `(d1 - k) / (d1 + N)` in d1, has a small slope over any finite range;
    that is what the tolerance is for.

    Args:
        measured, bound: positive, one for each row; the bound with its constant set to 1.
        variables: by name, the value in each row; NaN where the row is not of this sweep.
        repetition: label of each row's repetition.
        towards: where a variable may go: `"infinity"` (by default), `"zero"` or `"both"`; any drift
            of the last asks for too much at one end, so it rises.
        tolerance: of a slope.
        confidence: of the intervals.

    Raises:
        InputError: shapes, values that are not positive, a sweep of one value or of fewer than
            five repetitions.
    """
    found = evidence.values("measured", measured)
    limit = evidence.values("bound", evidence.alongside("bound", bound, found.shape))
    for name, values in (("measured", found), ("bound", limit)):
        checks.require(bool((values > 0.0).all()), f"{name} holds values that are not positive")
    given = dict(towards or {})
    for name, direction in given.items():
        checks.choice("variable of towards", name, list(variables))
        checks.choice(f"direction of {name}", direction, DIRECTIONS)
    room = checks.real("tolerance", tolerance, low=0.0)
    level = evidence.level(confidence)
    ratio = found / limit
    owner = np.asarray(repetition)
    checks.shape("repetition", owner, found.shape, remedy="give one label for each row")
    drifts = {}
    for name, values in variables.items():
        x = evidence.alongside(name, values, found.shape)
        inside = ~np.isnan(x)
        slope = _slope(name, x[inside], ratio[inside], owner[inside], level)
        rises, falls = _reading(slope, given.get(name, "infinity"), room)
        drifts[name] = Drift(slope, rises, falls, *_range(x[inside]))
    largest, middle = float(ratio.max()), float(np.median(ratio))
    return Calibration(constant=largest, median=middle, drifts=drifts, tolerance=room)


def _slope(
    name: str, x: np.ndarray, ratio: np.ndarray, owner: np.ndarray, level: float
) -> Interval:
    checks.require(x.size > 0, f"no row belongs to the sweep of {name}")
    checks.require(bool((x > 0.0).all()), f"{name} holds values that are not positive")
    group = nesting.groups("repetition", owner, x.size)
    checks.require(
        nesting.fewest_distinct(np.log(x), group) > 1,
        f"a repetition has one value of {name} only, so it has no slope; sweep two or more",
    )
    nesting.require_repetitions(np.unique(group).size, fewest=_FEWEST_REPETITIONS)
    _, slopes = nesting.lines(np.log(x), np.log(ratio), group)
    return statistics.mean_interval(slopes, confidence=level)


def _range(x: np.ndarray) -> tuple[float, float]:
    return float(x.min()), float(x.max())


def _reading(slope: Interval, direction: str, tolerance: float) -> tuple[bool, bool]:
    """Whether the constant rises, and whether it falls, in the direction."""
    up, down = slope.low > tolerance, slope.high < -tolerance
    if direction == "both":
        return up or down, False
    return (up, down) if direction == "infinity" else (down, up)
