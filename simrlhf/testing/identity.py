"""Two ways to the same numbers: equal to rounding, where a wrong formula is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks
from simrlhf.core.statistics import Interval
from simrlhf.testing import evidence
from simrlhf.testing.judgement import Judgement, conclude

# a rival that misses by less differs by little more than rounding
_MARGIN = 10.0


def assert_identity(
    measured: ArrayLike,
    claimed: ArrayLike,
    *,
    rival: ArrayLike | None = None,
    tolerance: float = 1e-10,
    scale: float | None = None,
    statement: str = "the identity",
) -> Judgement:
    """Judge whether `measured` equals `claimed` to rounding, and the rival does not.

    The claim holds if `max |measured - claimed| <= tolerance scale`. The difference is relative to
    the largest entry, not to each: an entry near zero is the difference of larger ones and carries
    their rounding. The rival is rejected if `max |measured - rival| >= 10 tolerance scale`.

    Args:
        measured: array of any shape, finite.
        claimed: array of the same shape, or one number for all entries.
        rival: what a wrong formula gives; likewise.
        tolerance: relative to `scale`; 1e-10 leaves float64 five digits for its rounding.
        scale: size to which differences are relative; `max |claimed|` by default.

    Returns:
        `Judgement` with the largest relative difference from claim and rival; `evidence` holds
        `entries` and `scale`.

    Raises:
        ClaimRejected, ControlAccepted: as said above.
        InputError: other shapes or indices, NaN or infinity, nothing to compare, numbers of a type
            too coarse for the tolerance, a rival that equals the claim, or a claim of zeros without
            `scale`.
    """
    __tracebackhide__ = True
    rival = evidence.rival_given(rival)
    evidence.require_aligned(measured=measured, claimed=claimed, rival=rival)
    found = evidence.values("measured", measured)
    claim = evidence.values("claimed", evidence.alongside("claimed", claimed, found.shape))
    wrong = evidence.values("rival", evidence.alongside("rival", rival, found.shape))
    tolerance = checks.real("tolerance", tolerance, above=0.0)
    for name, given in (("measured", measured), ("claimed", claimed)):
        _require_digits(name, given, tolerance)
    size = _scale(claim, scale)
    checks.require(
        _difference(wrong, claim, size) > tolerance,
        f"the rival equals the claim within {tolerance:g} here, so nothing could tell them apart; "
        "take a rival or an instance in which they differ",
    )
    off = _difference(found, claim, size)
    rival_off = _difference(found, wrong, size)
    return conclude(
        statement=statement,
        claim=f"equal within {tolerance:g} of the scale",
        measured=Interval(off, off, off),
        finding=(
            f"{found.size} measured and claimed values differ by at most {off:.3g} of their scale "
            f"{size:.6g}"
        ),
        holds=off <= tolerance,
        rival="a wrong formula",
        rival_measured=Interval(rival_off, rival_off, rival_off),
        rival_finding=(
            f"the rival's differ by {rival_off:.3g}, where {_MARGIN * tolerance:g} rejects"
        ),
        rival_rejected=rival_off >= _MARGIN * tolerance,
        evidence={"entries": found.size, "scale": size},
    )


def _require_digits(name: str, given: ArrayLike, tolerance: float) -> None:
    """Refuse numbers of a type that cannot meet the tolerance: they would reject any claim."""
    kind = np.asarray(given).dtype
    rounding = np.finfo(kind).eps if kind.kind == "f" else 0.0
    checks.require(
        rounding <= tolerance,
        f"{name} is {kind}, whose rounding {rounding:.2g} exceeds the tolerance {tolerance:g}; "
        "compute in float64, or give a tolerance",
    )


def _scale(claimed: np.ndarray, scale: float | None) -> float:
    if scale is not None:
        return checks.real("scale", scale, above=0.0)
    largest = float(np.abs(claimed).max())
    checks.require(
        largest > 0.0,
        "the claimed values are all zero, so differences are relative to nothing; give scale=",
    )
    return largest


def _difference(first: np.ndarray, second: np.ndarray, scale: float) -> float:
    with np.errstate(over="ignore"):  # numbers too far apart for float64 differ by infinity
        return float(np.abs(first - second).max() / scale)
