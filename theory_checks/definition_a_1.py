"""Definition A.1: two forms of one subspace distance, its range, and the other distances beside it.

`dist(B1, B2) = ||B1 B1' - B2 B2'||_F / sqrt 2 = ||B1' B2perp||_F`, in `[0, sqrt(min(k, d1 - k))]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

from simrlhf import testing, theory
from simrlhf.core import subspaces
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, proved

CHECK = Check(
    statement="Definition A.1",
    title="the principal-angle distance has two equal forms",
    kind=Kind.DEFINITION,
    claim="||B1 B1' - B2 B2'||_F / sqrt 2 = ||B1' B2perp||_F, at most sqrt(min(k, d1 - k))",
    procedure="random pairs of spaces at angles from 1e-8 to pi/2, each form from its own "
    "factorisation (projections; null space; scipy's angles); identity, and orthogonal spaces for "
    "the ceiling",
    rival="the distance without 1/sqrt 2; a ceiling of sqrt(k) where d1 < 2k",
    tolerance="1e-10 of the scale for the projection form, whose rounding is 1e-16 of a norm of 1",
    source="P-ShareLoRA, Appendix A, Definition A.1",
)
_SIZES = {"tiny": 30, "smoke": 200, "paper": 2000}


def measure(size: str) -> dict[str, Any]:
    """Pairs of bases and their distance by three routes."""
    random = np.random.default_rng(1)
    rows = []
    for number in range(_SIZES[size]):
        d1 = int(random.integers(2, 12))
        k = int(random.integers(1, d1 + 1))
        first = scipy.linalg.qr(random.standard_normal((d1, k)), mode="economic")[0]
        away = 10.0 ** random.uniform(-4, 2)
        second = scipy.linalg.qr(first + away * random.standard_normal((d1, k)), mode="economic")[0]
        outside = scipy.linalg.null_space(second.T)
        angles = scipy.linalg.subspace_angles(first, second)
        rows.append(
            {
                "pair": number,
                "d1": d1,
                "k": k,
                "projections": np.linalg.norm(first @ first.T - second @ second.T),
                "complement": np.linalg.norm(first.T @ outside) if outside.size else 0.0,
                "angles": np.linalg.norm(np.sin(angles)),
                "implemented": subspaces.subspace_distance(first, second),
                "spectral": np.sin(angles).max(),
                "spectral_implemented": subspaces.subspace_distance(first, second, "spectral"),
            }
        )
    return {"rows": pd.DataFrame(rows), "farthest": _farthest()}


def _farthest() -> pd.DataFrame:
    """Spaces of coordinate axes that overlap as little as their dimensions allow."""
    rows = []
    for d1 in range(2, 9):
        for k in range(1, d1 + 1):
            axes = np.eye(d1)
            first, second = axes[:, :k], axes[:, d1 - k :]
            rows.append(
                {
                    "d1": d1,
                    "k": k,
                    "distance": np.linalg.norm(first @ first.T - second @ second.T) / np.sqrt(2.0),
                    "largest_sine": float(k < d1),
                }
            )
    return pd.DataFrame(rows)


def judge(measured: dict[str, Any]) -> Finding:
    """The two forms agree, and the ceiling is what coordinate spaces reach."""
    rows, farthest = measured["rows"], measured["farthest"]
    root = rows["projections"] / np.sqrt(2.0)
    forms = attempt(
        testing.assert_identity,
        root,
        rows["complement"],
        rival=rows["projections"],
        statement="the two forms of Definition A.1",
    )
    ours = attempt(
        testing.assert_identity,
        rows["implemented"],
        rows["angles"],
        rival=rows["projections"],
        tolerance=1e-7,  # scipy's arcsine route loses half of the digits near pi/2
        statement="subspace_distance",
    )
    shapes = [(int(row["k"]), int(row["d1"])) for _, row in farthest.iterrows()]
    ceilings = attempt(
        testing.assert_identity,
        farthest["distance"],
        [theory.distance_ceiling(k, d1) for k, d1 in shapes],
        rival=np.sqrt(farthest["k"]),
        statement="the ceiling",
    )
    spectral = attempt(
        testing.assert_identity,
        farthest["largest_sine"],
        [theory.distance_ceiling(k, d1, kind="spectral") for k, d1 in shapes],
        rival=np.ones(len(shapes)),
        statement="the ceiling of the largest sine",
    )
    off = forms.measured.estimate
    return proved(
        [forms, ours, ceilings, spectral],
        quantity="largest difference of the two forms",
        measured=exactly(off),
        remark=f"The forms differ by {off:.1e} on {len(rows)} pairs; the ceiling is reached.",
        rows=rows,
    )
