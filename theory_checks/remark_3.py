"""Remark 3: pairs per user for a mean value gap, and by how much sharing lowers them.

Printed: `k (d1 + N d2) log(N/delta) / (N eps)` for share_b, `d1 d2 log(N/delta) / eps` for full.
For greedy choices between two actions with features `N(0, I)` the gap is
`||Theta|| (1 - cos alpha) / sqrt(pi)`, alpha the angle of the estimate, so `n E gap` has the limit
of L4: an error along Theta costs nothing, one parameter less for each user.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.estimators import fit
from simrlhf.study.checking import Check, Finding, Kind, attempt, samples, sweeps
from simrlhf.study.checking.by_hand import written_out
from simrlhf.study.checking.limit_worlds import ingredients, once_per_world
from simrlhf.testing import Judgement
from simrlhf.world import World, WorldConfig

DELTA = 0.05
TARGET = 0.01
CHECK = Check(
    statement="Remark 3",
    title="pairs per user of share_b and of full for one value gap",
    kind=Kind.PRINTED,
    claim="n = O(k (d1 + N d2) log(N/delta)/(N eps)) for share_b, O(d1 d2 log(N/delta)/eps) for "
    "full, O(k (d1 + N) log(N/delta)/(N eps)) for Park at d2 = 1",
    procedure="gaps of greedy choices between two actions, exact, at nested n in worlds of N = 8, "
    "32 users, d1 = 4, 8, k = 1, 2: power of n; n E gap of both classes against the limits (L4), "
    "and share_b's log-loss against L3; every run's pairs for eps = .01 over what is printed, and "
    "the drift of that constant in N for share_b at k = 1 and in d1 for full",
    rival="n^-1/2; for share_b's gap, full's limit over the printed ratio N d1 d2/(k (d1 + N d2)); "
    "for full's, one that the scale of Theta enters; for share_b's log-loss, one LoRA for each "
    "user",
    tolerance="99 % intervals over worlds; a drift counts from 1/2 on, half of a factor; N and d1 "
    "go to infinity. Of share_b d1 is not swept: its ratio saturates beyond N only",
    source="P-ShareLoRA, Remark 3; theory.md, sections 3 and 5",
)


class Cell(NamedTuple):
    """A kind of world, by its sizes."""

    n_users: int
    d1: int
    rank: int


_BASE, _MANY = Cell(8, 4, 1), Cell(32, 4, 1)
_CELLS = {
    "tiny": (_BASE, _MANY, Cell(8, 4, 2)),
    "smoke": (_BASE, _MANY, Cell(8, 8, 1), Cell(8, 4, 2)),
    "paper": (_BASE, Cell(16, 4, 1), _MANY, Cell(8, 8, 1), Cell(8, 4, 2), Cell(32, 8, 2)),
}
_ESTIMATORS = ("share_b", "full")
_SIZES = {"tiny": (100, 400, 800), "smoke": (100, 400, 800), "paper": (400, 1600, 6400)}
_REPETITIONS = {"tiny": 20, "smoke": 20, "paper": 300}


def measure(size: str) -> dict[str, Any]:
    """Gaps, errors and truths of both classes on the same samples."""
    runs = []
    for cell in _CELLS[size]:
        drawn = samples(_config(cell), _SIZES[size], _REPETITIONS[size], seed=3)
        for world, sample, n_pairs, repetition in drawn:
            for estimator in _ESTIMATORS:
                rank = cell.rank if estimator == "share_b" else None
                found = fit(sample, estimator=estimator, rank=rank, norm_bound=6.0).delta
                runs.append(
                    {
                        "cell": cell,
                        "estimator": estimator,
                        "n_pairs": n_pairs,
                        "repetition": repetition,
                        "world": world,
                        "gap": _gap(world.delta, found),
                        "errors": (found - world.delta).reshape(cell.n_users, -1),
                    }
                )
    return {"runs": runs}


def _config(cell: Cell) -> WorldConfig:
    # norms of 1, whatever the rank
    return WorldConfig(
        n_users=cell.n_users, d1=cell.d1, rank=cell.rank, nu=1.0 / cell.rank, condition=1.0,
        user_norms="equal",
    )  # fmt: skip


def _gap(truth: np.ndarray, found: np.ndarray) -> float:
    """Mean of `||Theta|| (1 - cos alpha) / sqrt(pi)`."""
    norm = np.linalg.norm(truth, axis=(1, 2))
    cosine = np.sum(truth * found, axis=(1, 2)) / (norm * np.linalg.norm(found, axis=(1, 2)))
    return float(np.mean(norm * (1.0 - cosine)) / math.sqrt(math.pi))


def judge(measured: dict[str, Any]) -> Finding:
    """The power of n, both limits, and the drift of the printed constant."""
    rows = _with_limits(measured["runs"])
    slopes = {
        name: attempt(
            testing.rate, mine["n_pairs"], mine["gap"], exponent=-1.0, rival=-0.5,
            repetition=mine["repetition"], curve=mine["cell"],
            statement=f"Remark 3, power of n of the gap, {name}",
        )
        for name, mine in rows.groupby("estimator")
    }  # fmt: skip
    pairs = _pairs(rows)
    found = _calibrated(pairs)
    table = _ratios(pairs)
    said = "; ".join(
        f"{cell}: {row['pairs']:.1f} times (printed {row['printed']:.1f}, limit {row['limit']:.1f})"
        for cell, row in table.iterrows()
    )
    return sweeps.printed(
        found,
        [*_judged_limits(rows), *_formulas()],
        claims=list(slopes.values()),
        quantity="power of n of share_b's gap (printed: -1)",
        measured=slopes["share_b"].measured,
        remark=f"Pairs of full over those of share_b for the same gap, {said}. Sharing is worth up "
        f"to {(table['limit'] / table['printed']).max():.1f} times more than printed, without "
        "limit in N at k = 1: k (d1 + N d2) counts the users' scales, on which no choice depends, "
        f"and the k^2 rotations of the basis. c = {found.constant:.2g} covers; its slopes: "
        f"{found.spelt()}. 1/eps is right here, where margins have a density at 0, and too little "
        "elsewhere (A1v).",
        rows=rows,
        more={f"ratio, {cell}": float(row["pairs"]) for cell, row in table.iterrows()},
    )


def _judged_limits(rows: pd.DataFrame) -> list[Judgement]:
    """`n E gap` of both classes, with which their ratio is known, and share_b's log-loss."""
    shared = rows["estimator"] == "share_b"
    # of full, a gap that depends on the scale of Theta too
    with_scale = rows["gap_limit"] * rows["d1"] / (rows["d1"] - 1.0)
    by_print = rows.assign(wrong=rows["gap_by_print"].where(shared, with_scale))
    alone = rows.assign(wrong=rows["loss_alone"])[shared]
    return [
        attempt(
            testing.limit, mine[name], mine[f"{name}_limit"], rival=mine["wrong"],
            x=mine["n_pairs"], repetition=mine["repetition"],
            curve=mine["cell"] + ", " + mine["estimator"], statement=statement,
        )
        for name, mine, statement in (
            ("gap", by_print, "value gaps of both classes (L4)"),
            ("loss", alone, "log-loss of share_b (L3)"),
        )
    ]  # fmt: skip


