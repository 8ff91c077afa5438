"""L4: the value that a greedy choice between two actions loses, to first order in 1 / n.

`n E gap_i -> (1 / 2) f(0) E[v' Cov_i v | margin 0]`, Cov_i the covariance of L2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import scipy.linalg
import scipy.stats

from simrlhf import policy, testing, theory
from simrlhf.study.checking import Check, Finding, Kind, attempt, fitted_draws, proved
from simrlhf.study.checking.limit_worlds import (
    by_kind,
    each_kind,
    ingredients,
    limit_runs,
    once_per_world,
)
from simrlhf.testing import Judgement
from simrlhf.world import DecisionConfig, World, WorldConfig

CHECK = Check(
    statement="L4",
    title="the exact first-order value gap of greedy policies",
    kind=Kind.LIMIT,
    claim="n E gap_i -> (1/2) f_i(0) E[v' Cov_i v | margin 0]; tr(P_perp Cov_i)/(2 sqrt(pi) "
    "||Theta_i||) for actions with N(0, I) features",
    procedure="gap of the fits of L1's worlds in closed form, by the angle to the truth; greedy "
    "policies of share_b in bandits of finitely many contexts with uniform margins, by exact "
    "values; intercepts in 1/n of the ratios to the limit, and to the gap that the normal law of "
    "the estimate lets expect in these very contexts",
    rival="the oracle's covariance; the errors along Theta counted too; the density at 0 doubled",
    tolerance="99 % intervals; kinds as in L1; identities to rounding",
    source="theory.md, L4 (derived in simrlhf.theory.value_gap_limit)",
)
_SIZES = {
    "tiny": ((400, 1600), 24),
    "smoke": ((300, 2400), 24),
    "paper": ((400, 800, 1600, 3200, 6400), 100),
}
_USERS, _CONTEXTS, _SCALE = 8, 2000, 1.0
_BANDITS = WorldConfig(
    n_users=_USERS,
    d1=6,
    rank=2,
    condition=1.3,
    user_norms="equal",
    features="trajectories",
    decision=DecisionConfig(
        mdp="margin",
        n_states=_USERS * _CONTEXTS,
        behaviour="contrast",
        margin_exponent=1.0,
        margin_scale=_SCALE,
    ),
)


def measure(size: str) -> dict[str, Any]:
    """Gaps in the worlds of L1, and in bandits."""
    runs = [
        {
            "kind": run.kind,
            "world": run.world,
            "n_pairs": run.n_pairs,
            "repetition": run.repetition,
            "gap": _gap_by_angle(run.world.theta, run.world.theta + run.errors),
        }
        for run in limit_runs(size)
    ]
    sizes, repetitions = _SIZES[size]
    bandits = [
        {
            "world": draw.world,
            "n_pairs": draw.n_pairs,
            "repetition": draw.repetition,
            "gap": policy.value_gaps(draw.world.mdp, draw.world.theta, draw.result.delta).mean,
        }
        for draw in fitted_draws(_BANDITS, sizes, repetitions, norm_bound=6.0, seed=4)
        if draw.world.mdp is not None
    ]
    return {"runs": runs, "bandits": bandits}


def _gap_by_angle(theta: np.ndarray, estimate: np.ndarray) -> float:
    """Mean gap of two actions with independent N(0, I) features: exact, and needs no contexts."""
    flat, guess = (matrices.reshape(len(matrices), -1) for matrices in (theta, estimate))
    norms = np.linalg.norm(flat, axis=1)
    cosine = np.sum(flat * guess, axis=1) / (norms * np.linalg.norm(guess, axis=1))
    return float(np.mean(norms * (1.0 - cosine)) / math.sqrt(math.pi))


def judge(measured: dict[str, Any]) -> Finding:
    """Ratios of gaps to their limits, in both families of worlds."""
    gaussian, bandits = _gaussian_rows(measured["runs"]), _bandit_rows(measured["bandits"])
    judgements = [
        attempt(
            testing.limit,
            rows["n_pairs"] * rows["gap"],
            rows[claimed],
            rival=rows[wrong],
            x=rows["n_pairs"],
            repetition=rows["repetition"],
            curve=rows["kind"],
            statement=f"L4, {name}",
        )
        for name, rows, claimed, wrong in (
            ("Gaussian actions", gaussian, "limit", "oracle"),
            ("Gaussian actions, errors along Theta left out", gaussian, "limit", "everywhere"),
            ("uniform margins", bandits, "limit", "doubled"),
            ("uniform margins, in these contexts", bandits, "expected", "doubled"),
        )
    ]
    ratio = gaussian["n_pairs"] * gaussian["gap"] / gaussian["limit"]
    wrong = gaussian["n_pairs"] * gaussian["gap"] / gaussian["oracle"]
    table = by_kind(gaussian.assign(ratio=ratio, wrong=wrong))
    judgements += [each_kind(table, "L4"), *_formulas()]
    means = ratio.groupby(gaussian["n_pairs"]).mean()
    return proved(
        judgements,
        quantity="ratio to the limit as 1/n goes to 0",
        measured=judgements[0].measured,
        remark=(
            f"{len(table)} kinds of world, {(table['off'] > 1).sum()} off at the largest n: mean "
            f"ratio {means.iloc[0]:.3f} at n = {means.index[0]}, {means.iloc[-1]:.3f} at "
            f"{means.index[-1]}. In bandits of {_CONTEXTS} contexts a user the ratio goes to "
            f"{judgements[2].measured.estimate:.3f}, and to {judgements[3].measured.estimate:.3f} "
            "where the contexts are taken as they are."
        ),
        rows=pd.concat([gaussian.merge(table, on="kind", how="left"), bandits], ignore_index=True),
    )


def _gaussian_rows(runs: list[dict[str, Any]]) -> pd.DataFrame:
    limits = once_per_world([(run["world"], run["n_pairs"]) for run in runs], _gaussian_limits)
    return pd.DataFrame(
        [
            {key: value for key, value in run.items() if key != "world"} | found
            for run, found in zip(runs, limits, strict=True)
        ]
    )


def _gaussian_limits(world: World, n_pairs: int) -> dict[str, float]:
    given = ingredients(world, n_pairs)
    joint, oracle = (theory.reward_covariances(*given, kind=kind) for kind in ("joint", "oracle"))
    norms = np.linalg.norm(world.theta, axis=(1, 2))
    everywhere = np.trace(joint, axis1=1, axis2=2) / (2.0 * math.sqrt(math.pi) * norms)
    return {
        "limit": float(theory.gaussian_value_gap_limit(world.theta, joint).mean()),
        "oracle": float(theory.gaussian_value_gap_limit(world.theta, oracle).mean()),
        "everywhere": float(everywhere.mean()),
    }


def _bandit_rows(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """The limit by the margins' density, and what these contexts let expect."""
    covariances = once_per_world(
        [(run["world"], run["n_pairs"]) for run in runs],
        lambda world, n_pairs: theory.reward_covariances(*ingredients(world, n_pairs)),
    )
    return pd.DataFrame(
        [
            {key: value for key, value in run.items() if key != "world"}
            | {"kind": "bandit"}
            | _bandit_limits(run["world"], covariance, run["n_pairs"])
            for run, covariance in zip(runs, covariances, strict=True)
        ]
    )


