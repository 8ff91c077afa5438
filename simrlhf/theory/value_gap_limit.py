"""The value that a greedy choice between two actions loses, to first order in 1 / n (L4).

Proof. `v = phi_1 - phi_0`, margin `m = <Theta, v>` of density f, estimate `Theta + n^{-1/2} xi`
with `Cov(xi) = Cov`, of which v is independent. The wrong action is taken where `m` and
`m + n^{-1/2} <xi, v>` differ in sign, and costs `|m|`. Given `s = <xi, v>`,

    n E gap = n int |m| 1{m (m + s / sqrt(n)) < 0} f(m) dm -> f(0) s^2 / 2,

and the mean of `s^2` at `m = 0` is `E[v' Cov v | m = 0] = tr(M0 Cov)`.

For `v ~ N(0, 2 I)` a second proof needs no density. The gap of an estimate at angle alpha to the
truth is `||Theta|| (1 - cos alpha) / sqrt(pi)` exactly, and
`n ||Theta||^2 (1 - cos alpha) -> ||P_perp xi||^2 / 2`.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.special

from simrlhf.core import checks


def greedy_value_gap_limit(
    *, density: np.ndarray, moments: np.ndarray, covariance: np.ndarray
) -> np.ndarray:
    """Limit of `n E gap_i` of the greedy choice between two actions, in any world (L4).

        (1 / 2) f_i(0) E[v' Cov_i v | <Theta_i, v> = 0] = (1 / 2) f_i(0) tr(M0_i Cov_i)

    Fails when the margin has no continuous density at 0. With finitely many contexts of margins
    other than 0 the gap falls faster than any power of `1 / n`, and the limit is 0.

    Args:
        density: `(N,)` densities `f_i(0)` of the margin `<Theta_i, v>`, in its own units.
        moments: `(N, p, p)` matrices `M0_i = E[v v' | <Theta_i, v> = 0]`, `v = vec(phi_1 - phi_0)`.
        covariance: `(N, p, p)` limits of `n Cov(vec E_i)`, from `reward_covariances`.

    Returns:
        `(N,)`, in units of value.

    Raises:
        InputError: shapes that do not agree, a negative density, entries that are not finite.
    """
    density = checks.numbers("density", density)
    checks.shape("density", density, (None,), remedy="one number for each user")
    moments = checks.numbers("moments", moments)
    covariance = checks.numbers("covariance", covariance)
    p = moments.shape[-1] if moments.ndim == 3 else None
    checks.shape("moments", moments, (density.size, p, p), remedy="one (p, p) matrix for each user")
    checks.shape("covariance", covariance, moments.shape, remedy="the shape of moments")
    for name, array in (("density", density), ("moments", moments), ("covariance", covariance)):
        checks.finite(name, array)
    checks.require(bool((density >= 0.0).all()), "density must be at least 0 for every user")
    return 0.5 * density * np.einsum("ipq,iqp->i", moments, covariance)


def normal_value_gap(
    *, margins: np.ndarray, variances: np.ndarray, weights: np.ndarray, n_pairs: float
) -> np.ndarray:
    """Expected gap of the greedy choice between two actions in finitely many contexts (L4).

        E gap_i = sum_s rho_i(s) |m_is| P(xi_is / sqrt(n) turns the sign of m_is)
                = sum_s rho_i(s) |m_is| F(-|m_is| sqrt(n) / sd_is),   sd_is^2 = v_s' Cov_i v_s

    where the estimate's error has its normal limit law, F the standard normal distribution. Where
    margins are dense on the scale `sd / sqrt(n)` this is `greedy_value_gap_limit` over n; beyond,
    it falls faster than any power of `1 / n`, as it must.

    Args:
        margins: `m (N, S)`, `<Theta_i, v_s>`, `v_s = phi(s, 1) - phi(s, 0)`.
        variances: `(N, S)`, of `n^{1/2}` times the estimated margins.
        weights: `rho (N, S)`, each user's law of the contexts.
        n_pairs: n.

    Returns:
        `(N,)`, in units of value.

    Raises:
        InputError: shapes that do not agree, negative variances or weights.
    """
    margins = checks.numbers("margins", margins)
    checks.shape("margins", margins, (None, None), remedy="one row for each user")
    variances, weights = (
        checks.numbers(n, a)
        for n, a in zip(("variances", "weights"), (variances, weights), strict=True)
    )
    for name, array in (("margins", margins), ("variances", variances), ("weights", weights)):
        checks.shape(name, array, margins.shape, remedy="the shape of margins")
        checks.finite(name, array)
    checks.require(bool((variances >= 0.0).all()), "variances must be at least 0")
    checks.require(bool((weights >= 0.0).all()), "weights must be at least 0")
    root = math.sqrt(checks.real("n_pairs", n_pairs, above=0.0))
    sizes, errors = np.abs(margins), np.sqrt(variances)
    # without error the choice is right, and at a margin of 0 either is
    scaled = np.divide(sizes * root, errors, out=np.full_like(sizes, np.inf), where=errors > 0.0)
    return np.sum(weights * sizes * scipy.special.ndtr(-scaled), axis=1)


def gaussian_value_gap_limit(theta: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Limit of `n E gap_i` for two actions whose features are independent and `N(0, I)` (L4).

        tr(P_perp Cov_i) / (2 sqrt(pi) ||Theta_i||)

    `P_perp` projects on the complement of `vec Theta_i`: an error along it changes no choice. Here
    `v ~ N(0, 2 I)`, so the margin has density `1 / (2 sqrt(pi) ||Theta_i||)` at 0, and `M0` is
    `2 P_perp`. Fails when `Theta_i` is near 0: the smaller it is, the later the limit is reached.

    Args:
        theta: `(N, d1, d2)` whole reward vectors, `Theta_init + Delta_i`, none of them zero.
        covariance: `(N, p, p)`, `p = d1 d2`, as in `greedy_value_gap_limit`.

    Returns:
        `(N,)`.

    Raises:
        InputError: as `greedy_value_gap_limit`; a zero reward vector, whose actions are all alike.
    """
    theta = checks.numbers("theta", theta)
    checks.shape("theta", theta, (None, None, None), remedy="one (d1, d2) matrix for each user")
    checks.finite("theta", theta)
    flat = theta.reshape(theta.shape[0], -1)
    norms = np.linalg.norm(flat, axis=1)
    checks.require(
        bool((norms > 0.0).all()), "theta has a user whose reward vector is zero; leave him out"
    )
    directions = flat / norms[:, None]
    across = np.eye(flat.shape[1]) - directions[:, :, None] * directions[:, None, :]
    return greedy_value_gap_limit(
        density=1.0 / (2.0 * math.sqrt(math.pi) * norms),
        moments=2.0 * across,
        covariance=covariance,
    )
