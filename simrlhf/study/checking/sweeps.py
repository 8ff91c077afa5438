"""Sweeps of one variable at a time around a base cell, for printed bounds with unknown constants.

Every printed bound is calibrated on the same fits, so that a process makes them once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from simrlhf import testing, theory
from simrlhf.core import numerics
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit
from simrlhf.study.checking.draws import Draw, fitted_draws, samples
from simrlhf.study.checking.form import TIGHT, Finding, Verdict, attempt, require_sound
from simrlhf.testing import Calibration, Judgement
from simrlhf.world import World, WorldConfig

BASE = WorldConfig(n_users=10, d1=12, d2=1, rank=2, nu=1.0, condition=1.5, user_norms="equal")
N_PAIRS = 400
# some three times the users' norms at nu = 1: keeps separable samples finite, rarely active
NORM_BOUND = 6.0
# tolerance of a drift where the bound is of a square: half of a factor
HALF_A_FACTOR = 0.5
AXES = ("n", "N", "d1", "d2", "k", "nu", "tail", "scale")
# sizes are printed for every value, so they go to infinity; nu and the tail are bounded above by
# the norms (k nu <= R^2), so they go to zero; units of the features are anybody's choice
TOWARDS = {
    "n": "infinity",
    "N": "infinity",
    "d1": "infinity",
    "d2": "infinity",
    "k": "infinity",
    "nu": "zero",
    "tail": "zero",
    "scale": "both",
}
_NAMES = {"N": "n_users", "d1": "d1", "d2": "d2", "k": "rank", "nu": "nu", "tail": "tail"}
_VALUES: dict[str, dict[str, tuple[float, ...]]] = {
    "tiny": {
        "n": (100, 400, 1600),
        "N": (40,),
        "nu": (0.25,),
        "tail": (0.03, 0.3),
        "scale": (0.25,),
    },
    "smoke": {
        "n": (100, 400, 1600),
        "N": (40,),
        "d1": (36,),
        "d2": (3,),
        "k": (4,),
        "nu": (0.5, 0.25),
        "tail": (0.03, 0.1, 0.3),
        "scale": (0.25, 4.0),
    },
    "paper": {
        "n": (100, 200, 400, 800, 1600, 3200),
        "N": (20, 40, 80, 160),
        "d1": (24, 48, 96),
        "d2": (2, 4),
        "k": (3, 4),
        "nu": (0.5, 0.25, 0.125, 0.0625),
        "tail": (0.003, 0.01, 0.03, 0.1, 0.3),
        "scale": (0.1, 0.3, 3.0, 10.0),
    },
}
REPETITIONS = {"tiny": 8, "smoke": 10, "paper": 60}


class Swept(NamedTuple):
    """A fit of a sweep: the variable that was changed, what it was set to, and the fit."""

    axis: str
    value: float
    draw: Draw


def swept_draws(size: str, axes: Sequence[str] = AXES) -> list[Swept]:
    """Fits of share-B in the sweeps of `axes`; every sweep but the tail's holds the base cell.

    The tail is swept with label noise off: with drawn labels it is lost in their noise.
    """
    repetitions = REPETITIONS[size]
    values = _VALUES[size]
    plain = fitted_draws(BASE, values["n"], repetitions, keep=True, norm_bound=NORM_BOUND)  # type: ignore[arg-type]
    found = [Swept("n", draw.n_pairs, draw) for draw in plain if "n" in axes]
    base = [draw for draw in plain if draw.n_pairs == N_PAIRS]
    for axis in (axis for axis in axes if axis in values and axis != "n"):
        if axis != "tail":
            found += [Swept(axis, _base_value(axis), draw) for draw in base]
        for value in values[axis]:
            draws = _at(axis, value, repetitions)
            found += [Swept(axis, value, draw) for draw in draws]
    return found


def _base_value(axis: str) -> float:
    return 1.0 if axis == "scale" else float(getattr(BASE, _NAMES[axis]))


def _at(axis: str, value: float, repetitions: int) -> list[Draw]:
    if axis == "scale":
        return list(_rescaled(value, repetitions))
    kind = type(getattr(BASE, _NAMES[axis]))
    config = replace(BASE, **{_NAMES[axis]: kind(value)})
    soft = axis == "tail"
    return fitted_draws(
        config, (N_PAIRS,), repetitions, keep=True, norm_bound=NORM_BOUND, soft=soft
    )


def _rescaled(scale: float, repetitions: int) -> Iterator[Draw]:
    """The base cell in other units: `phi -> c phi`, `Theta -> Theta / c`, the same labels."""
    for world, sample, n_pairs, repetition in samples(BASE, (N_PAIRS,), repetitions):
        # the labels were drawn already, so data are the same but for their units
        given = Preferences.from_pairs(
            sample.users, scale * sample.features, sample.labels, link=sample.link
        )
        result = fit(given, rank=BASE.rank, norm_bound=NORM_BOUND / scale)
        yield Draw(in_units(world, scale), given, result, n_pairs, repetition)


def in_units(world: World, scale: float) -> World:
    """The world whose features are `scale` times as large, and whose rewards are the same."""
    root = np.eye(world.config.d1) if world.feature_root is None else world.feature_root
    config = replace(
        world.config,
        nu=world.config.nu / scale**2,
        tail=world.config.tail / scale,
    )
    return replace(
        world,
        config=config,
        delta=world.delta / scale,
        theta_init=world.theta_init / scale,
        singular_values=world.singular_values / scale,
        feature_root=scale * root,
    )


def labels_of(one: Swept) -> dict[str, Any]:
    """Columns that every row of a sweep has; `nu` and `tail_energy` from the singular values."""
    world, config = one.draw.world, one.draw.world.config
    values = world.singular_values
    return {
        "swept": one.axis,
        "value": float(one.value),
        "repetition": one.draw.repetition,
        "N": config.n_users,
        "n": one.draw.n_pairs,
        "d1": config.d1,
        "d2": config.d2,
        "k": config.rank,
        "nu": float(values[config.rank - 1] ** 2 / config.n_users),
        "tail_energy": float(np.sum(values[config.rank :] ** 2)),
    }


def variables(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """For `testing.calibrate`: every axis' value in its own rows, NaN in the others."""
    return {
        axis: np.where(rows["swept"] == axis, rows["value"], np.nan)
        for axis in rows["swept"].unique()
    }


