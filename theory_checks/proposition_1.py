"""Proposition 1: the bracketing number of the shared class, with the constant behind its O.

`log(N_br(1 / (N n)) / delta) <= O( k (d1 + N d2) log(N n / delta) )`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.special

from simrlhf import testing, theory
from simrlhf.core import links
from simrlhf.study.checking import Check, Finding, Kind, Verdict, attempt, exactly, require_sound

DELTA = 0.05
CHECK = Check(
    statement="Proposition 1",
    title="bracketing number of the shared class",
    kind=Kind.PRINTED,
    claim="log(N_br(1/(N n))/delta) <= C k (d1 + N d2) log(N n/delta), one C",
    procedure="from above: the explicit bound of the proof over the printed bracket, sizes swept "
    "over decades, and its limits; from below, where members can be listed (d1 = 2, k = 1): "
    "members that no bracket holds together, their number's power of 1/epsilon against "
    "k (d1 + N d2)",
    rival="C = 1 + log(1 + 16 S)/log(N n/delta), as if the L1 norm over users cost nothing; a "
    "dimension without the basis; for the full and the local class the shared dimension",
    tolerance="rounding: counts and closed forms. REFUTED if the explicit bound needs more than "
    "C = 2 + log(1 + 16 S) / log(N n / delta) at some sizes, S = C_R X R, or if the members that "
    "can be listed are more than the printed power of 1/epsilon",
    source="P-ShareLoRA, Proposition 1, proof C.1",
)
_BASE = {"N": 10, "n": 400, "d1": 12, "d2": 1, "k": 2, "S": 1.0}
_SWEPT = {
    "N": (1, 10, 100, 10**4, 10**6),
    "n": (1, 10, 100, 10**4, 10**6),
    "d1": (3, 12, 100, 10**4),
    "d2": (1, 10, 100),
    "k": (1, 2, 12),
    "S": (0.1, 1.0, 10.0, 1e3, 1e6),
}
# candidates, and seeds of them, from which members that are far apart are chosen
_CANDIDATES = {"tiny": (3000, 2), "smoke": (6000, 5), "paper": (20000, 20)}
# few enough members are this far apart for the candidates to fill the class
_EPSILONS = {1: (0.4, 0.2, 0.1), 2: (1.6, 0.8, 0.4)}
_REACH = 4.0


def measure(size: str) -> dict[str, Any]:
    """The cells of the sweeps, and numbers of members that no bracket holds together."""
    cells = [
        {"swept": axis, "value": float(value), **_BASE, axis: value}
        for axis, values in _SWEPT.items()
        for value in values
    ]
    candidates, seeds = _CANDIDATES[size]
    packings = [
        {"N": n_users, "seed": seed, "epsilon": epsilon, "apart": _apart(members, epsilon)}
        for n_users in _EPSILONS
        for seed in range(seeds)
        for members in (_laws(np.random.default_rng(seed), n_users, candidates),)
        for epsilon in _EPSILONS[n_users]
    ]
    return {"rows": pd.DataFrame(cells), "packings": pd.DataFrame(packings)}


def _laws(random: np.random.Generator, n_users: int, count: int) -> np.ndarray:
    """Label probabilities `(count, pairs, N)` of random members, on pairs of norm 1."""
    angle = random.uniform(0.0, np.pi, count)
    heads = random.uniform(-_REACH, _REACH, (count, n_users))
    basis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    probes = np.pi * np.arange(8) / 8
    pairs = np.stack([np.cos(probes), np.sin(probes)], axis=1)
    return scipy.special.expit(np.einsum("tp,mp,tn->tmn", basis, pairs, heads))


def _apart(laws: np.ndarray, epsilon: float) -> int:
    """Members chosen one by one, each more than epsilon from all before in L1 at some pair.

    Two members of one bracket are at most epsilon apart, so this is a lower bound of `N_br`.
    """
    left, number = laws, 0
    while left.shape[0]:
        # both labels differ by as much
        distance = 2.0 * np.abs(left - left[0]).sum(axis=2).max(axis=1)
        left, number = left[distance > epsilon], number + 1
    return number


def judge(measured: dict[str, Any]) -> Finding:
    """Explicit over printed, and the lower bound's power of 1/epsilon."""
    rows, packings = measured["rows"].copy(), measured["packings"]
    count = rows["k"] * (rows["d1"] + rows["N"] * rows["d2"])
    factor = np.log(rows["N"] * rows["n"] / DELTA)
    rows["printed"] = [_printed(row) for _, row in rows.iterrows()]
    rows["explicit"] = [_explicit(row) for _, row in rows.iterrows()]
    rows["ratio"] = rows["explicit"] / rows["printed"]
    written = count * np.log1p(16.0 * rows["N"] ** 2.0 * rows["n"] * rows["S"]) - np.log(DELTA)
    formulas = [
        attempt(
            testing.assert_identity,
            rows["printed"],
            count * factor,
            rival=count * (factor - np.log(DELTA)),
            statement="theory.log_bracketing_number",
        ),
        attempt(
            testing.assert_identity,
            rows["explicit"],
            written,
            rival=count * np.log1p(16.0 * rows["N"] * rows["n"] * rows["S"]) - np.log(DELTA),
            statement="theory.log_bracketing_bound",
        ),
        _other_classes(),
    ]
    surplus = np.log1p(16.0 * rows["S"]) / factor
    covers = attempt(
        testing.never_violated,
        rows["explicit"],
        (2.0 + surplus) * rows["printed"],
        rival=(1.0 + surplus) * rows["printed"],
        statement="C = 2 + log(1 + 16 S)/log(N n/delta)",
    )
    below, powers = _from_below(packings)
    judgements = [*formulas, covers, below]
    sizes = rows[rows["swept"] != "S"]
    largest = float(sizes["ratio"].max())
    scale = rows[rows["swept"] == "S"].set_index("S")["ratio"]
    require_sound(formulas)
    holds = all(judgement.holds for judgement in judgements)
    return Finding(
        verdict=Verdict.HOLDS if holds else Verdict.REFUTED,
        judgements=judgements,
        quantity="smallest C over sizes at S = C_R X R = 1",
        measured=exactly(largest),
        constants={"constant": largest, "constant_at_largest_scale": float(scale.iloc[-1])},
        remark=f"C = {largest:.2f} covers sizes over decades at S = 1, and tends to 2 as N grows, "
        "for the L1 norm over users turns N n into N^2 n; C grows with log S, to "
        f"{scale.iloc[-1]:.2f} at S = {scale.index[-1]:.0g}, which the printed form leaves out. "
        "Where members can be listed their number goes as 1/epsilon to the power "
        + ", ".join(f"{power:.2f} (N = {n})" for n, power in powers.items())
        + ", against a printed k (d1 + N d2) of "
        + ", ".join(f"{2 + n}" for n in powers)
        + ": the printed count takes the k^2 rotations of a basis for members.",
        rows=rows,
    )


