"""A8: what `nu` says of the users' diversity, and what a rank above the true one does to it.

Remark 1 calls large `nu` low diversity, Park et al. call large `sigma_k` diversity. `nu <= R^2 / k`
is attained by users spread evenly over k shared directions; users who grow alike bring all but one
singular value, and so `nu`, to 0. Remark 1's reading is right only of the energy outside the k
directions: at fixed total energy what leaves the tail may raise `sigma_k`. A rank above the true
one gives `nu = 0`: every bound is vacuous, and the fit finds the true directions all the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core.statistics import log_log_slope
from simrlhf.metrics import recovery
from simrlhf.study.checking import (
    Check,
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
    statement="A8",
    title="large nu means users spread over the shared directions, not users alike",
    kind=Kind.AUDIT,
    claim="Remark 1: large nu is low diversity, small nu high diversity; Theorem 4.1 for any k",
    procedure="users w_i = (m + h z_i) scaled to norm R, z_i Gaussian in k directions: slope of nu "
    "in their spread h (rate, exponent 2); energy moved from the tail into k even directions; "
    "fits at k = 4 to truths of rank 2: slope of dist to the true plane in n (rate, -1/2)",
    rival="slope 0 in the spread, beyond which nu would fall with diversity, as printed; slope 0 "
    "in n, all that a vacuous bound promises; nu <= R^2 / (k + 1)",
    tolerance="99 % intervals over repetitions; spreads up to .1, where the next order is h^2",
    source="P-ShareLoRA, Remark 1, Theorem 4.1; Park et al., Assumption 2",
)
_REPETITIONS = {"tiny": 12, "smoke": 12, "paper": 60}
_SIZES = {
    "tiny": (200, 400, 1600),
    "smoke": (200, 400, 800, 1600),
    "paper": (200, 400, 800, 1600, 3200, 6400),
}
_SPREADS = (0.003, 0.01, 0.03, 0.1)
_USERS, _D1, _RANK, _NORM = 60, 8, 3, 1.5
_TOO_LARGE = WorldConfig(n_users=10, d1=10, rank=4, deficiency=2, nu=0.25)
_DELTA = 0.05


def measure(size: str) -> dict[str, Any]:
    """Users at every spread; energy inside and outside; fits at a rank that is too large."""
    random = np.random.default_rng(8)
    alike, inside = [], []
    for repetition in range(_REPETITIONS[size]):
        square = np.linalg.qr(random.standard_normal((_D1, _D1)))[0]
        middle, around = random.standard_normal(_RANK), random.standard_normal((_USERS, _RANK))
        middle /= np.linalg.norm(middle)
        for spread in (*_SPREADS, 1.0, 10.0, 100.0):
            directions = middle + spread * around
            directions *= _NORM / np.linalg.norm(directions, axis=1, keepdims=True)
            delta = directions @ square[:, :_RANK].T
            alike.append({"repetition": repetition, "spread": spread, **_described(delta)})
        for share in (0.5, 0.7, 0.9, 1.0):
            inside.append({"repetition": repetition, "share": share, **_energy(share, square)})
    draws = fitted_draws(_TOO_LARGE, _SIZES[size], _REPETITIONS[size], seed=8)
    fits = [
        {
            "repetition": draw.repetition,
            "n_pairs": draw.n_pairs,
            "dist": recovery(draw.world, draw.result)["subspace_distance"],
            "error": np.linalg.norm(draw.result.delta - draw.world.delta),
            "delta": draw.world.delta,
        }
        for draw in draws
    ]
    return {"alike": alike, "inside": inside, "fits": fits}


def _described(delta: np.ndarray) -> dict[str, Any]:
    """`nu` from the Gram matrix, and the mean cosine between users. `delta (N, d1)`."""
    unit = delta / np.linalg.norm(delta, axis=1, keepdims=True)
    cosines = unit @ unit.T
    n_users = len(delta)
    return {
        "nu": np.linalg.svd(delta.T, compute_uv=False)[_RANK - 1] ** 2 / n_users,
        "cosine": (cosines.sum() - n_users) / (n_users * (n_users - 1)),
        "largest_norm": np.linalg.norm(delta, axis=1).max(),
        "delta": delta[:, :, None],
    }


def _energy(share: float, square: np.ndarray) -> dict[str, Any]:
    """Users who spread `share` of their energy evenly over k directions, the rest over the others.

    Equal numbers of users at each direction and its opposite keep all norms at R exactly.
    """
    shared = np.tile(np.repeat([1.0, -1.0], _RANK), _USERS // (2 * _RANK))[:, None]
    own = np.sqrt(share) * shared * square[np.arange(_USERS) % _RANK]
    others = _D1 - _RANK
    rest = np.sqrt(1.0 - share) * square[_RANK + np.arange(_USERS) // (2 * _RANK) % others]
    return _described(_NORM * (own + rest))


def judge(measured: dict[str, Any]) -> Finding:
    """Both readings, the ceiling of nu, and the rank that is too large."""
    alike, inside = pd.DataFrame(measured["alike"]), pd.DataFrame(measured["inside"])
    fits = pd.DataFrame(measured["fits"])
    near = alike[alike["spread"] <= max(_SPREADS)]
    falls = attempt(
        testing.rate,
        near["spread"],
        near["nu"],
        exponent=2.0,
        rival=0.0,
        repetition=near["repetition"],
        statement="nu of users who grow alike",
    )
    energy = attempt(
        testing.rate,
        inside["share"],
        inside["nu"],
        exponent=1.0,
        rival=0.0,
        repetition=inside["repetition"],
        statement="A8, control: Remark 1's reading, energy in the shared directions",
    )
    found = attempt(
        testing.rate,
        fits["n_pairs"],
        fits["dist"],
        exponent=-0.5,
        rival=0.0,
        repetition=fits["repetition"],
        statement="true plane in a fit of too large a rank",
    )
    judgements = [falls, energy, found, *_theory(alike, inside, fits)]
    ends = [alike.loc[alike["spread"] == h, ["cosine", "nu"]].mean() for h in (0.003, 100.0)]
    last = fits.loc[fits["n_pairs"] == fits["n_pairs"].max(), "dist"].mean()
    require_sound(judgements)
    return Finding(
        verdict=Verdict.REFUTED,
        quantity="exponent of nu in the users' spread (printed: negative)",
        measured=falls.measured,
        remark=f"At fixed norms nu goes from {ends[1]['nu']:.3g} (mean cosine between users "
        f"{ends[1]['cosine']:.2f}) to {ends[0]['nu']:.1e} (cosine {ends[0]['cosine']:.3f}): alike "
        "users have small nu, so Park's word is right of the shared directions, and Remark 1's "
        f"only of energy outside them. A fit at k = {_TOO_LARGE.rank} of a truth of rank "
        f"{_TOO_LARGE.true_rank} has nu = 0 and vacuous bounds, yet misses the true plane by "
        f"{last:.3f} only, falling with the slope {found.measured.estimate:.2f} in n; S1 with the "
        "smallest positive singular value in place of sigma_k covers it.",
        judgements=judgements,
        rows=pd.concat(
            table.drop(columns="delta").assign(part=part)
            for part, table in (("alike", alike), ("inside", inside), ("fits", fits))
        ),
        constants={
            "drift_in_spread": log_log_slope(near["spread"], near["nu"]).estimate,
            "slope_in_n_above_rank": found.measured.estimate,
        },
    )


def _theory(alike: pd.DataFrame, inside: pd.DataFrame, fits: pd.DataFrame) -> list[Judgement]:
    """nu as the theory computes it, its ceiling, and its zero."""
    both = pd.concat([alike, inside])
    ours = np.array([theory.diversity_metrics(delta, _RANK).nu for delta in both["delta"]])
    measured = both["nu"].to_numpy()
    formula = attempt(
        testing.assert_identity,
        measured,
        ours,
        rival=np.sqrt(ours / _USERS),
        statement="nu",
    )
    even = inside[inside["share"] == 1.0]
    ceiling = attempt(
        testing.never_violated,
        measured,
        both["largest_norm"].to_numpy() ** 2 / _RANK,
        tight=(even["nu"].to_numpy(), even["largest_norm"].to_numpy() ** 2 / _RANK),
        rival=even["largest_norm"].to_numpy() ** 2 / (_RANK + 1),
        statement="nu <= R^2 / k",
    )
    silent = [_printed(row) for row in fits.itertuples()]
    vacuous = attempt(
        testing.assert_identity,
        silent,
        0.0,
        # what a nu of the smallest positive singular value would make of it
        rival=[_printed(row, nu=_TOO_LARGE.nu) for row in fits.itertuples()],
        scale=1.0 / theory.distance_ceiling(_TOO_LARGE.rank, _TOO_LARGE.d1),
        statement="reciprocal of Theorem 4.1 at a rank above the true one",
    )
    return [formula, ceiling, vacuous, *_covered(fits)]


def _covered(fits: pd.DataFrame) -> list[Judgement]:
    """S1 at the true rank: `sigma_k` gives way to the smallest positive singular value."""
    ceiling = theory.distance_ceiling(_TOO_LARGE.true_rank, _TOO_LARGE.d1)
    sigma, error = _TOO_LARGE.smallest_value, fits["error"].to_numpy()
    bounds = [theory.geometry_bound(e, sigma_k=sigma, ceiling=ceiling).value for e in error]
    written = attempt(
        testing.assert_identity,
        bounds,
        error / sigma,
        rival=(error / sigma) ** 2,
        statement="S1",
    )
    covered = attempt(
        testing.never_violated,
        fits["dist"].to_numpy(),
        bounds,
        rival=error / (sigma * math.sqrt(_TOO_LARGE.n_users)),  # N twice
        statement="S1 with the smallest positive singular value",
    )
    return [written, covered]


def _printed(row: Any, nu: float | None = None) -> float:
    """Reciprocal of Theorem 4.1 with `c_1 = 1`: 0 where it says nothing."""
    rank, n_users, d1 = _TOO_LARGE.rank, _TOO_LARGE.n_users, _TOO_LARGE.d1
    size = theory.log_bracketing_number(
        n_users=n_users, n_pairs=row.n_pairs, d1=d1, d2=1, rank=rank, delta=_DELTA
    )
    bound = theory.theorem_4_1(
        log_bracketing=size.value,
        n_users=n_users,
        n_pairs=row.n_pairs,
        nu=theory.diversity_metrics(row.delta, rank).nu if nu is None else nu,
        tail_energy=0.0,
        rank=rank,
        d1=d1,
    )
    return 0.0 if math.isinf(bound.value) else 1.0 / bound.value
