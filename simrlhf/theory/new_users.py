"""New users on a frozen basis: how far their rewards are off (S6), and the exact limit (L5).

A new user has the truth `T (d1, d2)`, `n_0` pairs of features `x_j` that are independent of
`B_hat`, and the fit `Delta_hat_0 = B_hat V_hat`. With `V0 = B_hat'T` and `rho = (I - P_hat) T`,

    ||Delta_hat_0 - T||_F^2 = ||V_hat - V0||_F^2 + ||rho||_F^2,

for `rho` is orthogonal to the columns of `B_hat`. Let `Z (n_0, k d2)` have the rows
`vec(B_hat' x_j)`, and `G_0 = -grad F_0(T)`.

S6, proof. `(I - P_hat) T = (I - P_hat) P^<> T + (I - P_hat)(I - P^<>) T`, and `(I - P_hat) B^<>`
has the largest sine as its norm: `||rho|| <= sine ||B^<>'T|| + ||(I - P^<>) T||`. The loss
restricted to `B_hat V` is `s lambda_min(Z'Z)`-strongly convex where its curvature is at least s,
and `V_hat` minimises it over a convex set that holds `V0`; so

    s lambda_min(Z'Z) ||V_hat - V0|| <= ||grad F_0(B_hat V0)||.

That gradient is `-B_hat'G_0` plus `sum_j [l'(z_j - <rho, x_j>) - l'(z_j)] z_j`-terms, at most
`L ||Z||_op ||X vec rho||`. The entries of the score are independent, centred and within a range of
width w, so `Z'e` is sub-Gaussian with proxy `w^2 / 4` and the bound of Hsu, Kakade and Zhang (2012)
on quadratic forms gives the last inequality of `new_user_noise_bound`.
"""

from __future__ import annotations

import math

import numpy as np

from simrlhf.core import checks
from simrlhf.theory import limits
from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable, ratio


def missed_truth(*, largest_sine: float, inside_norm: float, outside_norm: float) -> float:
    """Bound of `||rho||_F`, what no factor on the frozen basis can reach (S6).

        ||rho||_F <= ||sin||_op ||B^<>'T||_F + ||(I - P^<>) T||_F

    Args:
        largest_sine: between `B_hat` and `B^<>`, in [0, 1].
        inside_norm: `||B^<>'T||_F`.
        outside_norm: `||(I - P^<>) T||_F`.
    """
    sine = checks.real("largest_sine", largest_sine, low=0.0, high=1.0)
    inside = checks.real("inside_norm", inside_norm, low=0.0)
    return sine * inside + checks.real("outside_norm", outside_norm, low=0.0)


def new_user_bound(
    *,
    noise: float,
    missed: float,
    missed_rewards: float,
    smallest_design: float,
    largest_design: float,
    curvature: float,
    curvature_bound: float,
    ceiling: float = math.inf,
) -> Bound:
    """Error of a new user's reward matrix; deterministic (S6).

        ||Delta_hat_0 - T||_F <= sqrt( ((a + L sqrt(M_0) r) / (s m_0))^2 + ||rho||_F^2 )

    Fails to say anything when `m_0 = 0`: fewer pairs than `k d2`. NOT_APPLICABLE where the loss is
    not convex (`curvature < 0`).

    Args:
        noise: `a = ||B_hat'G_0||_F`, or `new_user_noise_bound`.
        missed: `||rho||_F`, or `missed_truth`.
        missed_rewards: `r = ||X vec rho||_2`, the rewards of `rho` over the pairs.
        smallest_design, largest_design: `m_0`, `M_0`, extreme eigenvalues of `Z'Z`.
        curvature: `s`, on the segments from `B_hat V0` to the fit and from the truth to `B_hat V0`.
        curvature_bound: `L`, there too; `link.curvature_bound` will do.
        ceiling: what the error never exceeds, as `2 R` in the ball.

    Returns:
        A `Bound` with terms `inside` (`||V_hat - V0||`) and `missed`.
    """
    if curvature < 0.0:
        return not_applicable(ceiling=ceiling, statement="S6")
    given = {
        name: ingredient(name, value)
        for name, value in (
            ("noise", noise),
            ("missed", missed),
            ("missed_rewards", missed_rewards),
            ("smallest_design", smallest_design),
            ("largest_design", largest_design),
            ("curvature_bound", curvature_bound),
        )
    }
    strength = ingredient("curvature", curvature) * given["smallest_design"]
    bent = given["curvature_bound"] * math.sqrt(given["largest_design"]) * given["missed_rewards"]
    inside = ratio(given["noise"] + bent, strength)
    return make_bound(
        math.hypot(inside, given["missed"]),
        terms={"inside": inside, "missed": given["missed"]},
        ceiling=ceiling,
        statement="S6",
    )


