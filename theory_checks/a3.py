"""A3: Lemma 5 under Assumption 1 alone: predictions may be right while the space is wrong.

Lemma 5 passes from `sum_i E|P_hat_i - P*_i|^2` to `||Theta_hat - Theta*||_F^2` "by the mean value
theorem". That needs `lam_min(E[vec x vec x']) > 0`, which Assumption 1 (a bounded gradient) does
not give. Features blind to one direction `v = (b + o) / sqrt 2`, b inside and o outside `B^<>`:
of b only `b - v v'b = (b - o) / 2` is ever seen, at 45 degrees to b, so that
`dist^2 -> sin^2(pi / 4) = 1/2`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core.statistics import log_log_slope
from simrlhf.metrics import measure_instance, recovery
from simrlhf.study.checking import (
    Check,
    Draw,
    Finding,
    Kind,
    Verdict,
    attempt,
    fitted_draws,
    require_sound,
)
from simrlhf.testing import Judgement
from simrlhf.world import WorldConfig

CHECK = Check(
    statement="A3",
    title="Lemma 5 needs features that see every direction",
    kind=Kind.AUDIT,
    claim="Lemma 5 under Assumption 1 alone: dist falls with the prediction error, as n^(-1/2)",
    procedure="features blind to one direction at 45 degrees to col(B); N = 12, d1 = 6, k = 2: "
    "slope of dist in n over the three largest n (rate, the printed -1/2); dist^2 goes to 1/2 "
    "(limit)",
    rival="slope 0; the limit sin^2(pi/8) of half the angle; as controls, the prediction error of "
    "the same fits and dist under Gaussian features must show the printed -1/2",
    tolerance="99 % intervals over worlds; at smaller n sampling noise adds c/n to the fixed angle",
    source="P-ShareLoRA, Lemma 5 and its proof; Assumption 1",
)
_SIZES = {
    "tiny": (100, 200, 400, 800),
    "smoke": (200, 400, 800, 1600),
    "paper": (200, 400, 800, 1600, 3200, 6400),
}
# the control has but a slope to show
_CONTROL_SIZES = {"tiny": (100, 200, 800), "smoke": (200, 400, 1600), "paper": (400, 1600, 6400)}
# `limit` wants twenty
_REPETITIONS = {"tiny": 20, "smoke": 20, "paper": 60}
_WORLD = WorldConfig(n_users=12, d1=6, rank=2)


def measure(size: str) -> dict[str, Any]:
    """Fits of the same worlds under blind and under Gaussian features."""
    rows = []
    for features in ("degenerate", "gaussian"):
        config = replace(_WORLD, features=features)
        sizes = _SIZES[size] if features == "degenerate" else _CONTROL_SIZES[size]
        draws = fitted_draws(config, sizes, _REPETITIONS[size], seed=3)
        rows += [_row(draw) for draw in draws]
    return {"rows": pd.DataFrame(rows)}


def _row(draw: Draw) -> dict[str, Any]:
    instance = measure_instance(draw.world, draw.preferences, draw.result)
    found = recovery(draw.world, draw.result)
    return {
        "features": draw.world.config.features,
        "n_pairs": draw.n_pairs,
        "repetition": draw.repetition,
        "sigma_k": draw.world.config.sigma_k,
        "dist": found["subspace_distance"],
        "reward_error": found["reward_error"],
        "error": instance.error_norm,
        "smallest_design": instance.smallest_design,
        "largest_design": instance.largest_design,
        "status": draw.result.status.name,
    }


def judge(measured: dict[str, Any]) -> Finding:
    """The distance stays, the prediction error of the same fits falls."""
    rows = measured["rows"]
    blind, seen = (rows[rows["features"] == name] for name in ("degenerate", "gaussian"))
    upper = blind[blind["n_pairs"] >= sorted(blind["n_pairs"].unique())[-3]]
    printed = _slope(upper, "A3, as printed: dist under blind features")
    where = attempt(
        testing.limit,
        blind["dist"] ** 2,
        math.sin(math.pi / 4.0) ** 2,
        rival=math.sin(math.pi / 8.0) ** 2,
        x=blind["n_pairs"],
        repetition=blind["repetition"],
        statement="A3, dist^2 under blind features",
    )
    falls = _slope(upper, "A3, control: prediction error", column="reward_error")
    control = _slope(seen, "A3, control: dist under Gaussian features")
    judgements = [where, falls, control, *_sound(blind)]
    last = blind[blind["n_pairs"] == blind["n_pairs"].max()]
    ratio = blind["dist"] / blind["reward_error"]
    drift = log_log_slope(blind["n_pairs"], ratio).estimate
    require_sound(judgements)
    return Finding(
        verdict=Verdict.HOLDS if printed.holds else Verdict.REFUTED,
        quantity="slope of dist in n, blind features (printed: -1/2)",
        measured=printed.measured,
        remark=f"dist stays at {last['dist'].mean():.3f} (sin 45 degrees is {math.sqrt(0.5):.3f}) "
        f"while the prediction error of the same fits falls with the slope "
        f"{falls.measured.estimate:.2f}, so the constant of even the root of Lemma 5 would have to "
        f"grow as n^{drift:.2f}; dist under Gaussian features has the slope "
        f"{control.measured.estimate:.2f}. S1 holds throughout, S2 a priori is vacuous, as it "
        "should be.",
        judgements=[printed, *judgements],
        rows=rows,
        constants={"drift_in_n": drift},
    )


def _slope(rows: pd.DataFrame, name: str, column: str = "dist") -> Judgement:
    """The printed slope in n, by one procedure for what must reject it and what must not."""
    return attempt(
        testing.rate,
        rows["n_pairs"],
        rows[column],
        exponent=-0.5,
        rival=0.0,
        repetition=rows["repetition"],
        statement=name,
    )


def _sound(blind: pd.DataFrame) -> list[Judgement]:
    """What is proved here stays true: S1 covers these fits, and S2 makes no claim."""
    ceiling = theory.distance_ceiling(_WORLD.rank, _WORLD.d1)
    bounds = [
        theory.geometry_bound(row.error, sigma_k=row.sigma_k, ceiling=ceiling).value
        for row in blind.itertuples()
    ]
    formula = attempt(
        testing.assert_identity,
        bounds,
        (blind["error"] / blind["sigma_k"]).to_numpy(),
        rival=((blind["error"] / blind["sigma_k"]) ** 2).to_numpy(),
        statement="S1",
    )
    # what Lemma 5 would say if the blind direction did not matter: the error that predictions see
    covered = attempt(
        testing.never_violated,
        blind["dist"].to_numpy(),
        np.array(bounds),
        rival=(blind["reward_error"] / math.sqrt(_WORLD.nu)).to_numpy(),
        statement="S1 under blind features",
    )
    silent = [
        theory.oracle_inequality(
            noise_norm=1.0,
            tail=0.0,
            sigma_k=row.sigma_k,
            ceiling=ceiling,
            curvature=0.1,
            smallest_design=row.smallest_design,
            largest_design=row.largest_design,
            curvature_bound=0.25,
        ).status
        is theory.BoundStatus.VACUOUS
        for row in blind.itertuples()
    ]
    vacuous = attempt(
        testing.assert_identity,
        np.array(silent, dtype=float),
        1.0,
        rival=0.0,
        statement="S2 is vacuous under blind features",
    )
    return [formula, covered, vacuous]