def _bandit_limits(world: World, covariance: np.ndarray, n_pairs: int) -> dict[str, float]:
    """Margins are uniform on `+-scale`, and features standard normal across Theta."""
    mdp = world.mdp
    assert mdp is not None
    flat = world.theta.reshape(world.n_users, -1)
    units = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    limit = theory.greedy_value_gap_limit(
        density=np.full(world.n_users, 1.0 / (2.0 * _SCALE)),
        moments=np.eye(flat.shape[1]) - units[:, :, None] * units[:, None, :],
        covariance=covariance,
    )
    differences = mdp.flat_features[0, :, 1] - mdp.flat_features[0, :, 0]
    expected = theory.normal_value_gap(
        margins=flat @ differences.T,
        variances=np.einsum("sp,npq,sq->ns", differences, covariance, differences, optimize=True),
        weights=mdp.initial,
        n_pairs=n_pairs,
    )
    return {
        "limit": float(limit.mean()),
        "expected": float(n_pairs * expected.mean()),
        "doubled": float(2.0 * limit.mean()),
    }


def _formulas() -> list[Judgement]:
    """The Gaussian form as a case of the general one, and the expected gap by simulation's law."""
    random = np.random.default_rng(4)
    theta = random.normal(size=(5, 3, 2))
    roots = random.normal(size=(5, 6, 6))
    covariance = roots @ roots.swapaxes(1, 2)
    flat = theta.reshape(5, 6)
    norms = np.linalg.norm(flat, axis=1)
    turned = np.array(
        [scipy.linalg.null_space(row[None]) for row in flat]  # an orthonormal basis across Theta
    )
    across = np.einsum("npa,npq,nqa->n", turned, covariance, turned)
    margins = random.normal(size=(5, 7))
    variances = random.uniform(0.2, 2.0, size=(5, 7))
    weights = random.dirichlet(np.ones(7), size=5)
    wrong_side = scipy.stats.norm.cdf(-np.abs(margins), scale=np.sqrt(variances / 30.0))
    return [
        attempt(
            testing.assert_identity, ours, by_hand, rival=1.1 * by_hand, statement=f"L4, {name}"
        )
        for name, ours, by_hand in (
            (
                "Gaussian actions written out",
                theory.gaussian_value_gap_limit(theta, covariance),
                across / (2.0 * math.sqrt(math.pi) * norms),
            ),
            (
                "the density's form written out",
                theory.greedy_value_gap_limit(
                    density=norms, moments=covariance, covariance=covariance[::-1]
                ),
                0.5 * norms * np.sum(covariance * covariance[::-1], axis=(1, 2)),
            ),
            (
                "finitely many contexts written out",
                theory.normal_value_gap(
                    margins=margins, variances=variances, weights=weights, n_pairs=30.0
                ),
                np.sum(weights * np.abs(margins) * wrong_side, axis=1),
            ),
        )
    ]