def _calibrated(pairs: pd.DataFrame) -> testing.Calibration:
    """The constant of what is printed, in N for share_b and in d1 for full."""
    swept = {
        "N": (pairs["estimator"] == "share_b") & (pairs["d1"] == _BASE.d1),
        "d1": (pairs["estimator"] == "full") & (pairs["N"] == _BASE.n_users),
    }
    variables = {
        name: pairs[name].where(on & (pairs["k"] == _BASE.rank)) for name, on in swept.items()
    }
    return testing.calibrate(
        pairs["pairs"],
        pairs["printed"],
        variables={name: of for name, of in variables.items() if of.nunique() > 1},
        repetition=pairs["repetition"],
        tolerance=sweeps.HALF_A_FACTOR,
    )


def _with_limits(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Measured and limiting `n E gap` and `n E sum_i e' H_i e` of every run."""
    known = once_per_world([(run["world"], run["n_pairs"]) for run in runs], _limits)
    rows = []
    for run, limits in zip(runs, known, strict=True):
        cell, n, estimator = run["cell"], run["n_pairs"], run["estimator"]
        sizes = {"n_users": cell.n_users, "d1": cell.d1, "d2": 1, "rank": cell.rank}
        informations = ingredients(run["world"], n).informations
        printed = cell.n_users * cell.d1 / (cell.rank * (cell.d1 + cell.n_users))
        kind = "joint" if estimator == "share_b" else "full"
        loss = np.einsum("np,npq,nq->", run["errors"], informations, run["errors"])
        rows.append(
            {
                "cell": f"N = {cell.n_users}, d1 = {cell.d1}, k = {cell.rank}",
                "N": cell.n_users,
                "d1": cell.d1,
                "k": cell.rank,
                "estimator": estimator,
                "n_pairs": n,
                "repetition": run["repetition"],
                "gap": run["gap"],
                "gap_limit": limits[kind] / n,
                "gap_by_print": limits["full"] / printed / n,
                "loss": float(loss),
                "loss_limit": theory.parameter_count(estimator, **sizes) / n,
                "loss_alone": theory.parameter_count("local", **sizes) / n,
            }
        )
    return pd.DataFrame(rows)


def _limits(world: World, n_pairs: int) -> dict[str, float]:
    """Limits of `n E gap`, mean over the users; features of the two actions are `N(0, I)`."""
    given = ingredients(world, n_pairs)
    return {
        kind: float(
            theory.gaussian_value_gap_limit(
                world.theta, theory.reward_covariances(*given, kind=kind)
            ).mean()
        )
        for kind in ("joint", "full")
    }


def _pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs at which the gap of every run falls to the target, by its own curve `c / n`."""
    sizes = ["N", "d1", "k", "estimator"]
    scaled = rows.assign(
        pairs=rows["gap"] * rows["n_pairs"] / TARGET,
        limit=rows["gap_limit"] * rows["n_pairs"] / TARGET,
    )
    found = scaled.groupby(["cell", *sizes, "repetition"], as_index=False)[
        ["pairs", "limit"]
    ].mean()
    printed = {key: _needed(*key) for key, _ in found.groupby(sizes)}
    return found.assign(
        printed=[printed[key] for key in zip(*(found[name] for name in sizes), strict=True)]
    )


def _needed(n_users: int, d1: int, rank: int, estimator: str) -> float:
    found = theory.pairs_needed(
        TARGET, n_users=int(n_users), d1=int(d1), d2=1, rank=int(rank), nu=1.0 / rank,
        tail_energy=0.0, delta=DELTA, model_class="park" if estimator == "share_b" else "full",
    )  # fmt: skip
    assert found is not None
    return float(found)


def _ratios(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of full over those of share_b in every cell: measured, printed, in the limit."""
    means = pairs.groupby(["cell", "estimator"])[["pairs", "printed", "limit"]].mean()
    full, shared = (means.xs(name, level="estimator") for name in ("full", "share_b"))
    return full / shared


def _formulas() -> list[Judgement]:
    """`pairs_needed` in both readings and for all classes, by formulas of our own."""
    given = {"n_users": 7, "d1": 5, "d2": 3, "rank": 2, "nu": 0.6, "delta": 0.1}
    log, share, full = math.log(7 / 0.1), 2 * (5 + 7 * 3), 7 * 5 * 3
    bias = (0.002 / 7) ** 0.25
    narrow = {**given, "d2": 1}
    needed = theory.pairs_needed
    told = {
        "share_b, printed": (
            needed(0.15, **given, tail_energy=0.002, constant=0.7),
            math.ceil(0.7 * share * log / (7 * (0.15 - bias))),
        ),
        "share_b, printed, constant 1": (
            needed(0.01, **given, tail_energy=0.0), math.ceil(share * log / (7 * 0.01))
        ),
        "full, printed": (
            needed(0.01, **given, tail_energy=0.002, model_class="full", constant=0.7),
            math.ceil(0.7 * full * log / (7 * 0.01)),
        ),
        "park, printed": (
            needed(0.01, **narrow, tail_energy=0.0, model_class="park"),
            math.ceil(2 * (5 + 7) * log / (7 * 0.01)),
        ),
        "share_b, corollary": (
            needed(0.4, **given, tail_energy=0.002, reading="corollary", constant=0.7),
            _by_bisection(0.4, share, constant=0.7, tail_energy=0.002, heads=2 * 3),
        ),
        "park, corollary": (
            needed(0.05, **narrow, tail_energy=0.0, reading="corollary", model_class="park"),
            _by_bisection(0.05, 2 * (5 + 7), constant=1.0, tail_energy=0.0, heads=2),
        ),
        "full, corollary": (
            needed(0.05, **given, tail_energy=0.002, reading="corollary", model_class="full",
                   constant=0.7),
            math.ceil(0.7**2 * (5 * 3 + log) / 0.05**2),
        ),
    }  # fmt: skip
    # a target below the bias is promised by no n
    none = [
        needed(0.9 * bias, **given, tail_energy=0.002) is None,
        needed(1.1 * bias, **given, tail_energy=0.002) is not None,
        needed(0.9 * bias, **given, tail_energy=0.002, model_class="full") is not None,
    ]
    found = {name: (float(n or math.nan), float(hand)) for name, (n, hand) in told.items()}
    return written_out(found | {"targets around the bias": (float(sum(none)), 3.0)})


def _by_bisection(
    target: float, parameters: int, *, constant: float, tail_energy: float, heads: int
) -> int:
    """Smallest whole n at which Corollary 4.1 is at most the target, by halving."""
    n_users, nu, delta = 7, 0.6, 0.1

    def enough(n: int) -> bool:
        inside = parameters * math.log(n_users * n / delta) / (n_users * n * nu)
        inside += (heads + math.log(n_users / delta)) / n + math.sqrt(tail_energy / n_users) / nu
        return constant * math.sqrt(inside) <= target

    low, high = 1, 2**40
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
