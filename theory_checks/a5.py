"""A5: `||B - B^<>||_F^2 <= dist^2` is reversed, and false by any factor without the best rotation.

With principal angles `a_j`, `min_O ||B - B^<> O||_F^2 = sum (2 sin(a_j / 2))^2` and
`dist^2 = sum sin^2 a_j = sum (2 sin(a_j / 2) cos(a_j / 2))^2`. Their ratio lies between
`1 / cos^2 0 = 1` (small angles) and `1 / cos^2(pi / 4) = 2` (right angles).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

from simrlhf import testing
from simrlhf.core import subspaces
from simrlhf.core.statistics import Interval
from simrlhf.study.checking import Check, Finding, Kind, Verdict, attempt, require_sound

CHECK = Check(
    statement="A5",
    title="bases are not closer than their spaces",
    kind=Kind.AUDIT,
    claim="||B - B^<>||_F^2 <= dist(B, B^<>)^2",
    procedure="random pairs at angles from 1e-6 to pi/2: the difference of the bases as they come, "
    "after the best rotation (scipy's Procrustes), after the best matrix; never_violated for "
    "dist^2 <= min_O ||B - B^<>O||_F^2 <= 2 dist^2",
    rival="the printed dist^2 in place of 2 dist^2; half of the lower end; as control, the printed "
    "bound must pass for min_M ||B - B^<>M||_F^2 over all matrices M",
    tolerance="1e-9: a squared distance of 1e-12 is the square of a difference known to 1e-16",
    source="P-ShareLoRA, end of B.1 and C.2",
)
_SIZES = {"tiny": 40, "smoke": 400, "paper": 4000}


def measure(size: str) -> dict[str, Any]:
    """Pairs of bases with known angles, and the difference of the two by three routes."""
    random = np.random.default_rng(5)
    rows = []
    half = _SIZES[size] // 2
    grid = [*np.geomspace(1e-6, 1e-2, half), *np.linspace(1e-2, np.pi / 2, half + 1)[1:]]
    for number, angle in enumerate(grid):
        k = int(random.integers(1, 5))
        d1 = int(random.integers(2 * k, 12))
        square = scipy.linalg.qr(random.standard_normal((d1, d1)))[0]
        angles = angle * np.append(random.uniform(0.5, 1.0, k - 1), 1.0)
        tilted = square[:, :k] * np.cos(angles) + square[:, k : 2 * k] * np.sin(angles)
        first = tilted @ _rotation(k, random)
        second = square[:, :k] @ _rotation(k, random)
        best = scipy.linalg.orthogonal_procrustes(second, first)[0]
        rows.append(
            {
                "pair": number,
                "d1": d1,
                "k": k,
                "angle": angle,
                "squared_dist": np.linalg.norm(first @ first.T - second @ second.T) ** 2 / 2.0,
                "as_they_come": np.linalg.norm(first - second) ** 2,
                "rotated": np.linalg.norm(first - second @ best) ** 2,
                "any_matrix": np.linalg.norm(first - second @ (second.T @ first)) ** 2,
                "from_angles": np.sum((2.0 * np.sin(angles / 2.0)) ** 2),
                "implemented": subspaces.subspace_distance(first, second, "procrustes") ** 2,
            }
        )
    return {"rows": pd.DataFrame(rows)}


def _rotation(k: int, random: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(random.standard_normal((k, k)))[0]


def judge(measured: dict[str, Any]) -> Finding:
    """Both ends of the right statement hold and are approached; the printed one is broken."""
    rows = measured["rows"]
    squared, rotated = rows["squared_dist"], rows["rotated"]
    upper = attempt(
        testing.never_violated, rotated, 2.0 * squared, rival=squared, statement="A5, upper end"
    )
    lower = attempt(
        testing.never_violated, squared, rotated, rival=rotated / 2.0, statement="A5, lower end"
    )
    control = attempt(
        testing.never_violated,
        rows["any_matrix"],
        squared,
        rival=squared / 2.0,
        statement="A5, control: the best matrix",
    )
    # relative to each pair's own size, so that small angles count as much as large ones
    angles = attempt(
        testing.assert_identity,
        rotated / rows["from_angles"],
        1.0,
        rival=squared / rows["from_angles"],
        tolerance=1e-9,
        statement="min_O ||B - B^<>O||^2 = sum (2 sin(a/2))^2",
    )
    ours = attempt(
        testing.assert_identity,
        rows["implemented"] / rows["from_angles"],
        1.0,
        rival=squared / rows["from_angles"],
        tolerance=1e-9,
        statement="subspace_distance, procrustes",
    )
    judgements = [upper, lower, control, angles, ours]
    ratio, loose = rotated / squared, rows["as_they_come"] / squared
    broken = float((rows["as_they_come"] > squared * (1.0 + 1e-9)).mean())
    widest, narrowest = rows["angle"].max(), rows["angle"].min()
    require_sound(judgements)
    return Finding(
        verdict=Verdict.REFUTED if broken > 0 else Verdict.HOLDS,
        quantity="largest min_O ||B - B^<>O||^2 / dist^2, and its range (printed: at most 1)",
        measured=Interval(float(ratio.max()), float(ratio.min()), float(ratio.max())),
        remark=f"Reversed: with the best rotation the ratio goes to 1 at small angles "
        f"(within {abs(ratio.iloc[0] - 1.0):.0e} at {narrowest:.0e}) and to 2 at right angles "
        f"({ratio.max():.3f} at most, angles up to {widest:.2f}). "
        f"Without it the printed inequality fails for {broken:.1%} of {len(rows)} pairs, by a "
        f"factor of {loose.max():.2g} at the worst and {loose.median():.2g} in the median.",
        judgements=judgements,
        rows=rows,
        tightness=upper.tightness,
        constants={"largest_ratio_without_rotation": float(loose.max())},
    )
