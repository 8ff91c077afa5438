"""How large the scores at the truth are, given the design, and the distance that follows (S3).

`G (d1, N d2)` holds the scores: block i is `sum_j w(z) (P - o) x_ij`, a sum of independent terms of
mean zero; `z` are the true reward differences.

Bernstein, proof. `w (P - o)` is `-Phi'(z) / Phi(z)` at o = 1 and `Phi'(z) / Phi(-z)` at o = 0, and
has variance `w^2 P (1 - P) = I(z)`; this is `+grad F`, whose norm is that of `-grad F`. So the
terms have norm at most `rho`, `sum E[X X'] = sum I x x'`, and `sum E[X'X]` is block diagonal with
the blocks `sum_j I x'x`. The matrix Bernstein inequality (Tropp, 2012, Theorem 1.6) gives

    P(||G||_op >= t) <= (d1 + N d2) exp( -(t^2 / 2) / (V + rho t / 3) );

the bound is the root of `t^2 - (2 rho l / 3) t - 2 V l = 0`, where the right side is delta.

Nets, proof. 1/4-nets of the unit spheres of R^d1 and R^(N d2) have at most `9^d1` and `9^(N d2)`
points, and `||G||_op <= 2 max u'Gv` over them, since replacing either vector costs at most
`||G||_op / 4`. For fixed u and v, `u'Gv = sum w (P - o) u'x_ij v_i` is a sum of terms whose ranges
have widths `w |u'x_ij v_i|`; their squares sum to at most `w_max^2 sum_i M ||v_i||^2 = w_max^2 M`.
Hoeffding gives `P(u'Gv >= t) <= exp(-2 t^2 / (w_max^2 M))`, the union over the nets the bound.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link
from simrlhf.theory.statement import Bound, BoundStatus, ingredient, make_bound, ratio
from simrlhf.theory.subspaces import oracle_inequality


def score_variance(
    features: np.ndarray,
    offsets: np.ndarray,
    information: np.ndarray,
    weights: np.ndarray | None = None,
) -> float:
    """Variance of the scores as matrix Bernstein counts it: `V` of S3.

        V = max( ||sum_ij c^2 I x x'||_op,  max_i ||sum_j c^2 I x'x||_op )

    The score of a pair of weight c is c times as large.

    Args:
        features: `(P, d1, d2)`, ordered by user.
        offsets: `(N + 1,)`; user i owns pairs `offsets[i]:offsets[i + 1]`.
        information: `(P,)`, `I(z)` at the truth, or an upper bound of it.
        weights: `(P,)`, not negative; 1 by default.
    """
    features = _features(features)
    offsets = np.asarray(offsets)
    checks.require(
        offsets[0] == 0 and offsets[-1] == len(features) and bool((np.diff(offsets) >= 0).all()),
        f"offsets must rise from 0 to the {len(features)} pairs, got {offsets[0]} to {offsets[-1]}",
    )
    scale = _per_pair("information", information, features) * _weights(weights, features) ** 2
    scaled = features * np.sqrt(scale)[:, None, None]
    # ||sum x x'||_op is the squared norm of the pairs set side by side
    wide = np.linalg.norm(scaled.transpose(1, 0, 2).reshape(features.shape[1], -1), 2)
    users = [
        np.linalg.norm(scaled[start:stop].reshape(-1, features.shape[2]), 2)
        for start, stop in itertools.pairwise(offsets)
        if stop > start
    ]
    return float(max([wide, *users]) ** 2)


def largest_score(
    features: np.ndarray, link: Link, *, margins: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Largest norm of one pair's score: `rho = max c max(|psi'(z)|, |psi'(-z)|) ||x||_op` of S3.

    Args:
        features: `(P, d1, d2)`.
        link: the link of the labels.
        margins: `(P,)` true reward differences `z`.
        weights: `(P,)`, not negative; 1 by default.

    Raises:
        InputError: the identity link, whose scores have no largest value; wrong shapes.
    """
    checks.require(
        link.is_preference, f"scores of link {link.name!r} are unbounded; choose a preference link"
    )
    features = _features(features)
    margins = np.asarray(margins, dtype=np.float64)
    checks.shape("margins", margins, (features.shape[0],), remedy="one margin for each pair")
    with numerics.float64_scope():
        z = jnp.asarray(margins)
        slopes = [np.asarray(link.loss_slope(z, jnp.full_like(z, label))) for label in (0.0, 1.0)]
    factors = np.abs(slopes).max(axis=0) * _weights(weights, features)
    return float(np.max(factors * np.linalg.norm(features, 2, axis=(1, 2)), initial=0.0))


def bernstein_noise_bound(
    *, variance: float, largest_score: float, d1: int, n_users: int, d2: int, delta: float
) -> Bound:
    """Operator norm of the scores, with probability `1 - delta` given the design (S3, Bernstein).

        ||G||_op <= rho l / 3 + sqrt( rho^2 l^2 / 9 + 2 V l ),   l = log((d1 + N d2) / delta)

    Args:
        variance: `V`, from `score_variance`.
        largest_score: `rho`, from `largest_score`.
        d1, n_users, d2: sizes of `G (d1, N d2)`.
        delta: failure probability, in (0, 1].

    Returns:
        A `Bound` with terms `variance`, `largest_score` and `log_factor` (l); it has no ceiling.
    """
    columns = _columns(d1, n_users, d2)
    variance = ingredient("variance", variance)
    rho = ingredient("largest_score", largest_score)
    log_factor = math.log((d1 + columns) / _probability(delta))
    linear = rho * log_factor / 3.0
    return make_bound(
        linear + math.hypot(linear, math.sqrt(2.0 * variance * log_factor)),
        terms={"variance": variance, "largest_score": rho, "log_factor": log_factor},
        ceiling=math.inf,
        statement="S3 (Bernstein)",
    )


