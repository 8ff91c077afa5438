"""S5: what a pessimistic policy loses where its set holds the truth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import policy, testing, theory
from simrlhf.study.checking import (
    Check,
    Draw,
    Finding,
    Kind,
    attempt,
    exactly,
    fitted_draws,
    proved,
)
from simrlhf.study.checking.by_hand import written_out
from simrlhf.theory import BoundStatus
from simrlhf.world import MDP, DecisionConfig, WorldConfig

CHECK = Check(
    statement="S5",
    title="the value gap of pessimistic and of greedy policies",
    kind=Kind.SOUND,
    claim="gap <= ||Theta* - Theta_hat|| ||g_tar||_* + zeta ||g_tar||_* + eps <= 2 zeta ||g_tar||_*"
    " + eps where the set holds the truth; greedy: gap <= ||Theta* - Theta_hat|| ||g_tar - g_hat||",
    procedure="exact max-min policies over balls and design ellipsoids around fits of share_b in "
    "Garnets, radius 1 to 2 times the error, eps the solver's own certificate; two actions with a "
    "truth at the far edge of the set, where the bound is attained",
    rival="half of each bound, on the attained instances",
    tolerance="relative 1e-9; a truth outside of the set must be NOT_APPLICABLE",
    source="theory.md, S5 (proof in simrlhf.theory.pessimism)",
)
_SIZES = {"tiny": ((60,), 4), "smoke": ((60, 240, 960), 10), "paper": ((60, 240, 960), 200)}
_GARNET = DecisionConfig(mdp="garnet", n_states=8, n_actions=3, horizon=3, branching=3)
_BASE = WorldConfig(n_users=10, d1=4, rank=2, features="trajectories", decision=_GARNET)
_WORLDS = {
    "all actions compared": _GARNET,
    "one action in five": replace(_GARNET, behaviour="careful", coverage=0.2),
}
# radii over the error: the truth is on the edge, and well inside
_WIDTHS = (1.0, 2.0)


def measure(size: str) -> dict[str, Any]:
    """Gaps of pessimistic and greedy policies, and the norms that bound them."""
    sizes, repetitions = _SIZES[size]
    rows: list[dict[str, Any]] = []
    for name, decision in _WORLDS.items():
        config = replace(_BASE, decision=decision)
        for draw in fitted_draws(config, sizes, repetitions, norm_bound=8.0, seed=5):
            rows += _rows(name, draw)
    return {"rows": pd.DataFrame(rows), "attained": _at_the_edge()}


def _rows(name: str, draw: Draw) -> list[dict[str, Any]]:
    world, centre = draw.world, draw.result.theta_init + draw.result.delta
    mdp, behaviours = world.mdp, world.behaviours
    assert mdp is not None
    assert behaviours is not None
    error = (world.theta - centre).reshape(world.n_users, -1)
    best = policy.optimal_policy(mdp, world.theta)
    sigma = policy.pair_moments(mdp, behaviours)
    base = policy.feature_expectations(mdp, behaviours.second)
    target = (policy.feature_expectations(mdp, best.policy) - base).reshape(error.shape)
    greedy = policy.value_gaps(mdp, world.theta, centre).gaps
    chosen = policy.optimal_policy(mdp, centre).policy
    found = (policy.feature_expectations(mdp, chosen) - base).reshape(error.shape)
    spread = best.value + policy.optimal_policy(mdp, -world.theta).value
    norms = {
        "ball": (np.eye(error.shape[1]), np.eye(error.shape[1])),
        "design": (sigma, np.linalg.inv(sigma)),
    }
    rows = []
    for kind, (metric, inverse) in norms.items():
        size, dual, across = (
            np.sqrt(np.einsum("np,pq,nq->n", vectors, matrix, vectors))
            for vectors, matrix in (
                (error, metric),
                (target, inverse),
                (target - found, inverse),
            )
        )
        for width in _WIDTHS:
            # the error itself, so that rounding cannot put the truth outside
            radius = width * size * (1.0 + 1e-12)
            sets = (
                policy.frobenius_ball(centre, radius)
                if kind == "ball"
                else policy.design_ellipsoid(centre, sigma, radius)
            )
            plan = policy.pessimistic_policy(mdp, sets, reference=behaviours.second)
            reached = policy.value(mdp, plan.policy, world.theta)
            rows += [
                {
                    "world": name,
                    "set": kind,
                    "width": width,
                    "n_pairs": draw.n_pairs,
                    "repetition": draw.repetition,
                    "user": user,
                    "gap": best.value[user] - reached[user],
                    "greedy_gap": greedy[user],
                    "error": size[user],
                    "radius": radius[user],
                    "target": dual[user],
                    "across": across[user],
                    "certificate": max(plan.certificate[user], 0.0),
                    "spread": spread[user],
                }
                for user in range(world.n_users)
            ]
    return rows


def _at_the_edge() -> pd.DataFrame:
    """Two actions, the second worth almost `zeta ||g||` by the estimate and twice that by truth.

    Pessimism stays with the reference, for the worst reward of the set makes the second one bad.
    Greedy takes the second for a little, where by truth it costs all that the error allows.
    """
    rows = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        g = rng.normal(size=(3, 1))
        norm, radius = float(np.linalg.norm(g)), float(rng.uniform(0.5, 3.0))
        mdp = MDP.bandit(np.stack([np.zeros((3, 1)), g])[None])
        centre = (1.0 - 1e-4) * radius * g / norm
        truth = centre + radius * g / norm
        reference = np.array([[[1.0, 0.0]]])
        plan = policy.pessimistic_policy(
            mdp, policy.frobenius_ball(centre[None], radius), reference=reference
        )
        best = policy.optimal_policy(mdp, truth).value[0]
        little = 1e-4 * radius * g / norm
        turned = policy.value_gaps(mdp, little - radius * g / norm, little)
        rows.append(
            {
                "gap": best - policy.value(mdp, plan.policy, truth)[0],
                "error": radius,
                "radius": radius,
                "target": norm,
                "certificate": max(float(plan.certificate[0]), 0.0),
                "greedy_gap": float(turned.gaps[0]),
                "across": norm,
            }
        )
    return pd.DataFrame(rows)


def judge(measured: dict[str, Any]) -> Finding:
    """No gap above its bound, and gaps that attain it."""
    rows, edge = _with_bounds(measured["rows"]), _with_bounds(measured["attained"])
    judgements = [
        attempt(
            testing.never_violated,
            rows[gap],
            # values are of order one, and a gap may be rounding alone
            rows[bound] + 1e-10,
            tight=(edge[gap], edge[bound]),
            rival=0.5 * edge[bound],
            statement=f"S5, {name}",
        )
        for name, gap, bound in (
            ("pessimism", "gap", "bound"),
            ("pessimism, twice the radius", "gap", "worst_case"),
            ("greedy", "greedy_gap", "greedy_bound"),
        )
    ]
    judgements += _formulas()
    filled = rows["gap"] / rows["bound"]
    informs = rows[rows["width"] == 1.0].groupby("n_pairs")[["worst_case", "spread"]].median()
    saying = informs.index[informs["worst_case"] < informs["spread"]]
    return proved(
        judgements,
        quantity="largest gap over its bound, at the edge of the set",
        measured=exactly(float((edge["gap"] / edge["bound"]).max())),
        tightness=float((edge["gap"] / edge["bound"]).max()),
        n_star=float(saying.min()) if saying.size else math.inf,
        remark=(
            f"Never violated in {len(rows)} policies of {len(rows) // len(_WIDTHS) // 2} users; "
            f"their gap is {filled.median():.3f} of its bound in the median, {filled.max():.2f} at "
            "most. n* is of Garnets with S = 8, A = 3, H = 3, d1 = 4, radius the error itself: "
            "half of the bounds are below the range of values."
        ),
        rows=rows,
    )


def _with_bounds(rows: pd.DataFrame) -> pd.DataFrame:
    found = []
    for row in rows.to_dict("records"):
        bound = theory.pessimism_bound(
            error_norm=row["error"],
            radius=row["radius"],
            target_norm=row["target"],
            slack=row["certificate"],
        )
        greedy = theory.greedy_bound(error_norm=row["error"], direction_norm=row["across"])
        found.append(
            {
                "bound": bound.value,
                "worst_case": bound.terms["worst_case"],
                "greedy_bound": greedy.value,
            }
        )
    return rows.assign(**pd.DataFrame(found, index=rows.index))


def _formulas() -> list[testing.Judgement]:
    """The functions written out, and a truth outside of the set."""
    given = {"error_norm": 0.7, "radius": 1.1, "target_norm": 3.0}
    bound = theory.pessimism_bound(**given, slack=0.05)
    outside = theory.pessimism_bound(**(given | {"error_norm": 1.2}))
    told = {
        "S5 written out": (bound.value, 0.7 * 3.0 + 1.1 * 3.0 + 0.05),
        "S5 without the error": (bound.terms["worst_case"], 2.0 * 1.1 * 3.0 + 0.05),
        "greedy written out": (
            theory.greedy_bound(error_norm=0.7, direction_norm=3.0, slack=0.05).value,
            0.7 * 3.0 + 0.05,
        ),
        "a truth outside is not applicable": (
            float(outside.status is BoundStatus.NOT_APPLICABLE),
            1.0,
        ),
    }
    return written_out(told)
