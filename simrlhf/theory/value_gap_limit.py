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