def net_noise_bound(
    *, score_width: float, largest_design: float, d1: int, n_users: int, d2: int, delta: float
) -> Bound:
    """Operator norm of the scores, with probability `1 - delta` given the design (S3, nets).

        ||G||_op <= w_max sqrt( 2 M ((d1 + N d2) log 9 + log(1 / delta)) )

    Args:
        score_width: `w_max`, from `link_constants`: not `link.slope_bound`, which is half as much
            under the Laplace link.
        largest_design: `M`, from `design_extremes`; for weighted pairs of the squared weights.
        d1, n_users, d2, delta: as in `bernstein_noise_bound`.

    Returns:
        A `Bound` with terms `score_width`, `largest_design` and `log_factor`; it has no ceiling.
    """
    columns = _columns(d1, n_users, d2)
    width = ingredient("score_width", score_width)
    largest_design = ingredient("largest_design", largest_design)
    log_factor = (d1 + columns) * math.log(9.0) - math.log(_probability(delta))
    return make_bound(
        width * math.sqrt(2.0 * largest_design * log_factor),
        terms={"score_width": width, "largest_design": largest_design, "log_factor": log_factor},
        ceiling=math.inf,
        statement="S3 (nets)",
    )


def noise_norm_bound(op_bound: float, *, rank: int, d1: int, n_users: int, d2: int) -> float:
    """Bound of S2's `noise_norm` from one of the operator norm: `a <= sqrt(r) ||G||_op`.

    `r = min(2 k, d1, N d2)`, the largest rank of a difference of two members.
    """
    columns = _columns(d1, n_users, d2)
    rank = checks.integer("rank", rank, low=1)
    return math.sqrt(min(2 * rank, d1, columns)) * ingredient("op_bound", op_bound)


def concentrated_distance(
    *,
    noise_norm: float,
    tail: float,
    sigma_k: float,
    ceiling: float,
    curvature: float,
    smallest_design: float,
    largest_design: float,
    curvature_bound: float,
    slack: float = 0.0,
) -> Bound:
    """Distance of the subspaces with noise and bias apart, with probability `1 - delta` (S3, S2).

        dist <= (N nu)^{-1/2} [ 2 a / (s m) + sqrt(q Sigma_tail) + sqrt(2 e / (s m)) ],
        q = max(L M / (s m), 1)

    It is S2 a priori with its root split: `(u + sqrt(q) t)^2 >= u^2 + 2 u t + q t^2` for `q >= 1`.
    `oracle_inequality` with the same numbers is never larger; this form shows the rates.

    Departure from S3, which has `1 + q` in place of `sqrt(q)`: it applies S1 to `E'`, whose bound
    has the tail once more. S1 holds with `E`. S3's form is the value plus
    `(1 + q - sqrt(q)) sqrt(Sigma_tail) / sigma_k`.

    Args:
        noise_norm: `a`, from `noise_norm_bound`; it carries the probability.
        tail, sigma_k, ceiling, slack: as in `oracle_inequality`.
        curvature, smallest_design, largest_design, curvature_bound: `s`, `m`, `M`, `L`, likewise.

    Returns:
        A `Bound` with terms `estimation`, `bias` and `slack`, the three summands. VACUOUS and
        NOT_APPLICABLE where S2 a priori is.
    """
    oracle = oracle_inequality(
        noise_norm=noise_norm,
        tail=tail,
        sigma_k=sigma_k,
        ceiling=ceiling,
        slack=slack,
        curvature=curvature,
        smallest_design=smallest_design,
        largest_design=largest_design,
        curvature_bound=curvature_bound,
    )
    if oracle.status is BoundStatus.NOT_APPLICABLE:
        return oracle
    parts = {
        "estimation": 2.0 * oracle.terms["noise"],
        "bias": max(oracle.terms["bias"], oracle.terms["tail"]),
        "slack": oracle.terms["slack"],
    }
    parts = {name: ratio(part, sigma_k) for name, part in parts.items()}
    return make_bound(sum(parts.values()), terms=parts, ceiling=ceiling, statement="S3, S2")


def _features(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    checks.shape("features", features, (None, None, None), remedy="one (d1, d2) matrix per pair")
    checks.require(features.size > 0, f"features is empty: its shape is {features.shape}")
    checks.finite("features", features)
    return features


def _per_pair(name: str, values: np.ndarray, features: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    checks.shape(name, values, (features.shape[0],), remedy="one number for each pair")
    checks.finite(name, values)
    checks.require(bool((values >= 0).all()), f"{name} must not be negative")
    return values


def _weights(weights: np.ndarray | None, features: np.ndarray) -> np.ndarray:
    return np.ones(len(features)) if weights is None else _per_pair("weights", weights, features)


def _columns(d1: int, n_users: int, d2: int) -> int:
    for name, size in (("d1", d1), ("n_users", n_users), ("d2", d2)):
        checks.integer(name, size, low=1)
    return n_users * d2


def _probability(delta: float) -> float:
    return checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
