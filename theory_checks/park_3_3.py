"""Park's Theorem 3.3: on some instance every method loses `C Lambda sqrt(k / n)` at least.

In the construction of its proof the signs of k rewards `g = Lambda sqrt(k / n)` are to be told. If
they are independent and fair, the choice by majority loses least of all on average, namely
`g P(the majority is wrong)`, a binomial sum that tends to `.31 g`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from simrlhf import policy, testing, theory
from simrlhf.core import statistics
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit
from simrlhf.study.checking import Check, Finding, Kind, attempt, samples, sweeps
from simrlhf.study.checking.by_hand import written_out
from simrlhf.study.checking.lower_bound import (
    largest_concentrability,
    lower_bound_config,
    majorities,
    mean_gap,
    worth,
)
from simrlhf.theory import BoundStatus
from simrlhf.world import World

CHECK = Check(
    statement="Park 3.3",
    title="a value gap that no method undercuts",
    kind=Kind.PRINTED,
    claim="inf over methods, sup over instances of the gap >= C Lambda sqrt(k/n), for k > 6, "
    "n >= C k Lambda^2, Lambda >= 2",
    procedure="the construction (k signs of rewards Lambda sqrt(k/n)), sweeps of n, k and Lambda "
    "around n = 800, k = 8, Lambda = 2: slopes of the mean gap of the choice by majority, which "
    "is the Bayes choice and the greedy one of full; share_b of half the rank, global and "
    "pessimism in the base cell; the drift of the smallest C",
    rival="n^-1, k^1, Lambda^0; half of g, the loss of a choice by a coin; half of each method's",
    tolerance="99 % intervals over worlds; of the inf over methods only that none of ours loses "
    "less than the Bayes choice",
    source="Park et al., Theorem 3.3; theory.md, section 3",
)
_BASE = {"n": 800.0, "k": 8.0, "Lambda": 2.0}
_FEW: dict[str, tuple[float, ...]] = {
    "n": (100, 400, 1600),
    "k": (7, 10, 15),
    "Lambda": (2, 3, 4.5),
}
_VALUES = {
    "tiny": _FEW,
    "smoke": _FEW,
    "paper": {"n": (200, 800, 3200, 12800), "k": (7, 9, 12, 15), "Lambda": (2, 3, 4.5)},
}
_REPETITIONS = {"tiny": 20, "smoke": 30, "paper": 400}
_BASE_REPETITIONS = {"tiny": 6, "smoke": 16, "paper": 400}
_EXPONENTS = {"n": (-0.5, -1.0), "k": (0.5, 1.0), "Lambda": (1.0, 0.0)}


def measure(size: str) -> dict[str, Any]:
    """Mean gaps of every method in the base cell, and of the majority in the sweeps."""
    rows = list(_cell("base", 1.0, _BASE_REPETITIONS[size], every_method=True))
    for axis, values in _VALUES[size].items():
        for value in values:
            rows += _cell(axis, value, _REPETITIONS[size])
    return {"rows": pd.DataFrame(rows)}


def _cell(
    axis: str, value: float, repetitions: int, *, every_method: bool = False
) -> Iterator[dict[str, Any]]:
    at = _BASE | ({axis: value} if axis in _BASE else {})
    n_pairs, rank = int(at["n"]), int(at["k"])
    config = lower_bound_config(n_pairs=n_pairs, rank=rank, scale=at["Lambda"])
    for world, sample, _, repetition in samples(config, (n_pairs,), repetitions, seed=33):
        votes = majorities(world, sample)
        chosen = {"majority": (mean_gap(world, votes), 1.0)}
        if every_method:
            chosen |= _other_methods(world, sample, votes)
        covered = largest_concentrability(world)
        for method, (gap, agreement) in chosen.items():
            yield {
                "swept": axis,
                "value": float(value),
                "repetition": repetition,
                "method": method,
                **at,
                "gap": gap,
                "agreement": agreement,
                "concentrability": covered,
            }


def _other_methods(
    world: World, sample: Preferences, votes: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Mean gap of each method, and the share of its choices that are the clear majority's."""
    mdp, behaviours = world.mdp, world.behaviours
    assert mdp is not None
    assert behaviours is not None
    # a bound, for a few contexts are seen with one answer only; the choice is its sign
    full = fit(sample, estimator="full", norm_bound=20.0).delta
    half = fit(sample, rank=world.config.rank // 2, norm_bound=20.0).delta
    pooled = np.broadcast_to(fit(sample, estimator="global", norm_bound=20.0).delta, full.shape)
    found = {
        name: (mean_gap(world, delta), _agreement(world, votes, delta))
        for name, delta in (("full", full), ("share_b", half), ("global", pooled))
    }
    # the mean square of the error of full in the design norm, where a reward's variance is 4
    radius = np.sqrt(4.0 * world.config.rank * world.n_users / sample.n_total)
    sets = policy.design_ellipsoid(full, policy.pair_moments(mdp, behaviours), radius)
    plan = policy.pessimistic_policy(mdp, sets, reference=behaviours.second, tol=1e-3)
    best = policy.optimal_policy(mdp, world.theta).value
    lost = best - policy.value(mdp, plan.policy, world.theta)
    return found | {"pessimistic": (float(lost.mean()), np.nan)}


def _agreement(world: World, votes: np.ndarray, delta: np.ndarray) -> float:
    """Share of the contexts with a clear majority in which greedy on `delta` goes with it."""
    net, rewards = (world.basis.T @ matrices for matrices in (votes, delta))
    clear = np.abs(net) > 0.5
    return float((np.sign(net) == np.sign(rewards))[clear].mean())


def judge(measured: dict[str, Any]) -> Finding:
    """Slopes, the Bayes risk, who comes nearest to it, and the drift of the constant."""
    rows = measured["rows"].copy()
    cells = list(zip(rows["n"], rows["k"], rows["Lambda"], strict=True))
    rows["bound"] = [_bound(*cell) for cell in cells]
    known = {cell: _bayes_risk(*cell) for cell in set(cells)}
    rows["risk"] = [known[cell] for cell in cells]
    mine = rows[(rows["method"] == "majority") & (rows["swept"] != "base")]
    found = testing.calibrate(
        mine["bound"],
        mine["gap"],
        variables=sweeps.variables(mine),
        repetition=mine["repetition"],
        towards=dict.fromkeys(_EXPONENTS, "infinity"),
    )
    slopes = {axis: _slope(mine[mine["swept"] == axis], axis) for axis in _EXPONENTS}
    base = rows[rows["swept"] == "base"]
    table = base.pivot_table(index="repetition", columns="method", values="gap")
    over = table.mean() / float(base["risk"].iloc[0])
    said = ", ".join(f"{value:.2f} ({name})" for name, value in over.items())
    smallest = _smallest_ratio(rows)
    return sweeps.printed(
        found,
        [_same_choice(base), _exact_risk(mine), _covered(rows), *_formulas()],
        claims=[*slopes.values(), _nobody_below(table)],
        quantity="smallest mean gap over Lambda sqrt(k/n), any method and cell",
        measured=smallest,
        remark=f"C = {smallest.estimate:.2f} would do here. The mean gap of the Bayes choice, "
        "which is greedy on full, goes as "
        + ", ".join(
            f"{axis}^{one.measured.estimate:.2f} ({one.measured.low:.2f} to "
            f"{one.measured.high:.2f})"
            for axis, one in slopes.items()
        )
        + f"; over the exact Bayes risk, mean gaps are {said}. Nothing here loses less; that "
        "nothing else can is the theorem.",
        rows=rows,
    )


def _smallest_ratio(rows: pd.DataFrame) -> statistics.Interval:
    ratios = (rows["gap"] / rows["bound"]).groupby([rows["swept"], rows["value"], rows["method"]])
    found = [statistics.mean_interval(cell.to_numpy(), confidence=0.99) for _, cell in ratios]
    return min(found, key=lambda one: one.estimate)


def _slope(mine: pd.DataFrame, axis: str) -> testing.Judgement:
    exponent, rival = _EXPONENTS[axis]
    return attempt(
        testing.rate,
        mine["value"],
        mine["gap"],
        exponent=exponent,
        rival=rival,
        repetition=mine["repetition"],
        statement=f"Park 3.3, power of {axis}",
    )


def _bound(n_pairs: float, rank: float, scale: float) -> float:
    return theory.park_theorem_3_3(n_pairs=n_pairs, rank=int(rank), concentrability=scale).value


def _bayes_risk(n_pairs: float, rank: float, scale: float) -> float:
    """`g P(a binomial of m with odds e^g is below m / 2)`, m the comparisons of a context.

    At a tie action 0 is taken, which is wrong for half of the users.
    """
    g = worth(n_pairs=n_pairs, rank=rank, scale=scale)
    m = np.arange(int(n_pairs) + 1)
    law = scipy.stats.binom.pmf(m, n_pairs, 1.0 / (rank * scale**2))
    m, law = m[law > 1e-16], law[law > 1e-16]
    wins = scipy.stats.binom(m, 1.0 / (1.0 + np.exp(-g)))
    wrong = wins.cdf(np.ceil(m / 2) - 1) + 0.5 * np.where(m % 2 == 0, wins.pmf(m // 2), 0.0)
    return float(g * np.sum(law * wrong))


def _same_choice(base: pd.DataFrame) -> testing.Judgement:
    """Greedy on the fit of full is the choice by majority, wherever there is one."""
    share = base.pivot_table(index="repetition", columns="method", values="agreement")
    return attempt(
        testing.assert_identity,
        share["majority"],
        share["full"],
        rival=share["share_b"],
        statement="greedy on full is the choice by majority",
    )


def _exact_risk(mine: pd.DataFrame) -> testing.Judgement:
    return attempt(
        testing.limit,
        mine["gap"],
        mine["risk"],
        rival=0.5 * mine["bound"],
        repetition=mine["repetition"],
        curve=mine["swept"] + mine["value"].astype(str),
        statement="the majority's mean gap is the Bayes risk",
    )


def _nobody_below(table: pd.DataFrame) -> testing.Judgement:
    """Paired with the majority on the same worlds, whose own gap is held to the exact risk."""
    more = [
        statistics.mean_interval((table[name] - table["majority"]).to_numpy(), confidence=0.99)
        for name in table.columns
        if name != "majority"
    ]
    least = float(table["majority"].mean())
    most = least + np.array([one.high for one in more])
    return attempt(
        testing.never_violated,
        np.full(most.size, least),
        most,
        rival=0.5 * most,
        statement="no method's mean gap lies below that of the Bayes choice",
    )


def _covered(rows: pd.DataFrame) -> testing.Judgement:
    return attempt(
        testing.never_violated,
        rows["concentrability"],
        rows["Lambda"] * (1.0 + 1e-12),
        # a user who prefers action 1 everywhere attains it
        tight=(rows["Lambda"], rows["Lambda"]),
        rival=0.5 * rows["Lambda"],
        statement="concentrability of the construction",
    )


def _formulas() -> list[testing.Judgement]:
    """The formula written out, and each of its conditions."""
    given = {"rank": 8, "concentrability": 2.5, "constant": 0.7, "size_constant": 1.5}
    value = theory.park_theorem_3_3(n_pairs=76.0, **given).value
    refused = [
        {"n_pairs": 74.0, **given},  # 1.5 * 8 * 2.5^2 = 75
        {"n_pairs": 76.0, **given, "rank": 6},
        {"n_pairs": 76.0, **given, "concentrability": 1.9},
    ]
    told = [theory.park_theorem_3_3(**one).status is BoundStatus.NOT_APPLICABLE for one in refused]
    plain = theory.park_theorem_3_3(n_pairs=50.0, rank=8, concentrability=2.5).value
    return written_out(
        {
            "Park 3.3 written out": (value, 0.7 * 2.5 * (8.0 / 76.0) ** 0.5),
            "Park 3.3, constants of 1": (plain, 2.5 * (8.0 / 50.0) ** 0.5),
            "Park 3.3, its conditions": (float(sum(told)), 3.0),
        }
    )