def towards(rows: pd.DataFrame) -> dict[str, str]:
    """Where the swept variables may go."""
    return {axis: TOWARDS[axis] for axis in rows["swept"].unique()}


def log_bracketing(rows: pd.DataFrame, delta: float, **settings: Any) -> np.ndarray:
    """`log(N_br / delta)` of Proposition 1 for every row."""
    return np.array(
        [
            theory.log_bracketing_number(
                n_users=int(row["N"]),
                n_pairs=row["n"],
                d1=int(row["d1"]),
                d2=int(row["d2"]),
                rank=int(row["k"]),
                delta=delta,
                **settings,
            ).value
            for _, row in rows.iterrows()
        ]
    )


def held_out_constant(
    rows: pd.DataFrame,
    measured: ArrayLike,
    bound: ArrayLike,
    *,
    delta: float,
    statement: str,
    rival: float = 0.5,
) -> Judgement:
    """Whether the constant of half of the seeds covers the other half, and `rival` of it does not.

    Even repetitions give the constant and the cell that needs it most (by the median); the odd ones
    of that cell, which are independent, are judged at failure probability `delta`.
    """
    ratio = np.asarray(measured) / np.asarray(bound)
    cell = rows["swept"] + " " + rows["value"].astype(str)
    even = rows["repetition"] % 2 == 0
    worst = pd.Series(ratio)[even.to_numpy()].groupby(cell[even].to_numpy()).median().idxmax()
    judged = ((cell == worst) & ~even).to_numpy()
    constant = ratio[even.to_numpy()].max()
    limit = constant * np.asarray(bound)[judged]
    return attempt(
        testing.never_violated,
        np.asarray(measured)[judged],
        limit,
        rival=rival * limit,
        delta=delta,
        statement=statement,
    )


def mean_square(
    world: World, estimate: np.ndarray, *, of_rewards: bool = False, nodes: int = 40
) -> np.ndarray:
    """`E (Phi(z_hat) - Phi(z*))^2` of every user, or `E (z_hat - z*)^2`, over the features' law.

    `z` and `z_hat` are jointly normal under Gaussian features, so two-dimensional Gauss-Hermite
    quadrature is exact but for what `nodes` miss (1e-10 at rewards of order one).

    Args:
        estimate: `(N, d1, d2)`, all of Theta, not its deviation.
    """
    root = np.eye(world.config.d1) if world.feature_root is None else world.feature_root
    truth, error = root.T @ world.theta, root.T @ (estimate - world.theta)
    cross = np.sum(truth * error, axis=(1, 2))
    size, squares = np.sum(truth**2, axis=(1, 2)), np.sum(error**2, axis=(1, 2))
    if of_rewards:
        return squares
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    # z* = |truth| u, and the error is its part along z* plus an independent one
    length = np.sqrt(size)
    along = np.divide(cross, length, out=np.zeros_like(cross), where=length > 0.0)
    aside = np.sqrt(np.maximum(squares - along**2, 0.0))
    z = length[:, None, None] * points[:, None]
    gap = along[:, None, None] * points[:, None] + aside[:, None, None] * points[None, :]
    with numerics.float64_scope():
        difference = np.asarray(world.link.mean(z + gap)) - np.asarray(world.link.mean(z))
    return np.einsum("nab,a,b->n", difference**2, weights, weights)


def printed(
    calibration: Calibration,
    judgements: Sequence[Judgement],
    *,
    claims: Sequence[Judgement],
    more: Mapping[str, float] | None = None,
    **found: Any,
) -> Finding:
    """The finding of a printed bound, by the one rule for all of them.

    REFUTED if a judge rejects it or the constant rises with a variable; HOLDS BUT LOOSE if the
    constant falls with one, or if there is a tightness, and it is below a half; HOLDS otherwise.

    Args:
        judgements: identities and proved statements, which must hold for a verdict to follow.
        claims: judgements of the printed statement itself, which may fail.
        more: constants beside those of the calibration.
        found: of `Finding`.
    """
    require_sound(judgements)
    tightness = found.get("tightness")
    if calibration.rising or not all(judgement.holds for judgement in claims):
        verdict = Verdict.REFUTED
    elif calibration.falling or (tightness is not None and tightness < TIGHT):
        verdict = Verdict.LOOSE
    else:
        verdict = Verdict.HOLDS
    constants = {**calibration.numbers, **(more or {})}
    return Finding(verdict=verdict, judgements=[*judgements, *claims], constants=constants, **found)
