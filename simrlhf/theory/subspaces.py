"""Bounds on the distance between the estimated and the true shared subspace.

Notation: `E = Delta_hat - Delta*`, `E' = Delta_hat - Delta^<>`, `T = Delta^<> - Delta*`,
`t = ||T||_F = sqrt(Sigma_tail)`; `F` the summed loss, `G = -grad F(Delta*)` the scores;
`D(a, b) = F(a) - F(b) - <grad F(b), a - b>`; `P_hat = B_hat B_hat'`.

S1, proof. `(I - P_hat) Delta_hat = 0` gives `(I - P_hat) E = -(I - P_hat) Delta*`. Multiplying by
`V_k V_k'` leaves `-(I - P_hat) U_k Lambda_k V_k'`, whose norm is at least `sigma_k` times that of
`(I - P_hat) U_k`, which is `dist`. Neither factor increases a norm, so `sigma_k dist <= ||E||`, in
Frobenius and operator norm; with `E'` the same. An estimate of rank above k: its best rank-k part
is within `||E'||` of it (`Delta^<>` is a competitor), hence within `2 ||E'||` of `Delta^<>`.

S2, proof. Let `F(Delta_hat) <= F(Delta^<>) + e`. Then

    D(hat, *) = F(hat) - F(*) + <G, E> <= <G, E - T> + D(<>, *) + e = <G, E'> + D(<>, *) + e.

`E'` has rank at most 2k, so `<G, E'> <= a ||E'||_F <= a (||E||_F + t)`. With any `kappa` such that
`D(hat, *) >= (kappa / 2) ||E||_F^2`, and `d >= 2 D(<>, *)`, this reads

    ||E||_F^2 - 2 u ||E||_F - (2 u t + d / kappa + 2 e / kappa) <= 0,      u = a / kappa,

and the larger root bounds `||E||_F`. A priori `kappa = s m` and `d = L M t^2`, because the
curvature of the loss lies in `[s, L]` on the segments and a user's summed design in `[m, M]`.
With `q = d / (kappa t^2) >= 1` and e = 0 the root is at most `2 u + sqrt(q) t`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable, ratio

GEOMETRY_CASES = ("share_b", "spectral", "above_rank")
LEVELS = ("a_priori", "bregman", "a_posteriori")
# a design this much weaker in one direction than in another is singular up to rounding
SINGULAR = 1e-10
_NEEDS = {
    "a_priori": ("curvature", "smallest_design", "largest_design", "curvature_bound"),
    "bregman": ("bregman_ratio", "largest_design", "curvature_bound"),
    "a_posteriori": ("bregman_ratio", "truncation_divergence"),
}


def distance_ceiling(rank: int, d1: int, *, kind: str = "frobenius") -> float:
    """What a distance between two k-dimensional subspaces of R^d1 never exceeds (Definition A.1).

    `sqrt(min(k, d1 - k))` for `frobenius`; 1 for `spectral`, the largest sine, or 0 when k = d1.
    """
    checks.choice("kind of subspace distance", kind, ("frobenius", "spectral"))
    d1 = checks.integer("d1", d1, low=1)
    rank = checks.integer("rank", rank, low=1, high=d1, remedy="rank cannot exceed d1")
    angles = min(rank, d1 - rank)
    return math.sqrt(angles) if kind == "frobenius" else float(min(angles, 1))


def theorem_4_1(
    *,
    log_bracketing: float,
    n_users: int,
    n_pairs: float,
    nu: float,
    tail_energy: float,
    rank: int,
    d1: int,
    constant: float = 1.0,
) -> Bound:
    """Closeness of `B_hat` and `B^<>`, with probability `1 - delta` (Theorem 4.1, as printed).

        dist <= c_1 sqrt( log(N_br / delta) / (N n nu) + (1 / nu) sqrt(Sigma_tail / N) )

    One root over both terms. The paper gives no constant; it must carry the scale of features and
    curvature, which the printed bracket leaves out.

    Args:
        log_bracketing: `log(N_br / delta)`, the value of `log_bracketing_number`.
        n_users, n_pairs: N users with n pairs each (the mean where users differ).
        nu, tail_energy: Definition 4.1.
        rank, d1: they give the ceiling `sqrt(min(k, d1 - k))`.
        constant: `c_1`.

    Returns:
        A `Bound` with terms `estimation` and `bias`, the two summands under the root.
    """
    constant = checks.real("constant", constant, above=0.0)
    terms = closeness_terms(
        log_bracketing=log_bracketing,
        n_users=n_users,
        n_pairs=n_pairs,
        nu=nu,
        tail_energy=tail_energy,
    )
    return make_bound(
        constant * math.sqrt(sum(terms.values())),
        terms=terms,
        ceiling=distance_ceiling(rank, d1),
        statement="Theorem 4.1",
    )


def closeness_terms(
    *, log_bracketing: float, n_users: int, n_pairs: float, nu: float, tail_energy: float
) -> dict[str, float]:
    """`estimation` and `bias` of `theorem_4_1`, which Theorem 4.2 and (B.1) repeat."""
    n_users = checks.integer("n_users", n_users, low=1)
    n_pairs = checks.real("n_pairs", n_pairs, above=0.0)
    nu = ingredient("nu", nu)
    tail = math.sqrt(ingredient("tail_energy", tail_energy) / n_users)
    return {
        "estimation": ratio(ingredient("log_bracketing", log_bracketing), n_users * n_pairs * nu),
        "bias": ratio(tail, nu),
    }


def geometry_bound(
    error_norm: float, *, sigma_k: float, ceiling: float, case: str = "share_b"
) -> Bound:
    """Distance from the error of the estimate alone; deterministic, no eigengap (S1).

    * `share_b`: `dist <= ||E||_F / sigma_k`, for an estimate whose columns lie in `B_hat`;
    * `spectral`: largest sine `<= ||E||_op / sigma_k`, the same estimate;
    * `above_rank`: `dist <= 2 ||E'||_F / sigma_k`, for the top-k space of any estimate.

    The first two hold with `E'` in place of `E`. Tight at `Delta_hat = P_hat Delta^<>`, k = 1.

    Args:
        error_norm: the norm that the case names, over all users.
        sigma_k: `sqrt(N nu)`.
        ceiling: `distance_ceiling(...)` of the distance bounded.

    Returns:
        A `Bound` with terms `error_norm` and `sigma_k`; VACUOUS when `sigma_k = 0`.
    """
    checks.choice("case of the geometry bound", case, GEOMETRY_CASES)
    error_norm = ingredient("error_norm", error_norm)
    sigma_k = ingredient("sigma_k", sigma_k)
    factor = 2.0 if case == "above_rank" else 1.0
    return make_bound(
        ratio(factor * error_norm, sigma_k),
        terms={"error_norm": error_norm, "sigma_k": sigma_k},
        ceiling=checks.real("ceiling", ceiling, low=0.0),
        statement=f"S1 ({case})",
    )


def oracle_inequality(
    *,
    noise_norm: float,
    tail: float,
    sigma_k: float,
    ceiling: float,
    level: str = "a_priori",
    slack: float = 0.0,
    curvature: float | None = None,
    smallest_design: float | None = None,
    largest_design: float | None = None,
    curvature_bound: float | None = None,
    bregman_ratio: float | None = None,
    truncation_divergence: float | None = None,
) -> Bound:
    """Error and distance of any rank-k estimate no worse than `Delta^<>`; deterministic (S2, S1).

        ||E||_F <= u + sqrt( u^2 + 2 u t + d / kappa + 2 e / kappa ),   u = a / kappa
        dist    <= ||E||_F / sigma_k

    | level        | kappa       | d           | arguments used                                |
    | a_priori     | s m         | L M t^2     | curvature, smallest_design, largest_design,   |
    |              |             |             | curvature_bound                               |
    | bregman      | khat        | L M t^2     | bregman_ratio, largest_design, curvature_bound |
    | a_posteriori | khat        | 2 D(<>, *)  | bregman_ratio, truncation_divergence          |

    Departure from the statement's part (ii), `||E'||_F <= 2 u + (1 + q) t` for e = 0: the term
    `truncated_error` is `||E||_F's bound + t`. It holds for every e and level and is never larger
    than (ii) where (ii) holds, which needs `q = d / (kappa t^2) >= 1`: a posteriori q can be less.

    Args:
        noise_norm: `a`, from `noise_norm(scores, rank)`.
        tail: `t = sqrt(Sigma_tail)`.
        sigma_k, ceiling: as in `geometry_bound`.
        level: a row of the table; arguments that a level does not use are ignored, so that one set
            serves all three.
        slack: `e >= F(Delta_hat) - F(Delta^<>)`, not negative: the certificate of the run.
        curvature: `s`, from `curvature_floor`; the loss' curvature on the truth-estimate segments.
            Negative where the loss is not convex there: S2 a priori is then NOT_APPLICABLE.
        smallest_design, largest_design: `m`, `M`, from `design_extremes`.
        curvature_bound: `L`, on the truth-truncation segments; `link.curvature_bound` will do.
        bregman_ratio: `khat = 2 D(hat, *) / ||E||_F^2`.
        truncation_divergence: `D(<>, *)`.

    Returns:
        A `Bound` of `dist` with terms `curvature_product` (kappa), `noise` (u), `tail` (t), `bias`
        (`sqrt(d / kappa)`), `slack` (`sqrt(2 e / kappa)`), `error` (bound of `||E||_F`) and
        `truncated_error` (bound of `||E'||_F`). VACUOUS when kappa is 0; `m <= 1e-10 M` counts so.
        The other levels need no convexity: their kappa is measured along the error itself.
    """
    checks.choice("level", level, LEVELS)
    if level == "a_priori" and curvature is not None and curvature < 0.0:
        return not_applicable(ceiling=ceiling, statement=f"S2 ({level}), S1")
    given = _given(
        level,
        curvature=curvature,
        smallest_design=smallest_design,
        largest_design=largest_design,
        curvature_bound=curvature_bound,
        bregman_ratio=bregman_ratio,
        truncation_divergence=truncation_divergence,
    )
    tail = ingredient("tail", tail)
    kappa = _curvature_product(given)
    noise = ratio(ingredient("noise_norm", noise_norm), kappa)
    bias = ratio(_truncation_excess(given, tail), kappa)
    allowance = ratio(2.0 * ingredient("slack", slack, remedy="use max(F(hat) - F(<>), 0)"), kappa)
    error = noise + math.sqrt(noise * (noise + 2.0 * tail) + bias + allowance)
    geometry = geometry_bound(error, sigma_k=sigma_k, ceiling=ceiling)
    return make_bound(
        geometry.value,
        terms={
            "curvature_product": kappa,
            "noise": noise,
            "tail": tail,
            "bias": math.sqrt(bias),
            "slack": math.sqrt(allowance),
            "error": error,
            "truncated_error": error + tail,
        },
        ceiling=ceiling,
        statement=f"S2 ({level}), S1",
    )


def _given(level: str, **numbers: float | None) -> dict[str, float]:
    """The ingredients that the level uses; a missing one is named."""
    missing = [name for name in _NEEDS[level] if numbers[name] is None]
    checks.require(not missing, f"level {level!r} of S2 also needs {', '.join(missing)}")
    return {name: ingredient(name, numbers[name]) for name in _NEEDS[level]}


def _curvature_product(given: Mapping[str, float]) -> float:
    if "bregman_ratio" in given:
        return given["bregman_ratio"]
    if given["smallest_design"] <= SINGULAR * given["largest_design"]:
        return 0.0
    return given["curvature"] * given["smallest_design"]


def _truncation_excess(given: Mapping[str, float], tail: float) -> float:
    if "truncation_divergence" in given:
        return 2.0 * given["truncation_divergence"]
    return given["curvature_bound"] * given["largest_design"] * tail * tail
