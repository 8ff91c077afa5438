"""What the oracle inequality S2 needs to know of one data set, as plain numbers.

`G` holds the scores at the truth, `(d1, N d2)`; `x_ij` the features of user i's pair j, `w_ij` its
weight; `F` the weighted sum of losses.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link
from simrlhf.theory.statement import ingredient

# where the curvature of a link that is not log-concave is searched; beyond, it tends to 0
_FAR, _GRID = 40.0, 2001


def noise_norm(scores: np.ndarray, rank: int) -> float:
    """The part of the scores that a matrix of rank 2k can see: `a` of S2.

        a = (sum of the r largest sigma(G)^2)^{1/2},   r = min(2 k, d1, N d2)

    `<G, X> <= a ||X||_F` for every `X` of rank at most r (von Neumann's trace inequality), which is
    attained, and `a <= sqrt(r) ||G||_op`.

    Args:
        scores: `G (d1, N d2)`, minus the gradient of the summed loss at the truth (the sign does
            not matter here).
        rank: k, the rank of both the estimate and `Delta^<>`.
    """
    scores = np.asarray(scores, dtype=np.float64)
    checks.shape("scores", scores, (None, None), remedy="unfold the users to (d1, N d2)")
    checks.finite("scores", scores)
    rank = checks.integer("rank", rank, low=1)
    values = np.linalg.svd(scores, compute_uv=False)
    return float(np.linalg.norm(values[: 2 * rank]))


def design_extremes(
    features: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Extreme eigenvalues of the users' summed designs: `(m, M)` of S2.

        m = min_i lambda_min(S_i),  M = max_i lambda_max(S_i),  S_i = sum_j w_ij vec x_ij vec x_ij'

    These are sums, not means, so users may differ in their number of pairs. A user with fewer than
    `d1 d2` pairs of positive weight has `lambda_min = 0`, returned as an exact zero.

    Args:
        features: `(P, d1, d2)`, ordered by user.
        offsets: `(N + 1,)`; user i owns pairs `offsets[i]:offsets[i + 1]`.
        weights: `(P,)`, not negative; 1 by default.
    """
    features = np.asarray(features, dtype=np.float64)
    checks.shape("features", features, (None, None, None), remedy="one (d1, d2) matrix per pair")
    rows = features.reshape(features.shape[0], -1)
    weights = np.ones(rows.shape[0]) if weights is None else np.asarray(weights, dtype=np.float64)
    checks.shape("weights", weights, (rows.shape[0],), remedy="one weight for each pair")
    checks.require(bool((weights >= 0).all()), "weights must not be negative")
    smallest, largest = math.inf, 0.0
    for start, stop in itertools.pairwise(offsets):
        mine = weights[start:stop] > 0
        scaled = rows[start:stop][mine] * np.sqrt(weights[start:stop][mine])[:, None]
        values = np.linalg.svd(scaled, compute_uv=False) ** 2
        deficient = values.size < rows.shape[1]
        smallest = min(smallest, 0.0 if deficient else float(values[-1]))
        largest = max(largest, float(values.max(initial=0.0)))
    return smallest, largest


def worst_margin(*, norm_bound: float | None, feature_norm: float, init_norm: float = 0.0) -> float:
    """Largest `|z|` that the class allows: `(||Theta_init||_F + R) max ||x||_F`.

    Args:
        norm_bound: R, with `||Delta_i||_F <= R` for truth and estimate; `None` for no bound
            (the margin is then infinite).
        feature_norm: `max ||x||_F`.
        init_norm: `||Theta_init||_F`.
    """
    feature_norm = checks.real("feature_norm", feature_norm, low=0.0)
    init_norm = checks.real("init_norm", init_norm, low=0.0)
    if norm_bound is None:
        return math.inf
    return (init_norm + checks.real("norm_bound", norm_bound, low=0.0)) * feature_norm


def curvature_floor(link: Link, *, margin: float) -> float:
    """Smallest curvature of the loss on `|z| <= margin`, over all labels: `s` of S2.

    Under the log-concave links of `core.links` the curvature is a quasi-concave function of `z` for
    either label (under probit it falls in `z`, under Laplace it is 0, jumps and falls), so its
    minimum over an interval lies at an end. Under a link that is not log-concave the curvature may
    be negative, as it is beyond some margin: the answer is then negative, and S2 does not apply a
    priori. It is the minimum over a grid with the ends, exact where it is positive.

    Args:
        link: the link of the loss.
        margin: bound of `|z|` on the segments from truth to estimate: `worst_margin(...)` for the a
            priori level, or the largest `|z|` of the run.
    """
    margin = ingredient("margin", margin)
    points = np.array([-margin, margin])
    if not link.is_log_concave:
        inside = min(margin, _FAR)
        points = np.concatenate([points, np.linspace(-inside, inside, _GRID)])
    labels = np.repeat([0.0, 1.0], points.size)
    with numerics.float64_scope():
        both = jnp.asarray(np.tile(points, 2))
        curvature = np.asarray(link.loss_curvature(both, jnp.asarray(labels)))
    return float(curvature.min())


def bregman_divergence(
    link: Link,
    *,
    point: np.ndarray,
    reference: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
) -> float:
    """Bregman divergence of the summed loss between two sets of reward differences.

        D(a, b) = F(a) - F(b) - <grad F(b), a - b>
                = sum_j w_j [ l(a_j) - l(b_j) - l'(b_j) (a_j - b_j) ]

    Args:
        link: the link of the loss `l`.
        point, reference: `(P,)` reward differences `z` under `a` and under `b`.
        labels: `(P,)`.
        weights: `(P,)`; 1 by default.
    """
    point, reference, labels = (
        np.asarray(array, dtype=np.float64) for array in (point, reference, labels)
    )
    with numerics.float64_scope():
        z, base, y = jnp.asarray(point), jnp.asarray(reference), jnp.asarray(labels)
        gaps = np.asarray(link.loss(z, y) - link.loss(base, y))
        slopes = np.asarray(link.loss_slope(base, y))
    terms = gaps - slopes * (point - reference)
    return float(np.sum(terms if weights is None else np.asarray(weights) * terms))


def bregman_ratio(divergence: float, error_norm: float) -> float:
    """Curvature that the run itself shows along its error: `khat = 2 D(hat, *) / ||E||_F^2`.

    It stands for the product `s m` in S2. An estimate equal to the truth has no ratio: NaN, and
    every bound built on it is VACUOUS.
    """
    divergence = checks.real("divergence", divergence)
    error_norm = checks.real("error_norm", error_norm, low=0.0)
    if error_norm == 0.0:
        return math.nan
    # below zero is rounding where the loss is convex; where it is not, there is no bound
    return max(2.0 * divergence / error_norm**2, 0.0)
