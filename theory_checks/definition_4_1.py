"""Definition 4.1: `nu`, `Sigma_tail` and the users' `b_i`, each by routes of their own.

`nu = sigma_k(Delta*)^2 / N`, `Sigma_tail = sum_{i>k} sigma_i(Delta*)^2`,
`b_i = ||Delta*_i - Delta^<>_i||_F^2`; `sum_i b_i = Sigma_tail`, and `nu <= R^2 / k` if every
`||Delta*_i||_F <= R`. A rank below k gives `nu = 0`, and bounds that say nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, proved
from simrlhf.testing import Judgement
from simrlhf.world import WorldConfig, make_world

CHECK = Check(
    statement="Definition 4.1",
    title="diversity of the users: nu, the tail and what of it each user carries",
    kind=Kind.DEFINITION,
    claim="nu = sigma_k^2 / N <= R^2 / k, Sigma_tail = sum_{i>k} sigma_i^2 = sum_i b_i; rank below "
    "k: nu = 0, bounds vacuous",
    procedure="worlds of known spectrum; eigenvalues of the Gram matrix, residuals user by user, "
    "and the spectrum asked for; identity; never_violated for nu <= R^2 / k, which equal users "
    "spread evenly attain",
    rival="nu = sigma_k / N without the square; a tail of unsquared values; nu <= R^2 / (k + 1); "
    "nu of the smallest positive singular value where the rank is below k",
    tolerance="1e-10 of the scale: squares of values at most 3 apart lose one digit of float64",
    source="P-ShareLoRA, Section 4, Definition 4.1, (4.1) and Theorem 4.2",
)
_SIZES = {"tiny": 8, "smoke": 60, "paper": 400}
_DELTA = 0.05
_PAIRS = 1000


def measure(size: str) -> dict[str, Any]:
    """Worlds, and their diversity from Gram matrices, residuals and the settings."""
    random = np.random.default_rng(41)
    worlds = [_instance(_config(random), seed) for seed in range(_SIZES[size])]
    even = [
        _instance(WorldConfig(n_users=8, d1=6, d2=2, rank=k, condition=1.0, user_norms="equal"), k)
        for k in (1, 2, 3)
    ]
    deficient = [
        _instance(WorldConfig(n_users=8, d1=6, rank=3, deficiency=missing, nu=nu), missing)
        for missing in (1, 2)
        for nu in (0.25, 4.0)
    ]
    return {"worlds": worlds, "even": even, "deficient": deficient}


def _config(random: np.random.Generator) -> WorldConfig:
    """Random sizes with room for a tail; the tail stays below `sigma_k`."""
    k = int(random.integers(1, 4))
    return WorldConfig(
        n_users=int(random.integers(5, 15)),
        d1=k + int(random.integers(2, 7)),
        d2=int(random.integers(1, 4)),
        rank=k,
        nu=float(random.uniform(0.25, 4.0)),
        condition=float(random.uniform(1.0, 3.0)),
        tail=float(random.uniform(0.1, 0.4)),
        tail_shape=str(random.choice(["flat", "power"])),
    )


def _instance(config: WorldConfig, seed: int) -> dict[str, Any]:
    world = make_world(config, seed=seed)
    k, n_users = config.rank, config.n_users
    gram = sum(block @ block.T for block in world.delta)
    values, vectors = np.linalg.eigh(gram)
    outside = np.eye(config.d1) - vectors[:, -k:] @ vectors[:, -k:].T
    residuals = [float(np.sum((outside @ block) ** 2)) for block in world.delta]
    return {
        "delta": world.delta,
        "residuals": residuals,
        "row": {
            "n_users": n_users,
            "d1": config.d1,
            "d2": config.d2,
            "rank": k,
            "deficiency": config.deficiency,
            "nu_asked": config.nu,
            "nu_gram": max(values[-k], 0.0) / n_users,
            "tail_asked": n_users * config.tail**2,
            "tail_gram": values[:-k].sum(),
            "tail_users": sum(residuals),
            "largest_norm": max(np.linalg.norm(block) for block in world.delta),
        },
    }


def judge(measured: dict[str, Any]) -> Finding:
    """`theory.diversity_metrics` is what every route says; the bound on nu is attained."""
    worlds = measured["worlds"]
    rows = pd.DataFrame([one["row"] for one in worlds])
    found = [theory.diversity_metrics(one["delta"], one["row"]["rank"]) for one in worlds]
    judgements = [
        *_of_nu(rows, np.array([one.nu for one in found])),
        *_of_tail(rows, worlds, found),
        _of_sigma(rows, found),
        _ceiling_of_nu(rows, measured["even"]),
        *_deficient(measured["deficient"]),
    ]
    off = max(one.measured.estimate for one in judgements if one.tightness is None)
    share = (rows["nu_gram"] * rows["rank"] / rows["largest_norm"] ** 2).median()
    everything = [
        {**one["row"], "kind": kind}
        for kind in ("worlds", "even", "deficient")
        for one in measured[kind]
    ]
    return proved(
        judgements,
        quantity="largest difference between the routes",
        measured=exactly(off),
        remark=f"Three routes agree within {off:.1e} on {len(rows)} worlds. nu fills its ceiling "
        f"R^2/k where equal users spread evenly, and {share:.2g} of it in the median of random "
        "worlds; with a rank below k it is 0, and Theorem 4.1, S1 and S2 are vacuous.",
        rows=pd.DataFrame(everything),
    )


def _of_nu(rows: pd.DataFrame, claimed: np.ndarray) -> list[Judgement]:
    unsquared = np.sqrt(rows["nu_asked"] / rows["n_users"])  # sigma_k / N
    return [
        attempt(
            testing.assert_identity,
            rows[route].to_numpy(),
            claimed,
            rival=unsquared.to_numpy(),
            statement=f"nu ({route})",
        )
        for route in ("nu_gram", "nu_asked")
    ]


def _of_sigma(rows: pd.DataFrame, found: list) -> Judgement:
    """`sigma_k = sqrt(N nu)`, from the Gram matrix's nu."""
    return attempt(
        testing.assert_identity,
        [one.sigma_k for one in found],
        np.sqrt(rows["n_users"] * rows["nu_gram"]),
        rival=rows["n_users"] * rows["nu_gram"],
        tolerance=1e-9,  # the Gram matrix squares the condition number
        statement="sigma_k",
    )