def new_user_noise_bound(design: np.ndarray, *, score_width: float, delta: float) -> float:
    """Bound of `||B_hat'G_0||_F` with probability `1 - delta`, given the design (S6).

        ||B_hat'G_0||_F^2 <= (w^2 / 4) (tr S + 2 sqrt(tr S^2 log(1/delta)) + 2 ||S|| log(1/delta))

    Args:
        design: `S = Z'Z (k d2, k d2)`.
        score_width: w, the largest range of the score factor between a pair's two labels.
        delta: failure probability.
    """
    design = checks.numbers("design", design)
    checks.require(
        design.ndim == 2 and design.shape[0] == design.shape[1],
        f"design must be the square Z'Z, got shape {design.shape}",
    )
    checks.finite("design", design)
    width = checks.real("score_width", score_width, above=0.0)
    log = math.log(1.0 / checks.real("delta", delta, above=0.0, high=1.0))
    values = np.linalg.eigvalsh(design)
    form = values.sum() + 2.0 * math.sqrt(np.sum(values**2) * log) + 2.0 * values[-1] * log
    return 0.5 * width * math.sqrt(max(float(form), 0.0))


def new_user_covariances(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    new_factors: np.ndarray,
    new_informations: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Both parts of the error of new users' reward vectors (L5).

        Cov(vec E_0)  ~  own / n_0 + shared / n,
        own = Mb A_0^{-1} Mb',   shared = Pi_0 J_0 I_eff^{-1} J_0' Pi_0'

    Args:
        basis, factors, informations, weights: of the old users, as in `subspace_limit`.
        new_factors, new_informations: `W_0 (M, k, d2)` and `H_0 (M, p, p)` of M new users.

    Returns:
        `own` and `shared`, `(M, p, p)` each.

    Raises:
        InputError: as `new_user_limit`.
    """
    basis, factors, informations, weights = limits.checked(basis, factors, informations, weights)
    new = limits.checked(basis, new_factors, new_informations, None)
    subspace = limits.effective_information(basis, factors, informations, weights)
    moved = limits.moved_rewards(*new[:3])
    answers = np.linalg.solve(subspace, np.swapaxes(moved, 1, 2))
    return limits.reward_covariances(*new, kind="oracle"), moved @ answers


def new_user_limit(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    factor: np.ndarray,
    information: np.ndarray,
    covariance: np.ndarray,
    n_pairs: float,
    new_pairs: float,
) -> Bound:
    """Limit of a new user's mean squared reward error under features of a covariance (L5).

        E||Delta_hat_0 - T||_Sigma^2  ~  tr(Sigma Mb A_0^{-1} Mb') / n_0
                                        + tr(Sigma Pi_0 J_0 I_eff^{-1} J_0' Pi_0') / n

    The first term is the oracle's, the second what the old users' basis is still off. Fails where
    L1 does, and for a new truth outside the span of the basis.

    Args:
        basis, factors, informations, weights: of the old users, as in `subspace_limit`.
        factor: `W_0 (k, d2)` of the new user.
        information: `H_0 (p, p)` of the new user, `p = d1 d2`.
        covariance: `Sigma (p, p)`, of the features the error is weighed with.
        n_pairs, new_pairs: n of the old users, `n_0` of the new one.

    Returns:
        A `Bound` whose value is the limit, with terms `own` and `shared`; it has no ceiling.

    Raises:
        InputError: shapes that do not agree, or a subspace that is not identified.
    """
    own, shared = new_user_covariances(
        basis,
        factors,
        informations,
        weights,
        new_factors=np.asarray(factor)[None],
        new_informations=np.asarray(information)[None],
    )
    covariance = checks.numbers("covariance", covariance)
    checks.shape("covariance", covariance, own.shape[1:], remedy="p is d1 d2")
    n_pairs = checks.real("n_pairs", n_pairs, above=0.0)
    new_pairs = checks.real("new_pairs", new_pairs, above=0.0)
    terms = {
        "own": float(np.sum(covariance * own[0])) / new_pairs,
        "shared": float(np.sum(covariance * shared[0])) / n_pairs,
    }
    return make_bound(sum(terms.values()), terms=terms, ceiling=math.inf, statement="L5")
