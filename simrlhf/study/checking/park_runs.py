"""Policies that are pessimistic over Park's sets, for Theorems 3.1 and 3.2.

`d2 = 1`, no tail, `nu = B^2 / k` (their diversity), features on a sphere, so that `R_max` is a
number of the class and not of the draw. A user's set is the ball of his own design norm,
`(1 / n) sum_j <Theta - Theta_hat, x_j>^2 <= zeta^2`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from simrlhf import policy
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, adapt_users, fit
from simrlhf.sampling import sample_preferences
from simrlhf.study.checking.by_hand import logistic_curvature
from simrlhf.study.checking.draws import samples
from simrlhf.study.checking.newcomers import newcomers
from simrlhf.world import MDP, DecisionConfig, World, WorldConfig, make_world

DELTA = 0.05
D1 = 4
_STATES, _ACTIONS = 100, 3
# the class is a ball of twice the users' norm: it keeps separable samples finite
_CLASS = 2.0
# the base cell; C is 1 / sqrt(coverage), as which concentrability goes
BASE = {"n": 800.0, "N": 8.0, "k": 1.0, "C": 1.0, "B": 1.0}
REPETITIONS = {"tiny": 8, "smoke": 10, "paper": 60}
_SWEEPS: dict[str, dict[str, tuple[float, ...]]] = {
    "tiny": {"n": (200,), "k": (3,), "C": (3,), "B": (2,)},
    "smoke": {"n": (200, 3200), "N": (32,), "k": (2, 3), "C": (3,), "B": (2,)},
    "paper": {"n": (200, 400, 1600, 3200), "N": (16, 32, 64), "k": (2, 3), "C": (2, 4), "B": (2,)},
}
# new users come to the fits of few pairs, so that what these leave is seen
_FEW = {**BASE, "n": 50.0}
_OWN_PAIRS = {"tiny": (50, 3200), "smoke": (50, 400, 3200), "paper": (50, 200, 800, 3200)}
_OLD_N = {"tiny": (50, 200, 800), "smoke": (50, 800, 3200), "paper": (50, 200, 800, 3200)}
_OLD_USERS = {"tiny": (128,), "smoke": (128,), "paper": (32, 128)}
_NEW = 8
# pairs of a new user beside which his own noise is little
_MANY = 3200
# axes on which the class, and with it the sets, changes its size
_NO_POLICIES = ("B",)


class Held(NamedTuple):
    """What one fit knows of its users: the truth, the estimates and their designs."""

    world: World
    centre: np.ndarray
    designs: np.ndarray


class Fitted(NamedTuple):
    """A fit of old users."""

    world: World
    sample: Preferences
    result: FitResult
    repetition: int


@lru_cache(maxsize=2)
def old_users(size: str) -> pd.DataFrame:
    """A row for every user of every fit of Theorem 3.1's sweeps."""
    cells = [("base", 1.0), *((axis, v) for axis, values in _SWEEPS[size].items() for v in values)]
    found = []
    for axis, value in cells:
        at = BASE | ({axis: float(value)} if axis in BASE else {})
        for one in _fits(size, **at):
            held = _held(one.world, one.result.delta, one.sample)
            facts = _facts(axis, value, at | {"own_pairs": at["n"]}, one.repetition)
            found.append((held, _rows(facts, held)))
    rows = _with_gaps(found, users_at_once=True)
    base = rows["swept"] == "base"
    # the base cell opens every sweep
    opened = [rows[base].assign(swept=axis, value=BASE[axis]) for axis in _SWEEPS[size]]
    return pd.concat([*opened, rows[~base]], ignore_index=True)


@lru_cache(maxsize=2)
def new_users(size: str) -> pd.DataFrame:
    """A row for every new user of Theorem 3.2's sweeps: of his own pairs, of n as printed, of N.

    The sweep of N has the new users' label noise off: it would hide what the basis leaves.
    """
    found = []
    for n in _OLD_N[size]:
        own = {n: ["n"]}
        if n == _FEW["n"]:
            own |= {m: ["own_pairs"] for m in _OWN_PAIRS[size]} | {n: ["n", "own_pairs"]}
        for one in _fits(size, **_FEW | {"n": float(n)}):
            found += _newcomers(one, own)
    for n_users in (BASE["N"], *_OLD_USERS[size]):
        for one in _fits(size, **_FEW | {"N": float(n_users)}):
            found += _newcomers(one, {_MANY: ["N"]}, soft=True)
    return _with_gaps(found, users_at_once=False)


def _newcomers(
    one: Fitted, axes: dict[int, list[str]], *, soft: bool = False
) -> list[tuple[Held, pd.DataFrame]]:
    """Eight new users adapted to an old fit: for every number of own pairs, rows for its axes."""
    config = replace(one.world.config, n_users=_NEW)
    other = make_world(config, seed=10_000 + one.repetition, mdp=_contexts())
    new = newcomers(one.world, other)
    everything = sample_preferences(new, _MANY, seed=20_000 + one.repetition, soft=soft)
    basis, n_users = one.result.basis, one.world.n_users
    missed = np.linalg.norm(new.delta - basis @ (basis.T @ new.delta), axis=(1, 2))
    found = []
    for own, names in axes.items():
        sample = everything.switched_to_first(np.full(_NEW, own))
        held = _held(new, adapt_users(one.result, sample).delta, sample)
        at = _FEW | {"n": one.sample.n_total / n_users, "N": float(n_users), "own_pairs": own}
        for axis in names:
            rows = _rows(_facts(axis, at[axis], at, one.repetition), held)
            found.append((held, rows.assign(missed=missed)))
    return found


