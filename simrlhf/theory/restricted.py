"""S2r: the oracle inequality on errors of rank 2k alone, for fewer than `d1 d2` pairs per user.

Notation of `theory.subspaces`: `E' = Delta_hat - Delta^<>`, `T = Delta^<> - Delta*`, and
`y = ||E'||_F`, `t = ||T||_F`. `X_i` maps a matrix to the reward differences of user i's pairs, `X`
all users' blocks to all of them; `r = min(2k, d1, d2)`, and the restricted smallest design is

    m_r = min_i min { ||X_i(A)||^2 : rank(A) <= r, ||A||_F = 1 }.

S2r, proof. `E'` has rank at most 2k as an aggregate, so each user's block has rank at most r, and
`||X(E')||^2 = sum_i ||X_i(E'_i)||^2 >= m_r y^2`; with `||X(T)||^2 <= M t^2` the triangle inequality
gives `||X(E)|| >= (sqrt(m_r) y - sqrt(M) t)_+`. The curvature of the loss lies in `[s, L]` on the
segments. With the first display of S2's proof,

    (s / 2) (sqrt(m_r) y - sqrt(M) t)_+^2 <= D(hat, *) <= a y + L M t^2 / 2 + e.

Let `u = a / (s m_r)`, `p = sqrt(M / m_r)`, `q = L M / (s m_r)`. Where `y >= p t` this reads

    y^2 - 2 (u + p t) y + p^2 t^2 <= q t^2 + 2 e / (s m_r),

and the larger root is the bound; its radicand `(u + p t)^2 - p^2 t^2 + q t^2 + 2 e / (s m_r)` has
lost `p^2 t^2`, so that nothing is asked of L and s. Where `y < p t` the bound holds anyway, for it
is at least `u + p t`. Any lower bound of `m_r` and upper bound of `M` will do.

What the restriction is worth. Nothing for `min(d1, d2) <= 2k`, and so for d2 = 1: then r =
min(d1, d2), every matrix is allowed and `m_r = m`. No other argument about the rank of `E'` alone
helps: a matrix of rank r on one user and zeros elsewhere has aggregate rank r <= 2k, so the minimum
of `||X(A)||^2` over all aggregates of rank 2k is `m_r` itself, however many users there are. Where
`m_r = m` S2r is never below S2: it has the cross terms `p t` and `2 p u t` where S2's bound of
`||E'||_F` has `t` and `2 u t`, and `p >= 1`.

Gaussian design, proof. For independent features N(0, I), Gordon's inequality (1988) bounds the mean
of `min ||X_i(A)||` over a closed set of unit matrices from below by `E||g|| - w`, where g has n_i
standard normal entries, `E||g|| >= n_i / sqrt(n_i + 1)`, and w is the set's Gaussian width. By von
Neumann's trace inequality

    w = E (sum of the r largest sigma(G)^2)^{1/2}
      <= sqrt(r) E||G||_op <= sqrt(r) (sqrt d1 + sqrt d2)

(Chevet), and `w <= E||G||_F <= sqrt(d1 d2)`. The minimum changes by at most the Frobenius norm of a
change of the Gaussian entries, so it falls short of its mean by more than h with probability at
most `exp(-h^2 / 2)`; `h = sqrt(2 log(N / delta))` serves all users at once.
"""

from __future__ import annotations

import math

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable, ratio
from simrlhf.theory.subspaces import SINGULAR, geometry_bound


def restricted_design(
    *, n_pairs: int, n_users: int, d1: int, d2: int, rank: int, delta: float
) -> float:
    """Lower bound of `m_r` for Gaussian features, with probability `1 - delta` (S2r, Gordon).

        sqrt(m_r) >= ( n / sqrt(n + 1) - min( sqrt(r) (sqrt d1 + sqrt d2), sqrt(d1 d2) )
                       - sqrt(2 log(N / delta)) )_+ ,     r = min(2k, d1, d2)

    It is positive from about `n = r (sqrt d1 + sqrt d2)^2` on, which is `r (d1 + d2)` up to a
    factor of 2 and falls below `d1 d2` where r is small enough (`8 k < d` for d1 = d2 = d).

    Fails when: entries of the features are not independent N(0, 1). For N(0, c^2) multiply the
    value by c^2. The law matters: one feature that repeats itself has `m_r = 0` at any n.

    Args:
        n_pairs: n of every user, or the smallest.
        n_users, d1, d2: N, and the shape of each feature.
        rank: k, the rank of both the estimate and `Delta^<>`.
        delta: failure probability for all users at once, in (0, 1].

    Returns:
        The bound of `m_r`, a sum over pairs as `m` is; 0 where it says nothing.
    """
    n_pairs = checks.integer("n_pairs", n_pairs, low=1)
    n_users = checks.integer("n_users", n_users, low=1)
    d1, d2 = checks.integer("d1", d1, low=1), checks.integer("d2", d2, low=1)
    rank = checks.integer("rank", rank, low=1, high=d1, remedy="rank cannot exceed d1")
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    r = min(2 * rank, d1, d2)
    width = min(math.sqrt(r) * (math.sqrt(d1) + math.sqrt(d2)), math.sqrt(d1 * d2))
    spread = math.sqrt(2.0 * math.log(n_users / delta))
    return max(n_pairs / math.sqrt(n_pairs + 1) - width - spread, 0.0) ** 2


