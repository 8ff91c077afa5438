"""What a policy loses, given the error of the reward it was made from; deterministic (S5).

Linear rewards: `J(pi; Theta) = <Theta, E_pi phi>`, `g_pi = E_pi phi - E_{mu_ref} phi`. `||.||` is
any norm of deviations and `||.||_*` its dual: `||.||_F` and itself, or the design norm
`||.||_Sigma` and `||.||_{Sigma^{-1}}`, where `||g_tar||_*` is the concentrability `C_i`.

Proof. Let the truth be in the set `R_i` and `m(pi) = min_{Theta in R_i} <Theta, g_pi>`. An
eps-maximiser of m has `<Theta*, g_hat> >= m(hat) >= m(tar) - eps`, so

    gap = <Theta*, g_tar> - <Theta*, g_hat> <= max_{Theta in R_i} <Theta* - Theta, g_tar> + eps.

Every `Theta` of a ball of radius zeta around `Theta_hat` has `||Theta* - Theta||` at most
`||Theta* - Theta_hat|| + zeta`. Greedy: `gap = <Theta* - Theta_hat, g_tar - g_hat>` plus
`<Theta_hat, g_tar - g_hat>`, which is at most eps.
"""

from __future__ import annotations

import math

from simrlhf.theory.statement import Bound, ingredient, make_bound, not_applicable


def pessimism_bound(
    *,
    error_norm: float,
    radius: float,
    target_norm: float,
    slack: float = 0.0,
    ceiling: float = math.inf,
) -> Bound:
    """Value gap of the pessimistic policy over a ball that holds the truth (S5).

        gap <= ||Theta* - Theta_hat|| ||g_tar||_* + zeta ||g_tar||_* + eps
            <= 2 zeta ||g_tar||_* + eps

    Holds for any compact set inside the ball that holds the truth, convex or not, and any class of
    policies with `pi_tar` in it. A truth outside the ball makes it NOT_APPLICABLE: then
    `<Theta*, g_hat>` may lie below the pessimistic value by `(||Theta* - Theta_hat|| - zeta)
    ||g_hat||_*`, and nothing here bounds `g_hat`.

    Args:
        error_norm: `||Theta* - Theta_hat||`.
        radius: zeta, in the same norm (not squared).
        target_norm: `||g_tar||_*`, in the dual norm.
        slack: eps, by which the policy misses the maximum of the pessimistic value.
        ceiling: what no gap exceeds.

    Returns:
        A `Bound` of the first line with terms `error`, `radius` and `slack`, its summands, and
        `worst_case`, the second line: what is known of the gap without knowing the error.

    Raises:
        InputError: negative numbers.
    """
    error_norm, radius = ingredient("error_norm", error_norm), ingredient("radius", radius)
    target_norm, slack = ingredient("target_norm", target_norm), ingredient("slack", slack)
    if error_norm > radius:
        return not_applicable(ceiling=ceiling, statement="S5 (pessimism)")
    summands = {
        "error": error_norm * target_norm,
        "radius": radius * target_norm,
        "slack": slack,
    }
    return make_bound(
        sum(summands.values()),
        terms=summands | {"worst_case": 2.0 * radius * target_norm + slack},
        ceiling=ceiling,
        statement="S5 (pessimism)",
    )


def greedy_bound(
    *, error_norm: float, direction_norm: float, slack: float = 0.0, ceiling: float = math.inf
) -> Bound:
    """Value gap of the policy that is best for the estimate (S5).

        gap <= ||Theta* - Theta_hat|| ||g_tar - g_hat||_* + eps

    Needs no set and no coverage of the truth, but the features of the policy that was found.

    Args:
        error_norm: `||Theta* - Theta_hat||`.
        direction_norm: `||g_tar - g_hat||_*`, in the dual norm.
        slack: eps, by which the policy misses the maximum of the estimated value.
        ceiling: what no gap exceeds.

    Returns:
        A `Bound` with terms `error` and `slack`, its summands.

    Raises:
        InputError: negative numbers.
    """
    terms = {
        "error": ingredient("error_norm", error_norm)
        * ingredient("direction_norm", direction_norm),
        "slack": ingredient("slack", slack),
    }
    return make_bound(sum(terms.values()), terms=terms, ceiling=ceiling, statement="S5 (greedy)")
