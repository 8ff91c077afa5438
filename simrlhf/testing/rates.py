"""An exponent against measured points: the slope of log y on log x."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import ArrayLike

from simrlhf.core import checks, statistics
from simrlhf.core.statistics import Interval
from simrlhf.testing import evidence, nesting
from simrlhf.testing.judgement import Judgement, conclude

# slopes are nearly normal, and the 99 % interval of five covers more than 95 % still
_FEWEST_REPETITIONS = 5
# two degrees of freedom of a regression; at one, Student's quantile is 64
_FEWEST_POINTS = 4


def rate(
    x: ArrayLike,
    y: ArrayLike,
    *,
    exponent: float,
    rival: float | None = None,
    from_x: ArrayLike | None = None,
    floor: float | None = None,
    repetition: ArrayLike | None = None,
    curve: ArrayLike | None = None,
    confidence: float = evidence.CONFIDENCE,
    statement: str = "the rate",
) -> Judgement:
    """Judge whether `y` goes as `x^exponent`, and not as `x^rival`.

    The claim holds if the interval of the slope contains `exponent`. The rival is rejected if the
    interval excludes it and is narrower than the gap between the two: an interval as wide as the
    gap excludes one of them by luck of the draw only. A narrower one, of 99 %, excludes a rival
    that far from the truth in more than 99 % of repetitions.

    With `repetition` there is one slope for each repetition (the mean over its curves), and a
    Student interval of their mean: samples that are nested in `x`, or that share users over
    curves, are no independent points, repetitions are. Without it the points must be independent
    and the interval is that of the regression.

    Which points count is fixed beforehand, by `from_x` and `floor`. A noise floor drops whole
    levels of `x`: dropping single points for a small `y` would keep the lucky ones and bend the
    slope.

    Args:
        x, y: points of any one shape; `x > 0`, and `y > 0` where kept.
        exponent, rival: the claimed exponent and a wrong one.
        from_x: points below are before the asymptotic regime; a number, or one for each point
            (it may depend on anything but `y`).
        floor: noise floor; a level of `x` (of a curve) is dropped if the median of its `y` is not
            above it (where a level has one `y` only, by that `y`).
        repetition: label of each point's repetition.
        curve: label of each point's curve within its repetition, such as its N.

    Returns:
        `Judgement` with the slope; `evidence` holds `points`, `kept`, `repetitions`, `smallest_x`
        and `largest_x` (of the kept points).

    Raises:
        ClaimRejected, ControlAccepted: as said above.
        InputError: other shapes or indices, NaN, values that are not positive, equal exponents,
            curves without repetitions, or fewer than 3 distinct `x` in a curve, 5 repetitions or,
            without repetitions, 4 points.
    """
    __tracebackhide__ = True
    rival = evidence.rival_given(rival)
    claimed, wrong = checks.real("exponent", exponent), checks.real("rival", rival)
    gap = abs(claimed - wrong)
    checks.require(
        gap > 0.0, f"the rival exponent equals the claimed one, {claimed:g}; name another"
    )
    level = evidence.level(confidence)
    nesting.require_owner(curve, repetition)
    evidence.require_aligned(x=x, y=y, from_x=from_x, repetition=repetition, curve=curve)
    points = _points(x, y, repetition, curve)
    kept = points.only(_in_regime(points, from_x, floor))
    repetitions = _require_enough(kept, nested=repetition is not None)
    if repetition is None:
        found = _regression(kept, level)
        source = f"{kept.x.size} independent points"
    else:
        found = statistics.mean_interval(_slopes(kept), confidence=level)
        source = f"{repetitions} repetitions, {kept.x.size} points"
    width = found.high - found.low
    return conclude(
        statement=statement,
        claim=f"x^{claimed:g}",
        measured=found,
        finding=f"{source} from x = {kept.x.min():g} to {kept.x.max():g} have the slope "
        f"{evidence.spelt(found, level)}",
        holds=evidence.contains(found, claimed),
        rival=f"x^{wrong:g}",
        rival_measured=found,
        rival_finding=(
            f"the interval is {width:.3g} wide and {wrong:g} lies {gap:.3g} from {claimed:g}"
        ),
        rival_rejected=width < gap and not evidence.contains(found, wrong),
        evidence={
            "points": points.x.size,
            "kept": kept.x.size,
            "repetitions": repetitions,
            "smallest_x": kept.x.min(),
            "largest_x": kept.x.max(),
        },
    )


class _Points(NamedTuple):
    """Points with the numbers of their repetition and of their curve, all one-dimensional."""

    x: np.ndarray
    y: np.ndarray
    repetition: np.ndarray
    curve: np.ndarray

    def only(self, mask: np.ndarray) -> _Points:
        return _Points(*(part[mask] for part in self))

    def levels(self) -> np.ndarray:
        """For every point, the number of its `x` within its curve, over all repetitions."""
        return nesting.numbered(self.curve, self.x)

    def lines(self) -> np.ndarray:
        """For every point, the number of its curve within its repetition."""
        return nesting.numbered(self.repetition, self.curve)


def _points(
    x: ArrayLike, y: ArrayLike, repetition: ArrayLike | None, curve: ArrayLike | None
) -> _Points:
    across, up = evidence.values("x", x), evidence.values("y", y)
    checks.shape("y", up, across.shape, remedy="give one y for each x")
    checks.require(bool((across > 0.0).all()), "x holds values that are not positive")
    size = across.size
    return _Points(
        across.ravel(),
        up.ravel(),
        nesting.groups("repetition", repetition, size),
        nesting.groups("curve", curve, size),
    )


def _in_regime(points: _Points, from_x: ArrayLike | None, floor: float | None) -> np.ndarray:
    mask = np.ones(points.x.size, dtype=bool)
    if from_x is not None:
        start = evidence.alongside("from_x", from_x, points.x.shape)
        checks.require(not np.isnan(start).any(), "from_x holds NaN; infinity drops a point")
        mask &= points.x >= start
    if floor is not None:
        lowest = checks.real("floor", floor, low=0.0)
        level = points.levels()
        medians = scipy.ndimage.median(points.y, labels=level, index=np.arange(level.max() + 1))
        mask &= np.asarray(medians)[level] > lowest
    checks.require(
        bool(mask.any()), "no point is in the regime that from_x and floor leave; go to larger x"
    )
    return mask


def _require_enough(kept: _Points, *, nested: bool) -> int:
    """Refuse points without power; return the number of repetitions."""
    checks.require(
        bool((kept.y > 0.0).all()),
        f"{int((kept.y <= 0).sum())} kept values of y are not positive; raise floor",
    )
    fewest = nesting.fewest_distinct(np.log(kept.x), kept.lines())
    where = "a curve of a repetition" if nested else "the evidence"
    checks.require(
        fewest >= 3,
        f"{where} keeps {fewest} distinct x, at least 3 are needed to see a power law; widen the "
        "range, or leave such curves out",
    )
    repetitions = np.unique(kept.repetition).size
    if nested:
        nesting.require_repetitions(repetitions, fewest=_FEWEST_REPETITIONS)
    else:
        checks.require(
            kept.x.size >= _FEWEST_POINTS,
            f"{kept.x.size} points say too little of a slope; at least {_FEWEST_POINTS} are needed",
        )
    return repetitions


def _regression(kept: _Points, confidence: float) -> Interval:
    if np.ptp(kept.y) == 0.0:  # scipy gives a flat line no standard error
        return Interval(0.0, 0.0, 0.0)
    return statistics.log_log_slope(kept.x, kept.y, confidence=confidence)


def _slopes(kept: _Points) -> np.ndarray:
    """One slope for each repetition: the mean over its curves."""
    line = kept.lines()
    _, slopes = nesting.lines(np.log(kept.x), np.log(kept.y), line)
    return nesting.over_curves(slopes, line, kept.repetition)
