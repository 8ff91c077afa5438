"""A7: Algorithm 1's set has one bias for all users, and the user who needs it is left outside.

(B.1) prints `min_i b_i` in everybody's radius. A user whose reward leaves the shared subspace has
an error of `b_i` at least, so his truth is not in his set, and pessimism proves nothing for him.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core import statistics
from simrlhf.estimators import fit
from simrlhf.sampling import sample_preferences
from simrlhf.study.checking import Check, Finding, Kind, Verdict, attempt, require_sound
from simrlhf.study.checking.by_hand import written_out
from simrlhf.world import World, WorldConfig, make_world

CHECK = Check(
    statement="A7",
    title="the truth of every user in his confidence set",
    kind=Kind.AUDIT,
    claim="(B.1): with min_i b_i in all radii every user's truth is in his set, w.p. 1 - delta",
    procedure="N = 100 users of whom one leaves the subspace by .8; share_b at n = 1600. Half of "
    "the worlds give the smallest constant with which radii with each user's own b_i hold all "
    "(control), the other half are judged with it; and the smallest one that covers all others",
    rival="min_i b_i at the same constant",
    tolerance="99 % Clopper-Pearson interval above delta = .05 rejects",
    source="P-ShareLoRA, (B.1), (3.4), Theorem 4.2",
)
DELTA = 0.05
_LEAVING = 0.8
_PAIRS = {"tiny": 400, "smoke": 1600, "paper": 1600}
_WORLDS = {"tiny": 24, "smoke": 40, "paper": 400}
_WORLD = WorldConfig(n_users=100, d1=8, rank=2, nu=1.0, condition=1.3, user_norms="equal")


def measure(size: str) -> dict[str, Any]:
    """Squared errors of the leaving user and of the worst other one, and what the truths are."""
    rows = []
    for repetition in range(_WORLDS[size]):
        world = _with_one_outside(repetition)
        sample = sample_preferences(world, _PAIRS[size], seed=repetition)
        result = fit(sample, rank=_WORLD.rank, norm_bound=8.0)
        errors = np.sum((result.delta - world.delta) ** 2, axis=(1, 2))
        values = np.linalg.svd(np.hstack(list(world.delta)), compute_uv=False)
        left = np.linalg.svd(np.hstack(list(world.delta)))[0][:, : _WORLD.rank]
        bias = np.sum((world.delta - left @ (left.T @ world.delta)) ** 2, axis=(1, 2))
        rows.append(
            {
                "repetition": repetition,
                "n_pairs": _PAIRS[size],
                "error": errors[0],
                "worst_other": errors[1:].max(),
                "own_bias": bias[0],
                "least_bias": bias.min(),
                "nu": values[_WORLD.rank - 1] ** 2 / _WORLD.n_users,
                "tail_energy": np.sum(values[_WORLD.rank :] ** 2),
            }
        )
    return {"rows": pd.DataFrame(rows)}


def _with_one_outside(seed: int) -> World:
    """User 0's reward leaves the others' subspace by `_LEAVING`."""
    world = make_world(_WORLD, seed=seed)
    outside = np.random.default_rng(seed).normal(size=(_WORLD.d1, 1))
    outside -= world.basis @ (world.basis.T @ outside)
    delta = world.delta.copy()
    delta[0] += _LEAVING * outside / np.linalg.norm(outside)
    return replace(world, delta=delta)


def judge(measured: dict[str, Any]) -> Finding:
    """With his own bias the leaving user is covered, with the least one he never is."""
    rows = measured["rows"].copy()
    for name in ("own", "least"):
        rows[name] = [_squared_radius(row, row[f"{name}_bias"]) for _, row in rows.iterrows()]
    # others have no bias to speak of: the least one is theirs
    needed = np.maximum(rows["error"] / rows["own"], rows["worst_other"] / rows["least"])
    even = rows["repetition"] % 2 == 0
    constant = float(needed[even].max())
    judged = rows[~even]
    covered = attempt(
        testing.never_violated,
        judged["error"],
        constant * judged["own"],
        rival=constant * judged["least"],
        delta=DELTA,
        statement="his own b_i",
    )
    others = float((rows["worst_other"] / rows["least"]).max())
    shares = {
        name: statistics.clopper_pearson(
            int((rows["error"] <= others * rows[name]).sum()), len(rows), confidence=0.99
        )
        for name in ("least", "own")
    }
    judgements = [covered, *_formulas()]
    require_sound(judgements)
    printed = shares["least"]
    refuted = printed.high < 1.0 - DELTA
    wider = float((rows["error"] / rows["least"]).max())
    return Finding(
        verdict=Verdict.REFUTED if refuted else Verdict.HOLDS,
        quantity="coverage of the leaving user at the constant that covers all others",
        measured=printed,
        remark=(
            f"At the smallest constant under the root that covers all 99 others ({others:.2f}) the "
            f"user outside is covered in {printed.estimate:.2f} ({printed.low:.2f} to "
            f"{printed.high:.2f}) of {len(rows)} worlds with the printed min b_i, in "
            f"{shares['own'].estimate:.2f} ({shares['own'].low:.2f} to {shares['own'].high:.2f}) "
            f"with his own. To cover him with min b_i everybody's constant must be {wider:.1f}. "
            "(3.4) compares the square of the norm with zeta, itself a root: read so the set "
            "shrinks as n^(-1/4), half as fast as the error."
        ),
        judgements=judgements,
        rows=rows,
    )


def _squared_radius(row: pd.Series, bias: float) -> float:
    """`zeta^2` of (B.1) with a constant of 1 under the root and `L_1 = 1`."""
    count = theory.log_bracketing_number(
        n_users=_WORLD.n_users,
        n_pairs=row["n_pairs"],
        d1=_WORLD.d1,
        d2=_WORLD.d2,
        rank=_WORLD.rank,
        delta=DELTA,
    ).value
    return (
        theory.confidence_radius(
            log_bracketing=count,
            n_users=_WORLD.n_users,
            n_pairs=row["n_pairs"],
            nu=row["nu"],
            tail_energy=row["tail_energy"],
            rank=_WORLD.rank,
            d2=_WORLD.d2,
            delta=DELTA,
            own_bias=bias,
            constant=2.0,
        ).value
        ** 2
    )


def _formulas() -> list[testing.Judgement]:
    """(B.1) written out."""
    radius = theory.confidence_radius(
        log_bracketing=30.0,
        n_users=10,
        n_pairs=50.0,
        nu=0.7,
        tail_energy=1.3,
        rank=3,
        d2=2,
        delta=0.1,
        own_bias=0.2,
        feature_norm=1.5,
        constant=5.0,
    )
    inside = 0.2 + 30.0 / (10 * 50 * 0.7) + np.sqrt(1.3 / 10) / 0.7 + (6 + np.log(10 / 0.1)) / 50
    return written_out({"(B.1)": (radius.value, np.sqrt(5.0 / (2.0 * 1.5**2) * inside))})
