"""S1: the distance is at most the error over sigma_k, for any estimate whose columns lie in B_hat.

`dist(B_hat, B^<>) <= ||E||_F / sigma_k`, the largest sine `<= ||E||_op / sigma_k`, both also with
`E'`; for the top-k space of an estimate of rank above k, `dist <= 2 ||E'||_F / sigma_k`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg

from simrlhf import testing, theory
from simrlhf.core import subspaces
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, fitted_draws, proved
from simrlhf.world import WorldConfig

CHECK = Check(
    statement="S1",
    title="geometry: distance from error, without an eigengap",
    kind=Kind.SOUND,
    claim="dist <= ||E||_F / sigma_k; largest sine <= ||E||_op / sigma_k; above rank k "
    "dist <= 2 ||E'||_F / sigma_k",
    procedure="fits of share_b and full with and without a tail; never violated; equality at "
    "Delta_hat = P_hat Delta^<>, k = 1; an estimate of rank 2 whose top direction is foreign",
    rival="the bound over sqrt 2 at those instances; for rank above k the bound without its 2",
    tolerance="relative 1e-9 for rounding; 1e-10 for the equality",
    source="theory.md, S1 (proof in simrlhf.theory.subspaces)",
)
_REPETITIONS = {"tiny": 5, "smoke": 30, "paper": 200}
_SIZES = (10, 40, 160)
_WORLD = WorldConfig(n_users=10, d1=6, rank=2, nu=1.0)


def measure(size: str) -> dict[str, Any]:
    """Errors and distances of fits, and of two estimates built to be extreme."""
    rows = []
    for tail in (0.0, 0.5):
        config = replace(_WORLD, tail=tail)
        for estimator in ("share_b", "full"):
            for draw in fitted_draws(
                config, _SIZES, _REPETITIONS[size], estimator=estimator, norm_bound=4.0
            ):
                rows.append(_row(draw, estimator, tail))
    tight = _projected()
    return {"rows": pd.DataFrame(rows), "tight": tight, "above": _swapped()}


def _row(draw: Any, estimator: str, tail: float) -> dict[str, Any]:
    world, delta = draw.world, draw.result.delta
    basis = subspaces.top_left_space(subspaces.unfold(delta), world.config.rank)
    error = subspaces.unfold(delta - world.delta)
    return {
        "estimator": estimator,
        "tail": tail,
        "n_pairs": draw.n_pairs,
        "repetition": draw.repetition,
        "sigma_k": world.config.sigma_k,
        "d1": world.config.d1,
        "rank": world.config.rank,
        "distance": subspaces.subspace_distance(basis, world.basis),
        "sine": subspaces.subspace_distance(basis, world.basis, "spectral"),
        "error": np.linalg.norm(error),
        "operator_error": np.linalg.norm(error, 2),
        "truncated_error": np.linalg.norm(delta - world.truncated),
    }


def _projected() -> pd.DataFrame:
    """`Delta_hat = P_hat Delta^<>` at k = 1, at angles from 1e-6 to a right one."""
    random = np.random.default_rng(2)
    rows = []
    for angle in np.geomspace(1e-6, 0.5 * np.pi, 20):
        frame = scipy.linalg.qr(random.standard_normal((5, 5)))[0]
        truth = 1.7 * np.outer(frame[:, 0], random.standard_normal(8))
        turned = np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, 1]
        error = (np.outer(turned, turned) - np.eye(5)) @ truth
        rows.append(
            {
                "angle": angle,
                "distance": np.sin(angle),
                "error": np.linalg.norm(error),
                "operator_error": np.linalg.norm(error, 2),
                "sigma_k": np.linalg.norm(truth, 2),
            }
        )
    return pd.DataFrame(rows)


def _swapped() -> pd.DataFrame:
    """Half of the truth's direction and a hair more of another one: the top space is foreign."""
    rows = []
    for hair in (1e-6, 1e-3, 1e-1):
        truth = np.diag([1.0, 0.0])
        estimate = np.diag([0.5, 0.5 + hair])
        rows.append(
            {
                "hair": hair,
                "distance": 1.0,
                "error": np.linalg.norm(estimate - truth),
                "by_hand": np.sqrt(0.25 + (0.5 + hair) ** 2),
                "sigma_k": 1.0,
            }
        )
    return pd.DataFrame(rows)


