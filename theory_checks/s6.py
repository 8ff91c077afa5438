"""S6: a new user on the frozen basis: what he cannot reach, and what noise leaves.

`||Delta_hat_0 - T||^2 = ||V_hat - V0||^2 + ||rho||^2`,
`||rho|| <= sine ||B^<>'T|| + ||(I - P^<>) T||`,
`||V_hat - V0|| <= (||B_hat'G_0|| + L ||Z||_op ||X vec rho||) / (s lambda_min(Z'Z))`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core import subspaces
from simrlhf.estimators import adapt_users
from simrlhf.sampling import sample_preferences
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
from simrlhf.study.checking.newcomers import newcomers
from simrlhf.world import WorldConfig, make_world

DELTA = 0.05
# scores are less wide than their widest where rewards are not zero
_TYPICAL = 0.5
CHECK = Check(
    statement="S6",
    title="new users on a frozen basis",
    kind=Kind.SOUND,
    claim="||E_0||^2 <= ((a + L ||Z|| ||X rho||) / (s m_0))^2 + ||rho||^2; ||B_hat'G_0|| within "
    "its sub-Gaussian bound w.p. 1 - delta",
    procedure="users of another world with the same basis, in and off its span, adapted by fits of "
    "few and many pairs under three links; equality for a quadratic loss with one parameter; a "
    "quadratic form of 20,000 fair signs at delta = .001",
    rival="the bound without the missed part's curvature term, at the equality; the quadratic form "
    "without its 2 ||S|| log(1/delta); half of the largest mean, (w / 2) sqrt(tr S), for the users",
    tolerance="relative 1e-9; 99 % Clopper-Pearson interval above delta rejects",
    source="theory.md, S6 (proof in simrlhf.theory.new_users)",
)
# repetitions, sizes, and every how many of the worlds
_SETTINGS = {
    "tiny": (3, (40, 160), 2),
    "smoke": (10, (20, 120, 480), 1),
    "paper": (200, (40, 160, 640), 1),
}
_BASE = WorldConfig(n_users=8, d1=6, rank=2, nu=0.3, user_norms="equal", norm_bound=1.5)
# bounded features and rewards: the worst curvature is moderate
_BOUNDED = {"d1": 4, "rank": 1, "nu": 1.0, "norm_bound": 1.001, "features": "sphere"}
_WORLDS = (
    ("bounded", _BOUNDED),
    ("in the span", {}),
    ("off the span", {"tail": 0.3}),
    ("laplace", {"link": "laplace"}),
    ("probit, off the span", {"link": "probit", "tail": 0.3}),
)


def measure(size: str) -> dict[str, Any]:
    """Ingredients of every adapted user."""
    repetitions, sizes, step = _SETTINGS[size]
    runs = []
    for name, changes in _WORLDS[::step]:
        config = replace(_BASE, **changes)
        for draw in fitted_draws(config, sizes, repetitions, norm_bound=config.norm_bound):
            runs += _adapted(name, draw, max(sizes))
    signs = np.random.default_rng(6).choice([-0.5, 0.5], size=(20_000, 60)).sum(axis=1)
    return {"runs": runs, "signs": np.abs(signs)}


def _adapted(name: str, draw: Draw, most: int) -> list[dict[str, Any]]:
    """New users with the world's basis: another draw of the right directions, turned to it."""
    world, basis = draw.world, draw.result.basis
    other = make_world(world.config, seed=10_000 + draw.repetition)
    new = newcomers(world, other)
    everything = sample_preferences(new, most, seed=20_000 + draw.repetition)
    prefs = everything.switched_to_first(new.counts(draw.n_pairs))
    adapted = adapt_users(draw.result, prefs)
    sine = subspaces.subspace_distance(basis, world.basis, "spectral")
    rewards = np.einsum("jab,jab->j", prefs.features, new.delta[prefs.users])
    slopes = np.asarray(new.link.loss_slope(rewards, prefs.labels))
    found = []
    for user in range(new.n_users):
        mine = np.flatnonzero((prefs.users == user) & (prefs.weights > 0))
        x, truth, z = prefs.features[mine], new.delta[user], rewards[mine]
        start = basis.T @ truth
        missed = truth - basis @ start
        projected = np.einsum("ak,jab->jkb", basis, x).reshape(x.shape[0], -1)
        ends = [z, z - np.einsum("jab,ab->j", x, missed),
                np.einsum("jab,ab->j", x, adapted.delta[user])]  # fmt: skip
        inside = world.basis.T @ truth
        found.append(
            {
                "world": name,
                "n_pairs": draw.n_pairs,
                "repetition": draw.repetition,
                "user": user,
                "link": new.link,
                "error": float(np.linalg.norm(adapted.delta[user] - truth)),
                "inside_error": float(np.linalg.norm(basis.T @ adapted.delta[user] - start)),
                "missed": float(np.linalg.norm(missed)),
                "missed_rewards": float(np.linalg.norm(np.einsum("jab,ab->j", x, missed))),
                "noise": float(np.linalg.norm(projected.T @ slopes[mine])),
                "design": projected.T @ projected,
                "largest_reward": float(max(np.abs(end).max() for end in ends)),
                "largest_truth": float(np.abs(z).max()),
                "sine": sine,
                "inside_norm": float(np.linalg.norm(inside)),
                "outside_norm": float(np.linalg.norm(truth - world.basis @ inside)),
            }
        )
    return found


