"""L1: the squared subspace distance goes to tr I_eff^{-1} / n, and single runs follow the score.

`n E[dist(B_hat, B^<>)^2] -> tr I_eff^{-1}` for the joint share-B fit of a well-specified truth, and
run by run `B_hat (B'B_hat)^{-1} - B = efficient-score step + O(1 / n)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core.links import LOGISTIC
from simrlhf.metrics import efficiency_limits
from simrlhf.study.checking import Check, Finding, Kind, attempt, proved
from simrlhf.study.checking.limit_worlds import (
    Ingredients,
    Run,
    by_kind,
    each_kind,
    feature_covariance,
    ingredients,
    limit_runs,
    once_per_world,
)
from simrlhf.world import World

CHECK = Check(
    statement="L1",
    title="the exact first-order error of the shared subspace",
    kind=Kind.LIMIT,
    claim="n E[dist^2] -> tr I_eff^{-1}, and each run's subspace moves by the efficient score",
    procedure="34 kinds of world (3 links, d2 = 1 and 2, sphere, anisotropic, base model, "
    "condition, unequal n_i); nested n: intercept in 1/n of the ratio over repetitions; slope of "
    "the remainder after the efficient-score step; matrices against closed forms",
    rival="the information of a reward of zero, I(0) = 1/4 for the logistic link; a remainder of "
    "slope -1/2, as a wrong step leaves",
    tolerance="99 % intervals; a kind of world is off when its ratio at the largest n is further "
    "from 1 than 4 standard errors and 15 %, for 34 of them are looked at and c / n remains; the "
    "same rule must find kinds off under the rival",
    source="theory.md, L1 (derived in simrlhf.theory.limits and efficient_score)",
)


def measure(size: str) -> dict[str, Any]:
    """Fits of every kind of world, with scores and displacements."""
    return {"runs": limit_runs(size)}


def judge(measured: dict[str, Any]) -> Finding:
    """Ratio to the limit, slope of the remainder, and the closed forms."""
    runs = measured["runs"]
    limits = once_per_world([(run.world, run.n_pairs) for run in runs], _limits)
    rows = pd.DataFrame([_row(run, found) for run, found in zip(runs, limits, strict=True)])
    scaled = rows["n_pairs"] * rows["distance"] ** 2
    where = {"repetition": rows["repetition"], "curve": rows["kind"]}
    ratio = attempt(
        testing.limit,
        scaled,
        rows["limit"],
        rival=rows["at_zero"],
        x=rows["n_pairs"],
        statement="L1",
        **where,
    )
    score = attempt(
        testing.rate,
        rows["n_pairs"],
        rows["remainder"],
        exponent=-1.0,
        rival=-0.5,
        statement="remainder after the efficient score",
        **where,
    )
    closed = rows.dropna(subset="closed_form")
    forms = attempt(
        testing.assert_identity,
        closed["limit"],
        closed["closed_form"],
        rival=closed["at_zero"],
        statement="L1 in closed form",
    )
    weighted, by_matrices, unweighted = _closed_forms()
    special = attempt(
        testing.assert_identity,
        weighted,
        by_matrices,
        rival=unweighted,
        statement="closed forms with weights, precision and a covariance",
    )
    judgements = [ratio, score, forms, special, *_edges()]
    table = by_kind(rows.assign(ratio=scaled / rows["limit"], wrong=scaled / rows["at_zero"]))
    judgements.append(each_kind(table, "L1"))
    found = ratio.evidence
    return proved(
        judgements,
        quantity="ratio to the limit as 1/n goes to 0",
        measured=ratio.measured,
        remark=(
            f"{len(table)} kinds of world: mean ratio {found['ratio_at_smallest']:.3f} at n = "
            f"{found['smallest_x']:g}, {found['ratio_at_largest']:.3f} at {found['largest_x']:g}; "
            f"{(table['off'] > 1).sum()} kinds off there; the remainder of single runs has slope "
            f"{score.measured.estimate:.3f}."
        ),
        rows=rows.merge(table, on="kind"),
    )


def _row(run: Run, limits: dict[str, Any]) -> dict[str, Any]:
    given: Ingredients = limits["given"]
    predicted = theory.efficient_score_step(
        given.basis,
        given.factors,
        given.informations,
        run.scores,
        n_pairs=run.n_pairs,
        weights=given.weights,
    )
    return {
        **{name: getattr(run, name) for name in ("kind", "n_pairs", "repetition", "distance")},
        **{name: limits[name] for name in ("limit", "at_zero", "closed_form")},
        "remainder": np.linalg.norm(run.moved - predicted),
    }


def _limits(world: World, n_pairs: int) -> dict[str, Any]:
    given = ingredients(world, n_pairs)
    zero = np.broadcast_to(_information_at_zero(world), given.informations.shape)
    # with a base model there is no closed form, and this would be the matrices again
    closed = (
        np.nan if world.theta_init.any() else efficiency_limits(world, n_pairs=n_pairs).subspace
    )
    return {
        "given": given,
        "limit": theory.subspace_limit(*given).value,
        "at_zero": theory.subspace_limit(given.basis, given.factors, zero, given.weights).value,
        "closed_form": closed,
    }


def _edges() -> list[testing.Judgement]:
    """The distance at n pairs from the trace, and what is not identified is infinite."""
    basis, factors = np.eye(4)[:, :2], np.array([[[1.0], [0.5]], [[0.2], [1.0]], [[1.0], [1.0]]])
    informations = np.stack([0.2 * np.eye(4), 0.1 * np.eye(4), 0.15 * np.eye(4)])
    found = theory.subspace_limit(basis, factors, informations)
    # two rows outside of B, and S = sum c_i w_i w_i' of the factors
    spread = sum(c * w @ w.T for c, w in zip((0.2, 0.1, 0.15), factors, strict=True))
    trace = 2.0 * np.trace(np.linalg.inv(spread))
    alike = theory.isotropic_limits(factors[:1].repeat(3, axis=0), LOGISTIC, d1=4)
    return [
        attempt(
            testing.assert_identity, [found.distance(50.0)], [np.sqrt(trace / 50.0)],
            rival=[trace / 50.0], statement="the distance at n pairs",
        ),
        attempt(
            testing.assert_identity, np.sign([alike.subspace, *alike.reward]), 1.0, rival=-1.0,
            statement="users who are alike leave the subspace undetermined",
        ),
    ]  # fmt: skip


def _closed_forms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All traces of the two closed forms at unequal weights and a precision, and by matrices.

    The third array forgets weights and precision. Features have covariance `S (x) I`, S not I for
    the Gaussian form.
    """
    random = np.random.default_rng(7)
    weights, precision = np.array([0.5, 1.0, 1.5, 0.8]), 2.5
    forms, matrices, rivals = [], [], []
    for d2, rank in ((1, 1), (1, 2), (2, 2), (2, 5)):
        basis = np.linalg.qr(random.standard_normal((5, rank)))[0]
        factors = random.standard_normal((4, rank, d2))
        root = np.linalg.cholesky(np.eye(5) + 0.5 * np.ones((5, 5)))
        for shape, law in ((np.eye(5), "gaussian"), (np.eye(5), "sphere"), (root, "gaussian")):
            whitened = shape.T @ (basis @ factors)
            turn = np.kron(shape, np.eye(d2))
            bare = turn @ theory.isotropic_fisher(whitened, LOGISTIC, law) @ turn.T
            matrices += _traces(basis, factors, precision * bare, shape, weights)
            rivals += _traces(basis, factors, bare, shape, None)
            if shape is root:
                of = theory.gaussian_limits(
                    basis, factors, LOGISTIC, root=root, precision=precision, weights=weights
                )
            else:
                of = theory.isotropic_limits(
                    factors, LOGISTIC, d1=5, law=law, precision=precision, weights=weights
                )
            forms += [of.subspace, *of.reward, *of.oracle_reward, *of.full_reward]
    return np.array(forms), np.array(matrices), np.array(rivals)


def _traces(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    root: np.ndarray,
    weights: np.ndarray | None,
) -> list[float]:
    """The same numbers from matrices: traces under the features' covariance."""
    covariance = np.kron(root @ root.T, np.eye(factors.shape[2]))
    each = [
        np.einsum("ipq,qp->i", theory.reward_covariances(
            basis, factors, informations, weights, kind=kind), covariance)
        for kind in ("joint", "oracle", "full")
    ]  # fmt: skip
    subspace = theory.subspace_limit(basis, factors, informations, weights).value
    return [subspace, *np.concatenate(each)]


def _information_at_zero(world: World) -> np.ndarray:
    """`I(0) E[vec x vec x']`: what every pair would say if all rewards were zero."""
    return float(world.link.information(np.zeros(1))[0]) * feature_covariance(world)