def judge(measured: dict[str, Any]) -> Finding:
    """Never violated on fits; equal, or nearly, at the extreme estimates."""
    rows, tight, above = measured["rows"], measured["tight"], measured["above"]
    shared = rows[rows["estimator"] == "share_b"]
    ceiling = theory.distance_ceiling(_WORLD.rank, _WORLD.d1)
    edge = _bound(tight["error"], tight["sigma_k"])
    judgements = [
        attempt(
            testing.never_violated,
            shared["distance"],
            _bound(shared[error], shared["sigma_k"], ceiling=ceiling),
            ceiling=ceiling,
            tight=(tight["distance"], edge),
            rival=edge / np.sqrt(2.0),
            statement=f"S1 with {error}",
        )
        for error in ("error", "truncated_error")
    ]
    spectral = _bound(tight["operator_error"], tight["sigma_k"], case="spectral")
    judgements.append(
        attempt(
            testing.never_violated,
            shared["sine"],
            _bound(shared["operator_error"], shared["sigma_k"], case="spectral"),
            ceiling=theory.distance_ceiling(_WORLD.rank, _WORLD.d1, kind="spectral"),
            tight=(tight["distance"], spectral),
            rival=spectral / np.sqrt(2.0),
            statement="S1, largest sine",
        )
    )
    wide = rows[rows["estimator"] == "full"]
    foreign = _bound(above["error"], above["sigma_k"], case="above_rank", ceiling=2.0)
    judgements.append(
        attempt(
            testing.never_violated,
            wide["distance"],
            _bound(wide["truncated_error"], wide["sigma_k"], case="above_rank", ceiling=ceiling),
            ceiling=ceiling,
            tight=(above["distance"], foreign),
            rival=0.5 * foreign,
            statement="S1 above rank k",
        )
    )
    for name, value, by_hand in (
        ("equality at the projected truth", edge, tight["distance"]),
        ("twice the error above rank k", foreign, 2.0 * above["by_hand"]),
    ):
        judgements.append(
            attempt(
                testing.assert_identity,
                value,
                by_hand,
                rival=by_hand * np.sqrt(2.0),
                tolerance=1e-9,
                statement=name,
            )
        )
    informs = _bound(shared["error"], shared["sigma_k"]) < ceiling
    known = pd.Series(informs).groupby(shared["n_pairs"].to_numpy()).mean() > 0.5
    filled = float((shared["distance"] / _bound(shared["error"], shared["sigma_k"])).median())
    return proved(
        judgements,
        quantity="largest distance over its bound, fits of share_b",
        measured=exactly(judgements[0].measured.estimate),
        tightness=float((tight["distance"] / edge).max()),
        n_star=float(known[known].index.min()) if known.any() else np.inf,
        remark=(
            f"Never violated in {len(rows)} fits; the distance of a share_b fit is {filled:.2f} of "
            f"its bound in the median; attained at Delta_hat = P_hat Delta^<>. n* is of N = "
            f"{_WORLD.n_users}, d1 = {_WORLD.d1}, k = {_WORLD.rank}, nu = {_WORLD.nu:g}."
        ),
        rows=rows,
    )


def _bound(
    errors: pd.Series, sigma_k: pd.Series, *, case: str = "share_b", ceiling: float = 1.0
) -> np.ndarray:
    return np.array(
        [
            theory.geometry_bound(float(error), sigma_k=float(s), ceiling=ceiling, case=case).value
            for error, s in zip(errors, sigma_k, strict=True)
        ]
    )
