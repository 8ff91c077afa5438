"""L2: the covariance of every user's fitted reward, for the joint fit, a known basis and none.

`n Cov(vec E_i) -> Cov_i`; hence `n E||E_i||_Sigma^2 -> tr(Sigma Cov_i)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.integrate
import scipy.stats

from simrlhf import testing, theory
from simrlhf.core import links
from simrlhf.study.checking import Check, Finding, Kind, attempt, fitted_draws, proved
from simrlhf.study.checking.limit_worlds import (
    NORM_BOUND,
    SIZES,
    by_kind,
    each_kind,
    feature_covariance,
    ingredients,
    limit_runs,
    limit_worlds,
    once_per_world,
)
from simrlhf.world import World

CHECK = Check(
    statement="L2",
    title="the exact first-order error of every user's reward",
    kind=Kind.LIMIT,
    claim="n E||E_i||_Sigma^2 -> tr(Sigma Cov_i): joint share-B, oracle (basis known) and full",
    procedure="the worlds of L1, squared errors under the features' covariance over all users; "
    "intercept in 1/n of the ratio; oracle and full in two of the kinds; closed forms and the "
    "matrix order oracle <= share-B <= full",
    rival="the oracle's covariance for the joint fit, and the joint one for the two others: what "
    "not knowing the basis, or knowing it, adds",
    tolerance="99 % intervals; kinds as in L1; the order of matrices to 1e-9 of the largest entry",
    source="theory.md, L2 (derived in simrlhf.theory.limits)",
)
_OTHERS = ("oracle", "full")


def measure(size: str) -> dict[str, Any]:
    """Squared reward errors of the joint fits, and of two other estimators in a few worlds."""
    runs = [
        {
            "estimator": "joint",
            "kind": run.kind,
            "world": run.world,
            "n_pairs": run.n_pairs,
            "repetition": run.repetition,
            "squared_error": _squared(run.errors, run.world),
        }
        for run in limit_runs(size)
    ]
    sizes, repetitions = SIZES[size]
    for estimator in _OTHERS:
        for number, kind in enumerate(limit_worlds("tiny")[1:3]):
            for draw in fitted_draws(
                kind.config,
                sizes,
                repetitions,
                estimator=estimator,
                norm_bound=NORM_BOUND,
                seed=100 + number,
            ):
                errors = draw.result.delta - draw.world.delta
                runs.append(
                    {
                        "estimator": estimator,
                        "kind": kind.name,
                        "world": draw.world,
                        "n_pairs": draw.n_pairs,
                        "repetition": draw.repetition,
                        "squared_error": _squared(errors, draw.world),
                    }
                )
    return {"runs": runs}


def _squared(errors: np.ndarray, world: World) -> float:
    """Mean over users of `||E_i||_Sigma^2`."""
    flat = errors.reshape(errors.shape[0], -1)
    return float(np.einsum("ip,pq,iq->i", flat, feature_covariance(world), flat).mean())


def judge(measured: dict[str, Any]) -> Finding:
    """Ratios to the limit for three estimators, and the order of their covariances."""
    runs = measured["runs"]
    limits = once_per_world([(run["world"], run["n_pairs"]) for run in runs], _limits)
    rows = pd.DataFrame(
        [
            {key: value for key, value in run.items() if key != "world"} | found
            for run, found in zip(runs, limits, strict=True)
        ]
    )
    judgements = []
    for estimator, wrong in (("joint", "oracle"), ("oracle", "joint"), ("full", "joint")):
        mine = rows[rows["estimator"] == estimator]
        judgements.append(
            attempt(
                testing.limit,
                mine["n_pairs"] * mine["squared_error"],
                mine[estimator],
                rival=mine[wrong],
                x=mine["n_pairs"],
                repetition=mine["repetition"],
                curve=mine["kind"],
                statement=f"L2 of {estimator}",
            )
        )
    judgements.append(
        attempt(
            testing.never_violated,
            rows["disorder"],
            1e-9,
            rival=0.5 * rows["disorder_reversed"],
            tight=(rows["disorder_reversed"], rows["disorder_reversed"]),
            statement="oracle <= share-B <= full",
        )
    )
    ours, by_quadrature, at_zero = _informations()
    judgements.append(
        attempt(
            testing.assert_identity,
            ours,
            by_quadrature,
            rival=at_zero,
            tolerance=1e-8,  # of scipy's adaptive quadrature
            statement="the information of isotropic features",
        )
    )
    joint = rows[rows["estimator"] == "joint"]
    scaled = joint["n_pairs"] * joint["squared_error"]
    table = by_kind(joint.assign(ratio=scaled / joint["joint"], wrong=scaled / joint["oracle"]))
    judgements.append(each_kind(table, "L2"))
    found = judgements[0].measured
    others = ", ".join(
        f"{name} {judgement.measured.estimate:.3f}"
        for name, judgement in zip(_OTHERS, judgements[1:3], strict=True)
    )
    return proved(
        judgements,
        quantity="ratio to the limit as 1/n goes to 0, share_b",
        measured=found,
        remark=(
            f"{len(table)} kinds of world, {(table['off'] > 1).sum()} off at the largest n; the "
            f"same ratio of {others}; the joint limit is "
            f"{np.median(joint['joint'] / joint['oracle']):.2f} times the oracle's and "
            f"{np.median(joint['joint'] / joint['full']):.2f} times full's (medians)."
        ),
        rows=rows.merge(table, on="kind", how="left"),
    )


def _limits(world: World, n_pairs: int) -> dict[str, float]:
    """Mean over users of `tr(Sigma Cov_i)` of three kinds, and how far they are out of order."""
    given = ingredients(world, n_pairs)
    covariance = feature_covariance(world)
    each = {
        kind: theory.reward_covariances(*given, kind=kind) for kind in ("joint", "oracle", "full")
    }
    scale = np.abs(each["full"]).max()
    out_of_order = max(_excess(each["oracle"], each["joint"]), _excess(each["joint"], each["full"]))
    return {
        **{
            kind: float(np.einsum("ipq,qp->i", found, covariance).mean())
            for kind, found in each.items()
        },
        "disorder": out_of_order / scale,
        "disorder_reversed": _excess(each["full"], each["oracle"]) / scale,
    }


def _informations() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`u' H u` and the trace of H, by the theory, by scipy's quadrature, and at zero reward.

    `t`, the feature along `Theta`, is normal, or of density `(1 - t^2 / p)^((p - 3) / 2)` on the
    sphere, where the other `p - 1` directions share what `t` leaves of the squared norm p.
    """
    ours, exact, at_zero = [], [], []
    for name, norm, p, law in itertools.product(
        ("logistic", "laplace"), (0.3, 8.0), (2, 5), ("gaussian", "sphere")
    ):
        link = links.get_link(name)
        theta = np.full((p, 1), norm / np.sqrt(p))
        found = theory.isotropic_fisher(theta, link, law)[0]
        unit = theta[:, 0] / norm
        ours += [unit @ found @ unit, np.trace(found)]

        def mean(value: Callable[[float], float], p: int = p, law: str = law) -> float:
            # in the angle the sphere's density has no poles at its ends
            if law == "gaussian":
                return (
                    2.0
                    * scipy.integrate.quad(
                        lambda t: scipy.stats.norm.pdf(t) * value(t), 0.0, 12.0, epsabs=1e-12
                    )[0]
                )
            weight = scipy.integrate.quad(lambda a: np.cos(a) ** (p - 2), 0.0, np.pi / 2)[0]
            inside = scipy.integrate.quad(
                lambda a: np.cos(a) ** (p - 2) * value(np.sqrt(p) * np.sin(a)), 0.0, np.pi / 2,
                epsabs=1e-12, limit=200,
            )[0]  # fmt: skip
            return inside / weight

        def information(t: float, norm: float = norm, link: links.Link = link) -> float:
            return float(link.information(np.float64(norm * t)))

        along = mean(lambda t, of=information: of(t) * t**2)
        rest = (lambda t, p=p: p - 1.0) if law == "gaussian" else (lambda t, p=p: p - t**2)
        exact += [along, along + mean(lambda t, of=information, left=rest: of(t) * left(t))]
        at_zero += [information(0.0), p * information(0.0)]
    return np.array(ours), np.array(exact), np.array(at_zero)


def _excess(smaller: np.ndarray, larger: np.ndarray) -> float:
    """Largest eigenvalue of `smaller - larger` over the users, at least 0."""
    return max(float(np.linalg.eigvalsh(smaller - larger)[:, -1].max()), 0.0)