@lru_cache(maxsize=64)
def _fits(size: str, **at: float) -> tuple[Fitted, ...]:
    """Joint fits of one cell, kept for the other theorem."""
    config, radius = _config(at), _CLASS * at["B"]
    return tuple(
        Fitted(world, sample, fit(sample, rank=config.rank, norm_bound=radius), repetition)
        for world, sample, _, repetition in samples(
            config, (int(at["n"]),), REPETITIONS[size], seed=31, mdp=_contexts()
        )
    )


def _config(at: dict[str, float]) -> WorldConfig:
    return WorldConfig(
        n_users=int(at["N"]),
        d1=D1,
        rank=int(at["k"]),
        nu=at["B"] ** 2 / at["k"],
        condition=1.0,
        user_norms="equal",
        features="trajectories",
        decision=DecisionConfig(
            mdp="given",
            n_states=_STATES,
            n_actions=_ACTIONS,
            behaviour="careful",
            coverage=1.0 / at["C"] ** 2,
        ),
    )


@lru_cache(maxsize=1)
def _contexts() -> MDP:
    """The same for all worlds: features of squared norm d1 / 2."""
    drawn = np.random.default_rng(31).standard_normal((_STATES, _ACTIONS, D1, 1))
    return MDP.bandit(drawn * np.sqrt(D1 / 2.0) / np.linalg.norm(drawn, axis=2, keepdims=True))


def _held(world: World, centre: np.ndarray, sample: Preferences) -> Held:
    seen = sample.weights > 0
    x, users = sample.features[seen].reshape(int(seen.sum()), -1), sample.users[seen]
    own = [x[users == user] for user in range(world.n_users)]
    return Held(world, centre, np.array([mine.T @ mine / len(mine) for mine in own]))


def _facts(axis: str, value: float, at: dict[str, float], repetition: int) -> dict[str, Any]:
    # |z| <= 2 R_max, R_max = max ||Theta|| max ||phi||
    margin = 2.0 * _CLASS * at["B"] * math.sqrt(D1 / 2.0)
    return {"swept": axis, "value": float(value), "repetition": repetition, "margin": margin, **at}


def _rows(facts: dict[str, Any], held: Held) -> pd.DataFrame:
    error = (held.centre - held.world.delta).reshape(held.world.n_users, -1)
    size = np.sqrt(np.einsum("np,npq,nq->n", error, held.designs, error))
    return pd.DataFrame({**facts, "user": np.arange(size.size), "error": size})


def written_bracket(rows: pd.DataFrame, *, users_at_once: bool) -> pd.Series:
    """What stands under the root of Theorems 3.1 and 3.2 but for c and C_i, written out.

    `log N_br` is theirs for linear representations, `k (d1 + N) log(N n / delta)`; no ridge.

    Args:
        users_at_once: `log(N / delta)`, as in Theorem 3.1; `log(1 / delta)` otherwise.
    """
    eta = rows["margin"].map(logistic_curvature)
    kappa, xi = 1.0 / eta, 1.0 / (1.0 + np.exp(-rows["margin"]))
    total = rows["N"] * rows["n"]
    bracketing = rows["k"] * (D1 + rows["N"]) * np.log(total / DELTA)
    told = np.log((rows["N"] if users_at_once else 1.0) / DELTA)
    first = rows["k"] * kappa**2 * bracketing / total
    return xi**2 / eta**2 * (first + (rows["k"] + told) / rows["own_pairs"])


def _with_gaps(cells: list[tuple[Held, pd.DataFrame]], *, users_at_once: bool) -> pd.DataFrame:
    """Rows of all cells with brackets, radii, and what the pessimistic policies lose.

    The radius has the smallest constant under its root with which all sets hold the truth, so that
    the theorem's premise is true.
    """
    rows = pd.concat([table for _, table in cells], ignore_index=True)
    rows["bracket"] = written_bracket(rows, users_at_once=users_at_once)
    # a hair more, so that rounding cannot put a truth outside
    constant = float((rows["error"] ** 2 / rows["bracket"]).max()) * (1.0 + 1e-9)
    rows["radius"] = np.sqrt(constant * rows["bracket"])
    radii = np.split(rows["radius"].to_numpy(), np.cumsum([len(t) for _, t in cells])[:-1])
    found = [
        _lost(held, radius, policies=table["swept"].iloc[0] not in _NO_POLICIES)
        for (held, table), radius in zip(cells, radii, strict=True)
    ]
    return rows.assign(**{name: np.concatenate([one[name] for one in found]) for name in found[0]})


def _lost(held: Held, radius: np.ndarray, *, policies: bool) -> dict[str, np.ndarray]:
    """Gaps, `C_i`, and the target's norm dual to the user's own design; NaN without policies."""
    world, mdp, behaviours = held.world, held.world.mdp, held.world.behaviours
    assert mdp is not None
    assert behaviours is not None
    best = policy.optimal_policy(mdp, world.theta)
    covered = policy.concentrability(mdp, best.policy, behaviours)
    target = covered.gap.reshape(world.n_users, -1)
    dual = np.sqrt(np.einsum("np,npq,nq->n", target, np.linalg.inv(held.designs), target))
    gap = np.full(world.n_users, np.nan)
    if policies:
        sets = policy.design_ellipsoid(held.centre, held.designs, radius)
        plan = policy.pessimistic_policy(mdp, sets, reference=behaviours.second, tol=1e-3)
        gap = best.value - policy.value(mdp, plan.policy, world.theta)
    return {"gap": gap, "concentrability": covered.value, "target": dual}