def restricted_oracle_inequality(
    *,
    noise_norm: float,
    tail: float,
    sigma_k: float,
    ceiling: float,
    curvature: float,
    restricted_design: float,
    largest_design: float,
    curvature_bound: float,
    slack: float = 0.0,
) -> Bound:
    """Error and distance of any rank-k estimate no worse than `Delta^<>`; deterministic (S2r, S1).

        ||E'||_F <= u + p t + sqrt( u^2 + 2 p u t + q t^2 + 2 e / (s m_r) )
        dist     <= ||E'||_F / sigma_k
        u = a / (s m_r),   p = sqrt(M / m_r),   q = L M / (s m_r)

    `2 a / (s m_r)` at t = 0 and e = 0, where it is attained. S2 a priori, for which `m > 0` needs
    `n_i >= d1 d2`, with `m_r` in place of m. The module's docstring has the proof and says where
    the restriction is worth nothing.

    Args:
        noise_norm: `a`, from `noise_norm(scores, rank)`.
        tail: `t = sqrt(Sigma_tail)`.
        sigma_k, ceiling: as in `geometry_bound`.
        curvature: `s`, as in `oracle_inequality`; negative makes S2r NOT_APPLICABLE.
        restricted_design: `m_r` or a lower bound of it: the function of this name, with its
            probability, or `m`.
        largest_design: `M`, from `design_extremes`, or an upper bound; without a tail it has no
            part in the value.
        curvature_bound: `L`, as in `oracle_inequality`.
        slack: `e >= F(Delta_hat) - F(Delta^<>)`, not negative: the certificate of the run.

    Returns:
        A `Bound` of `dist` with terms `curvature_product` (s m_r), `noise` (u), `tail` (t), `cross`
        (p t), `bias` (`sqrt(q) t`), `slack` (`sqrt(2 e / (s m_r))`), `truncated_error` (bound of
        `||E'||_F`) and `error` (of `||E||_F`, larger by t). VACUOUS when `s m_r` is 0;
        `m_r <= 1e-10 M` counts so.

    Raises:
        InputError: a negative ingredient but for s, or `m_r > M`.
    """
    if curvature < 0.0:
        return not_applicable(ceiling=ceiling, statement="S2r, S1")
    smallest = ingredient("restricted_design", restricted_design)
    largest = ingredient("largest_design", largest_design)
    checks.require(
        not smallest > largest * (1.0 + SINGULAR),
        f"restricted_design = {smallest:.12g} must not exceed largest_design = {largest:.12g}, "
        "which bounds every direction's design; were they swapped?",
    )
    tail = ingredient("tail", tail)
    singular = smallest <= SINGULAR * largest
    kappa = 0.0 if singular else ingredient("curvature", curvature) * smallest
    noise = ratio(ingredient("noise_norm", noise_norm), kappa)
    cross = math.sqrt(ratio(largest, smallest)) * tail
    bias = ratio(ingredient("curvature_bound", curvature_bound) * largest * tail * tail, kappa)
    allowance = ratio(2.0 * ingredient("slack", slack, remedy="use max(F(hat) - F(<>), 0)"), kappa)
    error = noise + cross + math.sqrt(noise * (noise + 2.0 * cross) + bias + allowance)
    geometry = geometry_bound(error, sigma_k=sigma_k, ceiling=ceiling)
    return make_bound(
        geometry.value,
        terms={
            "curvature_product": kappa,
            "noise": noise,
            "tail": tail,
            "cross": cross,
            "bias": math.sqrt(bias),
            "slack": math.sqrt(allowance),
            "truncated_error": error,
            "error": error + tail,
        },
        ceiling=ceiling,
        statement="S2r, S1",
    )