def _of_tail(rows: pd.DataFrame, worlds: list, found: list) -> list[Judgement]:
    claimed = np.array([one.tail_energy for one in found])
    unsquared = [one.singular_values[k:].sum() for one, k in zip(found, rows["rank"], strict=True)]
    routes = [
        attempt(
            testing.assert_identity,
            rows[route].to_numpy(),
            claimed,
            rival=np.array(unsquared),
            statement=f"Sigma_tail ({route})",
        )
        for route in ("tail_gram", "tail_asked", "tail_users")
    ]
    biases = np.concatenate([one.user_bias for one in found])
    users = attempt(
        testing.assert_identity,
        np.concatenate([one["residuals"] for one in worlds]),
        biases,
        rival=np.sqrt(np.abs(biases)),
        statement="b_i",
    )
    return [*routes, users]


def _ceiling_of_nu(rows: pd.DataFrame, even: list) -> Judgement:
    """`nu <= R^2 / k`; users of equal norm, spread evenly over k directions, attain it."""
    tight = pd.DataFrame([one["row"] for one in even])
    attained = _theory_nu(even)
    return attempt(
        testing.never_violated,
        rows["nu_gram"],
        rows["largest_norm"] ** 2 / rows["rank"],
        tight=(attained, tight["largest_norm"].to_numpy() ** 2 / tight["rank"].to_numpy()),
        rival=tight["largest_norm"].to_numpy() ** 2 / (tight["rank"].to_numpy() + 1),
        statement="nu <= R^2 / k",
    )


def _theory_nu(instances: list) -> np.ndarray:
    """`nu` of instances as the theory computes it."""
    return np.array(
        [theory.diversity_metrics(one["delta"], one["row"]["rank"]).nu for one in instances]
    )


def _deficient(instances: list) -> list[Judgement]:
    """A rank below k: nu is exactly 0, and what divides by it says nothing."""
    nu = _theory_nu(instances)
    zero = attempt(
        testing.assert_identity,
        [one["row"]["nu_gram"] for one in instances],
        nu,
        rival=[one["row"]["nu_asked"] for one in instances],
        scale=1.0,
        statement="nu of a rank below k",
    )
    vacuous = [
        float(bound.status is theory.BoundStatus.VACUOUS)
        for one, value in zip(instances, nu, strict=True)
        for bound in _bounds(one["row"], float(value))
    ]
    silent = attempt(
        testing.assert_identity,
        vacuous,
        1.0,
        rival=0.0,
        statement="bounds of a rank below k are vacuous",
    )
    return [zero, silent]


def _bounds(row: dict[str, Any], nu: float) -> list[theory.Bound]:
    ceiling = theory.distance_ceiling(row["rank"], row["d1"])
    sigma_k = math.sqrt(row["n_users"] * nu)
    shape = {name: row[name] for name in ("n_users", "d1", "rank")}
    parameters = row["rank"] * (row["d1"] + row["n_users"] * row["d2"])
    size = parameters * math.log(row["n_users"] * _PAIRS / _DELTA)
    return [
        theory.theorem_4_1(**shape, log_bracketing=size, n_pairs=_PAIRS, nu=nu, tail_energy=0.0),
        theory.geometry_bound(1.0, sigma_k=sigma_k, ceiling=ceiling),
        theory.oracle_inequality(
            noise_norm=1.0,
            tail=0.0,
            sigma_k=sigma_k,
            ceiling=ceiling,
            curvature=0.1,
            smallest_design=_PAIRS,
            largest_design=_PAIRS,
            curvature_bound=0.25,
        ),
    ]
