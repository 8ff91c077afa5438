"""L3: what is free of parameters, traces that count parameters, Wilks' law, excess log-loss.

`sum_i w_i tr(H_i Cov_i) = p`, `2 [loglik(hat) - loglik(*)] -> chi^2_p`, and an expected held-out
log-loss of `p / (2 N n)` a pair above the truth's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.study.checking import Check, Finding, Kind, attempt, proved
from simrlhf.study.checking.limit_worlds import (
    Run,
    by_kind,
    each_kind,
    ingredients,
    limit_runs,
    once_per_world,
)
from simrlhf.world import World

CHECK = Check(
    statement="L3",
    title="parameter counts: traces, Wilks' law, excess log-loss",
    kind=Kind.LIMIT,
    claim="sum w_i tr(H_i Cov_i) = p and 2 [loglik(hat) - loglik(*)] -> chi^2_p, p = k(N d2 + d1 "
    "- k); excess log-loss p / (2 N n)",
    procedure="the worlds of L1; traces of the three covariances against hand-counted parameters; "
    "mean and variance of the statistic; each run's divergence from the truth over fresh pairs; "
    "no kind of world off",
    rival="p with the rotations of B counted, k(N d2 + d1); half the variance; p / (N n)",
    tolerance="1e-9 for traces (inverses of matrices of condition 1e3); 99 % intervals",
    source="theory.md, L3",
)


def measure(size: str) -> dict[str, Any]:
    """The likelihood-ratio statistic and errors of the runs of L1."""
    return {"runs": limit_runs(size)}


def judge(measured: dict[str, Any]) -> Finding:
    """Traces, the statistic's two moments, and the excess loss."""
    runs = measured["runs"]
    limits = once_per_world([(run.world, run.n_pairs) for run in runs], _limits)
    rows = pd.DataFrame([_row(run, found) for run, found in zip(runs, limits, strict=True)])
    where = {"repetition": rows["repetition"], "curve": rows["kind"], "x": rows["n_pairs"]}
    traces = [
        attempt(
            testing.assert_identity,
            rows[f"trace_{kind}"],
            rows[f"count_{kind}"],
            rival=rows["with_rotations"],
            tolerance=1e-9,
            statement=f"trace of {kind}",
        )
        for kind in ("joint", "oracle", "full")
    ]
    counts = attempt(
        testing.assert_identity,
        rows["parameters"],
        rows["count_joint"],
        rival=rows["with_rotations"],
        statement="the count of share-B",
    )
    mean = attempt(
        testing.limit,
        rows["wilks"],
        rows["parameters"],
        rival=rows["with_rotations"],
        statement="Wilks, mean",
        **where,
    )
    spread = _spread(rows)
    variance = attempt(
        testing.limit,
        spread["square"],
        spread["variance"],
        rival=0.5 * spread["variance"],
        repetition=spread["repetition"],
        statement="Wilks, variance",
    )
    loss = attempt(
        testing.limit,
        rows["excess"],
        rows["predicted_excess"],
        rival=2.0 * rows["predicted_excess"],
        statement="excess log-loss",
        **where,
    )
    table = by_kind(
        rows.assign(
            ratio=rows["wilks"] / rows["parameters"], wrong=rows["wilks"] / rows["with_rotations"]
        )
    )
    return proved(
        [each_kind(table, "Wilks"), mean, variance, loss, counts, _counts(), *traces],
        quantity="mean of the likelihood-ratio statistic over p as 1/n goes to 0",
        measured=mean.measured,
        remark=(
            f"Variance over 2p {variance.measured.estimate:.3f}; excess loss over "
            f"p / (2 N n) {loss.measured.estimate:.3f}; at n = {mean.evidence['smallest_x']:g} the "
            f"mean over p is {mean.evidence['ratio_at_smallest']:.3f}."
        ),
        rows=rows,
    )


def _counts() -> testing.Judgement:
    """Parameters of every class at sizes that tell N, d1, d2 and k apart, counted one by one.

    A rank-k matrix of d1 x d2 has `d1 d2 - (d1 - k)(d2 - k)` free entries: its last `(d1 - k)(d2 -
    k)` follow from the others.
    """
    found, by_hand, rotated = [], [], []
    for n, d1, d2, k in ((3, 5, 4, 2), (7, 6, 1, 3), (2, 3, 9, 3)):
        alone = min(k, d1, d2)
        one = d1 * d2 - (d1 - alone) * (d2 - alone)
        stacked = d1 * n * d2 - (d1 - k) * (n * d2 - k)
        expected = {
            "share_b": stacked,
            "oracle": n * k * d2,
            "full": n * d1 * d2,
            "local": n * one,
            "global": one,
        }
        for kind, count in expected.items():
            found.append(theory.parameter_count(kind, n_users=n, d1=d1, d2=d2, rank=k))
            by_hand.append(count)
            rotated.append(count + k * k)
    return attempt(
        testing.assert_identity,
        np.array(found, dtype=float),
        by_hand,
        rival=rotated,
        statement="parameters of every class",
    )


def _spread(rows: pd.DataFrame) -> pd.DataFrame:
    """Squared deviations from the mean of each kind at each n, so that `c / n` does not enter.

    With m repetitions a squared deviation has expectation `(1 - 1/m)` of the variance. The smallest
    n is left out: the variance has a `c / n` of its own.
    """
    large = rows[rows["n_pairs"] > rows["n_pairs"].min()].copy()
    groups = large.groupby(["kind", "n_pairs"])["wilks"]
    large["square"] = (large["wilks"] - groups.transform("mean")) ** 2
    large["variance"] = 2.0 * large["parameters"] * (1.0 - 1.0 / groups.transform("size"))
    return large


def _row(run: Run, limits: dict[str, Any]) -> dict[str, Any]:
    kept = ("kind", "n_pairs", "repetition", "wilks", "excess")
    return {
        **{name: getattr(run, name) for name in kept},
        **limits,
        "predicted_excess": theory.excess_log_loss(
            limits["parameters"], n_users=run.world.n_users, n_pairs=run.n_pairs
        ),
    }


def _limits(world: World, n_pairs: int) -> dict[str, Any]:
    """Traces of a world, and its parameters counted by hand and by the theory."""
    config = world.config
    given = ingredients(world, n_pairs)
    sizes = {name: getattr(config, name) for name in ("n_users", "d1", "d2", "rank")}
    n, d1, d2, k = sizes.values()
    weighted = given.weights[:, None, None] * given.informations
    return {
        "parameters": theory.parameter_count("share_b", **sizes),
        # a point of the Grassmannian, and a k x d2 factor for each user
        "count_joint": k * (d1 - k) + n * k * d2,
        "count_oracle": n * k * d2,
        "count_full": n * d1 * d2,
        "with_rotations": k * d1 + n * k * d2,
        **{
            f"trace_{kind}": np.einsum(
                "ipq,iqp->", weighted, theory.reward_covariances(*given, kind=kind)
            )
            for kind in ("joint", "oracle", "full")
        },
    }