def _sizes(row: pd.Series) -> dict[str, int]:
    names = {"N": "n_users", "d1": "d1", "d2": "d2", "k": "rank"}
    return {name: int(row[column]) for column, name in names.items()}


def _printed(row: pd.Series) -> float:
    return theory.log_bracketing_number(
        n_pairs=float(row["n"]),
        delta=DELTA,
        **_sizes(row),  # type: ignore[arg-type]
    ).value


def _explicit(row: pd.Series) -> float:
    """At `C_R = 1/4`, the logistic link's, and `X R = 4 S`."""
    steepest = theory.link_constants(links.get_link("logistic"), margin=1.0).lipschitz_mean
    return theory.log_bracketing_bound(
        n_pairs=float(row["n"]),
        norm_bound=2.0,
        feature_norm=2.0 * float(row["S"]),
        lipschitz_mean=steepest,
        delta=DELTA,
        **_sizes(row),  # type: ignore[arg-type]
    ).value


def _other_classes() -> testing.Judgement:
    """The counts that the paper compares with: full fine-tuning and one LoRA for each user."""
    sizes = {"n_users": 10, "d1": 12, "d2": 3, "rank": 2}
    found = [
        theory.log_bracketing_number(
            n_pairs=400.0,
            delta=DELTA,
            model_class=kind,
            constant=1.5,
            **sizes,  # type: ignore[arg-type]
        ).value
        for kind in ("full", "local")
    ]
    log = 1.5 * np.log(10 * 400 / DELTA)
    return attempt(
        testing.assert_identity,
        found,
        [10 * 12 * 3 * log, 10 * 2 * (12 + 3) * log],
        rival=2 * (12 + 10 * 3) * log,
        statement="dimensions of the other classes",
    )


def _from_below(packings: pd.DataFrame) -> tuple[testing.Judgement, dict[int, float]]:
    """Slope of the log of the number on log 1/epsilon, at most the printed dimension."""
    slopes = pd.DataFrame(
        [
            {
                "N": n_users,
                "slope": -np.polyfit(np.log(mine["epsilon"]), np.log(mine["apart"]), 1)[0],
            }
            for (n_users, _), mine in packings.groupby(["N", "seed"])
        ]
    )
    judgement = attempt(
        testing.never_violated,
        slopes["slope"],
        2.0 + slopes["N"],
        rival=slopes["N"],
        statement="power of 1/epsilon",
    )
    means = slopes.groupby("N")["slope"].mean()
    return judgement, {int(n): float(power) for n, power in means.items()}
