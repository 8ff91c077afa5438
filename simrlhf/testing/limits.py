"""An asymptotic value against measured ones: their ratio, and its approach to 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks, statistics
from simrlhf.testing import evidence, nesting
from simrlhf.testing.judgement import Judgement, conclude

# what skewness leaves of the 99 % Student interval: it holds the mean of exponential repetitions in
# 96 % at 20 and 98 % at 40 of them, of chi-square ones with one degree of freedom in 94 and 96 %
_FEWEST_REPETITIONS = 20
# its squares still have room in float64
_LARGEST_RATIO = 1e100


def limit(
    measured: ArrayLike,
    limit: ArrayLike,
    *,
    rival: ArrayLike | None = None,
    x: ArrayLike | None = None,
    repetition: ArrayLike | None = None,
    curve: ArrayLike | None = None,
    from_x: float | None = None,
    confidence: float = evidence.CONFIDENCE,
    statement: str = "the limit",
) -> Judgement:
    """Judge whether the mean of `measured / limit` goes to 1, and that of `measured / rival` not.

    With several `x` (sample sizes) the ratio is taken to be `1 + c / x`, as it is for the limits of
    maximum likelihood: every repetition gives the intercept of its least-squares line in `1 / x`
    (the mean over its curves), and the claim holds if the Student interval of their mean contains
    1. The ratio at the largest `x` alone is still off by `c / x`, so that enough repetitions would
    reject any true limit, and an approach that is only asked to come nearer to 1 would let wrong
    constants pass; the intercept uses every level and measures the approach. With one `x`, or
    none, each repetition gives its mean ratio, and `c / x` must be below the noise.

    The rival is rejected if its interval, found in the same way, excludes 1, and the claim's is
    narrower than the gap: how far from 1 the procedure would see the ratio if the rival were true.
    A wider interval would exclude the rival by luck of the draw only.

    Repetitions of a skewed law need numbers: a true limit of exponential ones is accepted in 96 %
    at 20 repetitions, of the squares of a single normal in 94 % at 20 and 96 % at 40.

    Args:
        measured: values whose mean has the limit (a squared distance, not its root), any shape.
        limit: the claimed limit, for each value or one number; not zero.
        rival: a wrong limit, likewise: another constant, a factor left out.
        x: sample size of each value; `None` if all have the same.
        repetition: label of each value's repetition; values of one repetition may depend on each
            other (nested samples). Needed with several `x`; else every value is one by default.
        curve: label of each value's curve within its repetition, such as its N: each has its own
            `c`.
        from_x: values at smaller `x` are before the regime of `1 + c / x`; fix it beforehand.

    Returns:
        `Judgement` with the ratio at infinite `x` (or at the one `x`); `evidence` holds `values`,
        `kept`, `repetitions`, `standard_error` of the ratio and, with several `x`, `smallest_x`,
        `largest_x`, the mean ratio there (`ratio_at_smallest`, `ratio_at_largest`) and `c`.

    Raises:
        ClaimRejected, ControlAccepted: as said above.
        InputError: other shapes or indices, NaN or infinity, a limit of zero, a rival equal to the
            limit, fewer than 20 repetitions, or a repetition with a single `x` where there are
            several.
    """
    __tracebackhide__ = True
    rival = evidence.rival_given(rival)
    level = evidence.level(confidence)
    nesting.require_owner(curve, repetition)
    evidence.require_aligned(
        measured=measured, limit=limit, rival=rival, x=x, repetition=repetition, curve=curve
    )
    points = _points(measured, limit, rival, (x, repetition, curve), from_x)
    ratio = _ratio("measured / limit", points.measured, points.limit)
    wrong = _ratio("measured / rival", points.measured, points.rival)
    apart = _ratio("rival / limit", points.rival, points.limit)
    gap = abs(float(_by_repetition(points, apart).mean()) - 1.0)
    each = _by_repetition(points, ratio)
    found = statistics.mean_interval(each, confidence=level)
    against = statistics.mean_interval(_by_repetition(points, wrong), confidence=level)
    approach = _approach(points, ratio)
    width = found.high - found.low
    return conclude(
        statement=statement,
        claim="the ratio to the limit goes to 1" if approach else "the mean ratio is 1",
        measured=found,
        finding=(
            f"{each.size} repetitions have {_described(approach)} {evidence.spelt(found, level)}"
        ),
        holds=evidence.contains(found, 1.0),
        rival="the same of the wrong limit",
        rival_measured=against,
        rival_finding=(
            f"to the wrong limit it is {evidence.spelt(against, level)}, and the claim's interval "
            f"is {width:.3g} wide against a gap of {gap:.3g}"
        ),
        rival_rejected=width < gap and not evidence.contains(against, 1.0),
        evidence={
            "values": points.given,
            "kept": points.x.size,
            "repetitions": each.size,
            "standard_error": statistics.mean_and_error(each).standard_error,
            **approach,
        },
    )


class _Points(NamedTuple):
    """The kept values, one-dimensional, with the numbers of their repetition and its curve."""

    measured: np.ndarray
    limit: np.ndarray
    rival: np.ndarray
    x: np.ndarray
    repetition: np.ndarray
    line: np.ndarray
    given: int

    @property
    def approaches(self) -> bool:
        """Whether there are several sample sizes, and so an approach to see."""
        return bool(self.x.min() < self.x.max())


def _points(
    measured: ArrayLike,
    limit: ArrayLike,
    rival: ArrayLike,
    where: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
    from_x: float | None,
) -> _Points:
    x, repetition, curve = where
    found = evidence.values("measured", measured)
    claimed, wrong = _limit("limit", limit, found.shape), _limit("rival", rival, found.shape)
    checks.require(
        not np.array_equal(claimed, wrong), "the rival limit equals the claimed one; name another"
    )
    checks.require(from_x is None or x is not None, "from_x= needs x=, the sample sizes")
    sizes = evidence.values("x", evidence.alongside("x", 1.0 if x is None else x, found.shape))
    checks.require(bool((sizes > 0.0).all()), "x holds values that are not positive")
    start = 0.0 if from_x is None else checks.real("from_x", from_x)
    mask = sizes >= start
    checks.require(bool(mask.any()), f"no value has x >= from_x = {start:g}; go to larger x")
    several = np.unique(sizes[mask]).size > 1
    checks.require(
        not several or repetition is not None,
        "several x need repetition=, the label of each value's repetition; independent values may "
        "be numbered within each x",
    )
    labels = np.arange(found.size) if repetition is None else repetition
    owner = nesting.groups("repetition", labels, found.size)[mask.ravel()]
    part = nesting.groups("curve", curve, found.size)[mask.ravel()]
    kept = _Points(
        measured=found[mask],
        limit=claimed[mask],
        rival=wrong[mask],
        x=sizes[mask],
        repetition=owner,
        line=nesting.numbered(owner, part),
        given=found.size,
    )
    _require_enough(kept)
    return kept


def _limit(name: str, given: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    array = evidence.values(name, evidence.alongside(name, given, shape))
    checks.require(bool((array != 0.0).all()), f"{name} is zero, and nothing has a ratio to it")
    return array


def _require_enough(kept: _Points) -> None:
    nesting.require_repetitions(np.unique(kept.repetition).size, fewest=_FEWEST_REPETITIONS)
    checks.require(
        not kept.approaches or nesting.fewest_distinct(_inverse(kept.x), kept.line) > 1,
        "a curve of a repetition has values at a single x only, so its approach cannot be seen; "
        "give every curve two or more",
    )


def _ratio(name: str, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        ratio = above / below
    checks.require(
        bool((np.abs(ratio) < _LARGEST_RATIO).all()),
        f"{name} reaches {np.abs(ratio).max():.3g}; bring both to one order of size",
    )
    return ratio


def _by_repetition(points: _Points, ratio: np.ndarray) -> np.ndarray:
    """For each repetition the ratio at infinite `x`; with a single `x`, its mean."""
    if points.approaches:
        found, _ = nesting.lines(_inverse(points.x), ratio, points.line)
    else:
        found = nesting.means(ratio, points.line)
    return nesting.over_curves(found, points.line, points.repetition)


def _inverse(x: np.ndarray) -> np.ndarray:
    """`1 / x` in units in which the largest `x` is 1: well scaled at any sample size."""
    return _ratio("the largest x over the smallest", np.full_like(x, x.max()), x)


def _approach(points: _Points, ratio: np.ndarray) -> dict[str, float]:
    """What the ratio does on its way; nothing with a single `x`."""
    if not points.approaches:
        return {}
    smallest, largest = float(points.x.min()), float(points.x.max())
    _, slopes = nesting.lines(_inverse(points.x), ratio, points.line)
    return {
        "smallest_x": smallest,
        "largest_x": largest,
        "ratio_at_smallest": float(ratio[points.x == smallest].mean()),
        "ratio_at_largest": float(ratio[points.x == largest].mean()),
        "c": float(slopes.mean()) * largest,
    }


def _described(approach: dict[str, float]) -> str:
    if not approach:
        return "the mean ratio"
    return (
        f"a mean ratio of {approach['ratio_at_smallest']:.4g} at x = {approach['smallest_x']:g}, "
        f"{approach['ratio_at_largest']:.4g} at x = {approach['largest_x']:g} and, as 1 / x goes "
        "to 0,"
    )
