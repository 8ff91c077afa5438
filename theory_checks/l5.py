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
from simrlhf.study.checking import Check, Finding, Kind, attempt, proved
from simrlhf.study.checking.limit_worlds import (
    NORM_BOUND,
    Ingredients,
    by_kind,
    each_kind,
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
    procedure="the 34 kinds of world of L1; half of the users are fitted, the others adapted on "
    "the frozen basis, with as many pairs on average: intercept in 1/n of the ratio",
    rival="the user's own term alone: the basis taken for the truth",
    tolerance="99 % intervals of repetitions; no kind of world off, as in L1",
    source="theory.md, L5 (simrlhf.theory.new_users)",
)
# every how many kinds of world, sizes, repetitions
_SIZES = {
    "tiny": (12, (160, 640), 30),
    "smoke": (1, (300, 600), 20),
    "paper": (1, (200, 400, 800, 1600), 100),
}
_OLD = 4


def measure(size: str) -> dict[str, Any]:
    """Errors of new users who have as many pairs as the old ones."""
    step, sizes, repetitions = _SIZES[size]
    runs = []
    for number, kind in enumerate(limit_worlds("smoke")[::step]):
        config = replace(kind.config, n_users=2 * _OLD)
        for repetition in range(repetitions):
            world = make_world(config, seed=1000 * number + repetition)
            halves = _halves(world, max(sizes), seed=1000 * number + repetition)
            runs += [
                {
                    "kind": kind.name,
                    "repetition": repetition,
                    "world": world,
                    "n_pairs": n_pairs,
                    "squared_error": _new_users(world, halves, n_pairs),
                }
                for n_pairs in sizes
            ]
    return {"runs": runs}


def _halves(world: World, n_pairs: int, *, seed: int) -> tuple[Preferences, Preferences]:
    """Pairs of the old users and of the new ones."""
    height = n_pairs * -(-int(world.counts(n_pairs).max()) // n_pairs)
    everything = sample_preferences(world, np.full(2 * _OLD, height), seed=seed)
    old = np.arange(2 * _OLD) < _OLD
    return everything.of_users(old), everything.of_users(~old)


def _new_users(world: World, halves: tuple[Preferences, Preferences], n_pairs: int) -> float:
    """Fit the first half of the users, adapt the others; the mean squared error of these."""
    old, new = halves
    counts = world.counts(n_pairs)
    result = fit(
        old.switched_to_first(counts[:_OLD]),
        rank=world.config.rank,
        norm_bound=NORM_BOUND,
        theta_init=world.theta_init if world.theta_init.any() else None,
    )
    adapted = adapt_users(result, new.switched_to_first(counts[_OLD:]))
    errors = (adapted.delta - world.delta[_OLD:]).reshape(_OLD, -1)
    return float(np.einsum("ip,pq,iq->i", errors, feature_covariance(world), errors).mean())


def judge(measured: dict[str, Any]) -> Finding:
    """The ratio to the two terms, and to the first alone."""
    runs = measured["runs"]
    limits = [_limit(run["world"], run["n_pairs"]) for run in runs]
    rows = pd.DataFrame(
        [
            {key: value for key, value in run.items() if key != "world"} | found
            for run, found in zip(runs, limits, strict=True)
        ]
    )
    ratio = attempt(
        testing.limit,
        rows["squared_error"],
        rows["limit"],
        rival=rows["own"],
        x=rows["n_pairs"],
        repetition=rows["repetition"],
        curve=rows["kind"],
        statement="L5",
    )
    table = by_kind(
        rows.assign(
            ratio=rows["squared_error"] / rows["limit"], wrong=rows["squared_error"] / rows["own"]
        )
    )
    return proved(
        [ratio, each_kind(table, "L5"), _as_an_old_user()],
        quantity="ratio to the limit as 1/n goes to 0",
        measured=ratio.measured,
        remark=(
            f"{len(table)} kinds of world, {(table['off'] > 1).sum()} off at the largest n; the "
            f"basis' term is {(rows['shared'] / rows['limit']).median():.0%} of the error of a new "
            "user who has as many pairs as the old ones (median)."
        ),
        rows=rows,
    )


def _as_an_old_user() -> testing.Judgement:
    """With an old user's truth and as many pairs, L5 is L2's joint error, in any features."""
    random = np.random.default_rng(13)
    basis = np.linalg.qr(random.standard_normal((4, 2)))[0]
    factors = random.standard_normal((5, 2, 1))
    roots = random.standard_normal((6, 4, 4))
    *informations, covariance = roots @ np.swapaxes(roots, 1, 2) + np.eye(4)
    informations = np.array(informations)
    joint = theory.reward_covariances(basis, factors, informations)[0]
    found = theory.new_user_limit(
        basis,
        factors,
        informations,
        factor=factors[0],
        information=informations[0],
        covariance=covariance,
        n_pairs=70.0,
        new_pairs=70.0,
    )
    return attempt(
        testing.assert_identity,
        [found.value],
        [np.trace(covariance @ joint) / 70.0],
        rival=[np.trace(joint) / 70.0],
        statement="a new user with an old one's truth",
    )


def _limit(world: World, n_pairs: int) -> dict[str, float]:
    """Mean over the new users of L5 and of its two terms."""
    given = ingredients(world, n_pairs)
    old = Ingredients(given.basis, *(part[:_OLD] for part in given[1:]))
    limits = [
        theory.new_user_limit(
            *old,
            factor=given.factors[user],
            information=given.informations[user],
            covariance=feature_covariance(world),
            n_pairs=n_pairs,
            new_pairs=given.weights[user] * n_pairs,
        )
        for user in range(_OLD, 2 * _OLD)
    ]
    return {
        "limit": float(np.mean([limit.value for limit in limits])),
        **{
            term: float(np.mean([limit.terms[term] for limit in limits]))
            for term in ("own", "shared")
        },
    }