def judge(measured: dict[str, Any]) -> Finding:
    """Both inequalities on all users, the identity, the equality and the chance bound."""
    rows = pd.DataFrame([_row(run) for run in measured["runs"]])
    signs = measured["signs"]
    design = np.array([[60.0]])
    edge = theory.new_user_noise_bound(design, score_width=1.0, delta=0.001)
    log = np.log(1000.0)
    by_hand = 0.5 * np.sqrt(60.0 * (1.0 + 2.0 * np.sqrt(log) + 2.0 * log))
    reached, without = _at_equality()
    pieces = np.hypot(rows["inside_error"], rows["missed"])
    # users are independent, their nested numbers of pairs are not
    last = rows[rows["n_pairs"] == rows["n_pairs"].max()]
    judgements = [
        attempt(
            testing.assert_identity, rows["error"], pieces,
            rival=rows["inside_error"] + rows["missed"], statement="the two parts of the error",
        ),
        attempt(
            testing.never_violated, rows["missed"], rows["missed_bound"] + 1e-12,
            rival=rows["outside_only"] + 1e-12, statement="||rho||",
        ),
        attempt(
            testing.never_violated, rows["error"], rows["bound"],
            tight=([1.0] * len(reached), reached), rival=without, statement="S6",
        ),
        attempt(
            testing.assert_identity, reached, np.ones(len(reached)), rival=without,
            statement="S6 at equality",
        ),
        attempt(
            testing.never_violated, signs, edge, rival=0.5 * np.sqrt(60 * (1 + 2 * np.sqrt(log))),
            delta=0.001, statement="the quadratic form of fair signs",
        ),
        attempt(
            testing.never_violated, last["noise"], last["noise_bound"], delta=DELTA,
            rival=last["mean_noise"], statement="||B_hat'G_0||",
        ),
        attempt(
            testing.assert_identity, [edge], [by_hand], rival=[1.1 * by_hand],
            statement="the quadratic form written out",
        ),
    ]  # fmt: skip
    judgements += _formulas()
    filled = rows["error"] / rows["bound"]
    bounded = rows[rows["world"] == "bounded"]
    informs = (bounded["bound"] < 2.0 * _BOUNDED["norm_bound"]).groupby(bounded["n_pairs"])
    informs = informs.mean() > 0.5
    return proved(
        judgements,
        quantity="largest error of a new user over its bound",
        measured=exactly(float(filled.max())),
        tightness=float(filled.max()),
        n_star=float(informs[informs].index.min()) if informs.any() else np.inf,
        informative=bool(informs.any()),
        remark=(
            f"Attained by a quadratic loss with one parameter. Never violated for {len(rows)} new "
            f"users; {filled.median():.2f} of the bound in the "
            f"median; the noise is {(rows['noise'] / rows['noise_bound']).median():.2f} of its "
            f"chance bound. n* is the new user's own number of pairs, from which on half of the "
            f"bounds are below 2 R in the bounded world (d1 = 4, k = 1, R = 1)."
        ),
        rows=rows,
    )


