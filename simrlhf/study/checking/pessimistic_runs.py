"""Pessimistic policies of Algorithm 1 in sweeps of one variable, for the printed value bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import policy, testing
from simrlhf.core import statistics
from simrlhf.study.checking import sweeps
from simrlhf.study.checking.draws import fitted_draws
from simrlhf.world import DecisionConfig, World, WorldConfig

DELTA = 0.05
BASE = WorldConfig(
    n_users=8,
    d1=4,
    rank=1,
    nu=1.0,
    user_norms="equal",
    decision=DecisionConfig(mdp="bandit", n_states=1000, n_actions=3),
)
# enough for the policies to differ from the reference: a gap at its ceiling follows no bound
N_PAIRS = 800
# in the order of the table: the variable, its values but for the base's, and label noise
_SWEEPS: dict[str, dict[str, tuple[float, ...]]] = {
    "tiny": {"n": (200, 3200), "nu": (0.25,), "tail": (0.1,)},
    "smoke": {
        "n": (200, 3200),
        "N": (32,),
        "d1": (8,),
        "k": (2,),
        "nu": (0.5, 0.25),
        "tail": (0.03, 0.1),
    },
    "paper": {
        "n": (200, 400, 1600, 3200, 6400),
        "N": (16, 32, 64, 128),
        "d1": (8, 16),
        "k": (2, 3),
        "nu": (0.5, 0.25, 0.125),
        "tail": (0.01, 0.03, 0.1),
    },
}
_FIELDS = {"N": "n_users", "d1": "d1", "k": "rank", "nu": "nu", "tail": "tail"}
REPETITIONS = {"tiny": 8, "smoke": 10, "paper": 60}
# variables in which the constant of the radius may drift
SIZES = ("n", "N", "d1", "k")


@lru_cache(maxsize=2)
def pessimistic_runs(size: str) -> pd.DataFrame:
    """A row for every user of every fit: his gap, and what the printed bounds are made of.

    The radius is (B.1) with the user's own `b_i` and the smallest constant under its root with
    which all sets of all cells hold the truth, so that the theorem's premise is true.
    """
    cells = [_cell(*cell, REPETITIONS[size]) for cell in _cells(size)]
    rows = pd.concat([row for cell in cells for _, row in cell], ignore_index=True)
    constant = float((rows["error"] ** 2 / rows["bracket"]).max())
    found = [
        _gaps(world, centre, np.sqrt(constant * row["bracket"].to_numpy()))
        for cell in cells
        for (world, centre), row in cell
    ]
    gaps, targets = (np.concatenate(column) for column in zip(*found, strict=True))
    radius = np.sqrt(constant * rows["bracket"])
    return rows.assign(gap=gaps, target=targets, radius=radius)


def _cells(size: str) -> list[tuple[str, float]]:
    sweeps = _SWEEPS[size]
    found = [("n", float(value)) for value in sorted({N_PAIRS, *sweeps["n"]})]
    for axis, values in sweeps.items():
        if axis in ("n", "tail"):
            continue
        found += [(axis, float(getattr(BASE, _FIELDS[axis]))), *((axis, v) for v in values)]
    return found + [("tail", value) for value in sweeps["tail"]]


def _cell(
    axis: str, value: float, repetitions: int
) -> list[tuple[tuple[World, np.ndarray], pd.DataFrame]]:
    """Fits of one cell with the rows of their users."""
    config, n_pairs = BASE, int(value) if axis == "n" else N_PAIRS
    if axis != "n":
        kind = type(getattr(BASE, _FIELDS[axis]))
        config = replace(BASE, **{_FIELDS[axis]: kind(value)})
    draws = fitted_draws(
        config, (n_pairs,), repetitions, norm_bound=6.0, soft=axis == "tail", seed=42
    )
    found = []
    for draw in draws:
        world, centre = draw.world, draw.result.theta_init + draw.result.delta
        values = world.singular_values
        bias = np.sum((world.delta - world.truncated) ** 2, axis=(1, 2))
        facts: dict[str, Any] = {
            "swept": axis,
            "value": float(value),
            "repetition": draw.repetition,
            "user": np.arange(world.n_users),
            "N": config.n_users,
            "n": n_pairs,
            "d1": config.d1,
            "d2": config.d2,
            "k": config.rank,
            "nu": float(values[config.rank - 1] ** 2 / config.n_users),
            "tail_energy": float(np.sum(values[config.rank :] ** 2)),
            "own_bias": bias,
            "error": np.linalg.norm(centre - world.theta, axis=(1, 2)),
        }
        rows = pd.DataFrame(facts)
        found.append(((world, centre), rows.assign(bracket=written_bracket(rows))))
    return found


def written_bracket(rows: pd.DataFrame, *, own_bias: bool = True) -> pd.Series:
    """What stands under the root of Theorem 4.2, written out: theory has no part in measuring."""
    parameters = rows["k"] * (rows["d1"] + rows["N"] * rows["d2"])
    total = rows["N"] * rows["n"]
    found = parameters * np.log(total / DELTA) / (total * rows["nu"])
    found = found + (rows["k"] * rows["d2"] + np.log(rows["N"] / DELTA)) / rows["n"]
    found = found + np.sqrt(rows["tail_energy"] / rows["N"]) / rows["nu"]
    return found + rows["own_bias"] if own_bias else found


def calibrated_radius(
    users: pd.DataFrame, *, towards: Mapping[str, str] | None = None
) -> testing.Calibration:
    """The constant under the root of a radius, by the user of every fit who needs the largest.

    Args:
        users: rows of users, with `error` and `bracket`.
        towards: the variables in which a drift is judged, and where they may go; the sizes of
            (B.1), to infinity, by default.
    """
    rows = users.assign(root=np.sqrt(users["bracket"]))
    fits = [rows["swept"], rows["value"], rows["repetition"]]
    rows = rows.loc[(rows["error"] / rows["root"]).groupby(fits).idxmax()].reset_index(drop=True)
    sizes: dict[str, str] = dict.fromkeys(SIZES, "infinity")
    judged = sizes if towards is None else towards
    axes = {axis: of for axis, of in sweeps.variables(rows).items() if axis in judged}
    return testing.calibrate(
        rows["error"],
        rows["root"],
        variables=axes,
        repetition=rows["repetition"],
        towards={axis: judged[axis] for axis in axes},
    )


def slope_in_n(users: pd.DataFrame, of: str) -> statistics.Interval:
    """Slope in n of every fit's largest (`max`) or mean gap: mean over worlds, 99 % interval."""
    mine = users[users["swept"] == "n"]
    table = mine.groupby(["n", "repetition"], as_index=False)["gap"].agg(of)
    # a user may lose nothing at all, and a slope needs logarithms
    gap = np.maximum(table["gap"], 1e-6)
    return statistics.mean_slope(table["n"], gap, table["repetition"], confidence=0.99)


def _gaps(world: World, centre: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value lost by policies that are pessimistic over balls, and `||g_tar||_F` of the best ones.

    The reference is the uniform policy.
    """
    mdp, behaviours = world.mdp, world.behaviours
    assert mdp is not None
    assert behaviours is not None
    sets = policy.frobenius_ball(centre, radius)
    plan = policy.pessimistic_policy(mdp, sets, reference=behaviours.second, tol=1e-3)
    best = policy.optimal_policy(mdp, world.theta)
    target = policy.feature_expectations(mdp, best.policy)
    target -= policy.feature_expectations(mdp, behaviours.second)
    lost = best.value - policy.value(mdp, plan.policy, world.theta)
    return lost, np.linalg.norm(target, axis=(1, 2))
