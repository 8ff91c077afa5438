"""L5: a new user on the frozen basis has an error of his own and one that the old users left.

`E||E_0||_Sigma^2 ~ tr(Sigma Mb A_0^{-1} Mb') / n_0 + tr(Sigma Pi_0 J_0 I_eff^{-1} J_0' Pi_0') / n`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import adapt_users, fit
from simrlhf.sampling import sample_preferences
from simrlhf.study.checking import Check, Finding, Kind, attempt, first_pairs, proved
from simrlhf.study.checking.limit_worlds import (
    NORM_BOUND,
    Ingredients,
    feature_covariance,
    ingredients,
    limit_worlds,
)
from simrlhf.world import World, make_world

CHECK = Check(
    statement="L5",
    title="the exact first-order error of a new user",
    kind=Kind.LIMIT,
    claim="E||E_0||_Sigma^2 ~ tr(Sigma Mb A_0^{-1} Mb') / n_0 + tr(Sigma Pi_0 J_0 I_eff^{-1} J_0' "
    "Pi_0') / n",
    procedure="half of a world's users are fitted, the others adapted on the frozen basis, at n_0 "
    "= n and n_0 = 2 n: intercept in 1/n of the ratio, kinds of world as curves",
    rival="the user's own term alone: the basis taken for the truth",
    tolerance="99 % intervals of repetitions",
    source="theory.md, L5 (simrlhf.theory.new_users)",
)
_SIZES = {
    "tiny": (2, (160, 480), 30),
    "smoke": (8, (200, 400), 24),
    "paper": (32, (200, 400, 800, 1600), 100),
}
_SHARES = (1, 2)
_OLD = 4


def measure(size: str) -> dict[str, Any]:
    """Errors of new users, for two numbers of their own pairs to one of the old users'."""
    kinds, sizes, repetitions = _SIZES[size]
    runs = []
    for number, kind in enumerate(_kinds(kinds)):
        config = replace(kind.config, n_users=2 * _OLD)
        for repetition in range(repetitions):
            world = make_world(config, seed=1000 * number + repetition)
            halves = _halves(world, _SHARES[-1] * max(sizes), seed=1000 * number + repetition)
            for n_pairs in sizes:
                runs += [
                    {"kind": kind.name, "repetition": repetition, **run}
                    for run in _new_users(world, halves, n_pairs)
                ]
    return {"runs": runs}


def _kinds(number: int) -> list[Any]:
    """Kinds spread over links and shapes; numbers of pairs are set by hand here."""
    plain = [
        kind
        for kind in limit_worlds("smoke")
        if kind.config.count_spread == 0.0 and kind.config.base_norm == 0.0
    ]
    return plain[:: max(1, len(plain) // number)][:number]


def _halves(world: World, n_pairs: int, *, seed: int) -> tuple[Preferences, Preferences]:
    """Pairs of the old users and of the new ones."""
    everything = sample_preferences(world, n_pairs, seed=seed)
    old = everything.users < _OLD

    def of(mine: np.ndarray) -> Preferences:
        return Preferences.from_pairs(
            everything.users[mine],
            everything.features[mine],
            everything.labels[mine],
            link=world.link.name,
        )

    return of(old), of(~old)


def _new_users(
    world: World, halves: tuple[Preferences, Preferences], n_pairs: int
) -> list[dict[str, Any]]:
    """Fit the first half of the users, adapt the others; the mean squared error of these."""
    old, new = halves

    def first(part: Preferences, height: int) -> Preferences:
        return first_pairs(part, np.full(_OLD, height))

    result = fit(first(old, n_pairs), rank=world.config.rank, norm_bound=NORM_BOUND)
    found = []
    for share in _SHARES:
        adapted = adapt_users(result, first(new, share * n_pairs))
        errors = (adapted.delta - world.delta[_OLD:]).reshape(_OLD, -1)
        weighed = np.einsum("ip,pq,iq->i", errors, feature_covariance(world), errors)
        found.append(
            {
                "world": world,
                "n_pairs": n_pairs,
                "new_pairs": share * n_pairs,
                "share": share,
                "squared_error": float(weighed.mean()),
            }
        )
    return found


def judge(measured: dict[str, Any]) -> Finding:
    """The ratio to the two terms, and to the first alone."""
    rows = pd.DataFrame([_row(run) for run in measured["runs"]])
    curve = rows["kind"] + " x" + rows["share"].astype(str)
    ratio = attempt(
        testing.limit,
        rows["squared_error"],
        rows["limit"],
        rival=rows["own"],
        x=rows["n_pairs"],
        repetition=rows["repetition"],
        curve=curve,
        statement="L5",
    )
    return proved(
        [ratio],
        quantity="ratio to the limit as 1/n goes to 0",
        measured=ratio.measured,
        remark=(
            f"{rows['kind'].nunique()} kinds of world; the basis' term is "
            f"{(rows['shared'] / rows['limit'])[rows['share'] == 1].median():.0%} of the error at "
            f"n_0 = n and {(rows['shared'] / rows['limit'])[rows['share'] == 2].median():.0%} at "
            f"n_0 = 2 n."
        ),
        rows=rows,
    )


def _row(run: dict[str, Any]) -> dict[str, Any]:
    world = run["world"]
    given = ingredients(world, run["n_pairs"])
    old = Ingredients(given.basis, *(part[:_OLD] for part in given[1:]))
    limits = [
        theory.new_user_limit(
            *old,
            factor=given.factors[user],
            information=given.informations[user],
            covariance=feature_covariance(world),
            n_pairs=run["n_pairs"],
            new_pairs=run["new_pairs"],
        )
        for user in range(_OLD, 2 * _OLD)
    ]
    return {
        **{key: value for key, value in run.items() if key != "world"},
        "limit": float(np.mean([limit.value for limit in limits])),
        **{
            term: float(np.mean([limit.terms[term] for limit in limits]))
            for term in ("own", "shared")
        },
    }
