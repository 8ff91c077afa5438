"""A1 in value: how the gap of greedy policies falls with n depends on the margins.

With `P(|margin| <= t) ~ t^alpha` near 0 a wrong choice costs its margin, of the size of the error
`n^{-1/2}`, and has probability `n^{-alpha/2}`: gap `~ n^{-(1 + alpha)/2}`. Remark 3's `1 / eps` is
right at alpha = 1, a positive density at 0, and too little below. Where margins may be as small as
the errors, for every n (Park's Theorem 3.3), the gap is `n^{-1/2}` and pairs grow as `1 / eps^2`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from simrlhf import testing
from simrlhf.estimators import fit
from simrlhf.study.checking import (
    Check,
    Finding,
    Kind,
    Verdict,
    attempt,
    fitted_draws,
    require_sound,
    samples,
)
from simrlhf.study.checking.lower_bound import (
    largest_concentrability,
    lower_bound_config,
    mean_gap,
)
from simrlhf.world import DecisionConfig, WorldConfig

CHECK = Check(
    statement="A1v",
    title="the value gap falls with a power that the margins decide",
    kind=Kind.AUDIT,
    claim="Remark 3 of the value gap: the pairs needed grow as 1/eps, that is gap ~ 1/n",
    procedure="greedy policies in bandits whose margins have the exponent alpha, exact values: "
    "slope of the mean gap in n is -(1 + alpha)/2 for alpha = 1/2, 1, 2; in Park's construction "
    "with gaps Lambda sqrt(k/n) it is -1/2; fits of full, whose errors have most directions to "
    "average over, as the power is the margins' (L4 has share_b)",
    rival="the printed slope -1, and -1/2 where the printed one is right",
    tolerance="99 % intervals over worlds",
    source="P-ShareLoRA, Remark 3, Corollary 4.1; Park et al., Theorem 3.3",
)
_ALPHAS = (0.5, 1.0, 2.0)
_SIZES = {
    "tiny": (600, 1800, 5400),
    "smoke": (800, 1600, 3200, 6400),
    "paper": (800, 1600, 3200, 6400, 12800, 25600),
}
_REPETITIONS = {"tiny": 16, "smoke": 16, "paper": 100}
# contexts of each user: fewer would leave none within the errors at the largest n
_CONTEXTS = {0.5: 1000, 1.0: 1000, 2.0: 4000}
_USERS = 12
# Park's construction: k contexts, concentrability Lambda
_RANK, _LAMBDA = 12, 2.0
_LOWER_SIZES = {
    "tiny": (400, 1600, 6400),
    "smoke": (400, 2400, 14400),
    "paper": (400, 1600, 6400, 25600, 102400),
}


def measure(size: str) -> dict[str, Any]:
    """Mean gaps of nested samples; in the lower bound's construction of a world for every n."""
    repetitions = _REPETITIONS[size]
    rows = [
        {
            "family": _family(alpha),
            "alpha": alpha,
            "n_pairs": draw.n_pairs,
            "repetition": draw.repetition,
            "gap": mean_gap(draw.world, draw.result.delta),
        }
        for alpha in _ALPHAS
        for draw in fitted_draws(
            _margins(alpha), _SIZES[size], repetitions, estimator="full", norm_bound=6.0, seed=10
        )
    ]
    rows += _lower_bound_rows(_LOWER_SIZES[size], repetitions)
    return {"rows": pd.DataFrame(rows)}


def _family(alpha: float) -> str:
    return f"alpha = {alpha:g}"


def _margins(alpha: float) -> WorldConfig:
    return WorldConfig(
        n_users=_USERS,
        d1=4,
        rank=2,
        condition=1.3,
        user_norms="equal",
        features="trajectories",
        decision=DecisionConfig(
            mdp="margin",
            n_states=_USERS * _CONTEXTS[alpha],
            behaviour="contrast",
            margin_exponent=alpha,
        ),
    )


def _lower_bound_rows(sizes: tuple[int, ...], repetitions: int) -> Iterator[dict[str, Any]]:
    for n_pairs in sizes:
        config = lower_bound_config(n_pairs=n_pairs, rank=_RANK, scale=_LAMBDA)
        for world, sample, _, repetition in samples(config, (n_pairs,), repetitions, seed=11):
            # a bound, for a few contexts are seen with one answer only; the choice is its sign
            result = fit(sample, estimator="full", norm_bound=20.0)
            yield {
                "family": "lower bound",
                "alpha": math.nan,
                "n_pairs": n_pairs,
                "repetition": repetition,
                "gap": mean_gap(world, result.delta),
                "largest_concentrability": largest_concentrability(world),
            }


def judge(measured: dict[str, Any]) -> Finding:
    """Every family has its own slope, and the printed one is that of alpha = 1."""
    rows = measured["rows"]
    claims = {_family(alpha): -(1.0 + alpha) / 2.0 for alpha in _ALPHAS} | {"lower bound": -0.5}
    slopes = {}
    for family, exponent in claims.items():
        mine = rows[rows["family"] == family]
        slopes[family] = attempt(
            testing.rate,
            mine["n_pairs"],
            mine["gap"],
            exponent=exponent,
            rival=-1.0 if exponent != -1.0 else -0.5,
            repetition=mine["repetition"],
            statement=f"A1 in value, {family}",
        )
    covered = rows["largest_concentrability"].dropna()
    judgements = [
        *slopes.values(),
        attempt(
            testing.never_violated,
            covered,
            _LAMBDA * (1.0 + 1e-12),
            # a user who prefers action 1 everywhere attains it
            tight=([_LAMBDA], [_LAMBDA]),
            rival=0.5 * _LAMBDA,
            statement="concentrability of the lower bound's construction",
        ),
    ]
    require_sound(judgements)
    off = [not one.measured.low <= -1.0 <= one.measured.high for one in slopes.values()]
    said = ", ".join(
        f"{one.measured.estimate:.2f} ({one.measured.low:.2f} to {one.measured.high:.2f}) "
        f"{'in the construction of the lower bound' if name == 'lower bound' else f'at {name}'}"
        for name, one in slopes.items()
    )
    return Finding(
        verdict=Verdict.REFUTED if any(off) else Verdict.HOLDS,
        quantity="slope of the value gap in n at alpha = 1/2 (printed: -1)",
        measured=slopes[_family(0.5)].measured,
        remark=f"Slopes in n: {said}. 1/eps is right where the margin has a positive density at 0 "
        "(alpha = 1); with more small margins, and in the worst case for every n, pairs grow up to "
        "1/eps^2.",
        judgements=judgements,
        rows=rows,
        constants={f"slope, {name}": one.measured.estimate for name, one in slopes.items()},
    )