def _row(run: dict[str, Any]) -> dict[str, Any]:
    values = np.linalg.eigvalsh(run["design"])
    constants = theory.link_constants(run["link"], margin=run["largest_truth"])
    bound = theory.new_user_bound(
        noise=run["noise"],
        missed=run["missed"],
        missed_rewards=run["missed_rewards"],
        smallest_design=max(float(values[0]), 0.0),
        largest_design=float(values[-1]),
        curvature=theory.curvature_floor(run["link"], margin=run["largest_reward"]),
        curvature_bound=run["link"].curvature_bound,
    )
    kept = ("world", "n_pairs", "repetition", "user", "error", "inside_error", "missed", "noise")
    return {
        **{name: run[name] for name in kept},
        "bound": bound.value,
        "missed_bound": theory.missed_truth(
            largest_sine=run["sine"],
            inside_norm=run["inside_norm"],
            outside_norm=run["outside_norm"],
        ),
        "outside_only": run["outside_norm"],
        # (w / 2) sqrt(tr S): the root mean square at the widest score, without deviations
        "mean_noise": 0.5 * constants.score_width * np.sqrt(np.trace(run["design"])) * _TYPICAL,
        "noise_bound": theory.new_user_noise_bound(
            run["design"], score_width=constants.score_width, delta=DELTA
        ),
    }


def _formulas() -> list[testing.Judgement]:
    """The functions against their formulas written out, at numbers that tell all parts apart."""
    bound = theory.new_user_bound(
        noise=1.3, missed=0.7, missed_rewards=0.9, smallest_design=3.0, largest_design=5.0,
        curvature=0.2, curvature_bound=0.25,
    ).value  # fmt: skip
    by_hand = (((1.3 + 0.25 * 5**0.5 * 0.9) / (0.2 * 3.0)) ** 2 + 0.7**2) ** 0.5
    design, log = np.diag([0.02, 0.05]), np.log(10.0)
    noise = theory.new_user_noise_bound(design, score_width=1.7, delta=0.1)
    form = 0.07 + 2.0 * np.sqrt((0.02**2 + 0.05**2) * log) + 2.0 * 0.05 * log
    missed = theory.missed_truth(largest_sine=0.3, inside_norm=1.7, outside_norm=0.4)
    return written_out(
        {
            "what is missed": (missed, 0.3 * 1.7 + 0.4),
            "S6 written out": (bound, by_hand),
            "the chance bound written out": (noise, 1.7 / 2.0 * form**0.5),
        }
    )


def _at_equality() -> tuple[np.ndarray, np.ndarray]:
    """A quadratic loss, one parameter, and rewards of rho proportional to the projected features.

    With `Z = z` a column, `X vec rho = c z` and residuals e the fit is
    `V_hat - V0 = (z'e + c z'z) / z'z` where both have one sign. Returned relative to the error, and
    the same without the curvature term.
    """
    reached, without = [], []
    for norm, noise, c, missed in (
        (4.0, 1.3, 0.5, 0.7),
        (9.0, 0.2, 0.1, 0.0),
        (2.5, 3.0, 0.9, 2.0),
    ):
        error = np.hypot((noise + c * norm) / norm, missed)
        given = {
            "noise": noise,
            "missed": missed,
            "smallest_design": norm,
            "largest_design": norm,
            "curvature": 1.0,
            "curvature_bound": 1.0,
        }
        rewards = c * np.sqrt(norm)
        reached.append(theory.new_user_bound(missed_rewards=rewards, **given).value / error)
        without.append(theory.new_user_bound(missed_rewards=0.0, **given).value / error)
    return np.array(reached), np.array(without)
