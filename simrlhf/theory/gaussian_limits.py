"""The limits L1 and L2 for Gaussian features of any covariance on the d1 side, base model zero.

`x = L g` with g standard normal `(r, d2)` and `S = L L'`. Then `z = <L'Theta_i, g>`: in whitened
coordinates `Delta'_i = L'Delta_i` features are isotropic, and share-B there has the basis `B'` of
`L'B = B' T` and the factors `T W_i`. So `n E||S^{1/2} E_i||_F^2`, what the errors of rewards are,
have the limits of `isotropic_limits`.

The subspace. With `Delta'_hat - Delta'* = B'_perp K' T W_i + B' V'_i` and S regular,
`B_perp' E_i = B_perp' L^{-T} B'_perp K' T W_i`, because `L^{-T} B' = B T^{-1}`. So
`K = M K' T`, and `M M' = B_perp' S^{-1} B_perp`. The rows of K' have covariance
`(T S_W T')^{-1} / n`, `S_W = sum_i w_i c_i W_i W_i'`, hence

    n E[dist^2] -> tr(B_perp' S^{-1} B_perp) tr S_W^{-1}.

A singular S hides a direction: `B` may move along it without a trace in the data, and its limit is
infinite, while rewards are as well known as without that direction.
"""

from __future__ import annotations

import math

import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import Link
from simrlhf.theory.information import isotropic_values
from simrlhf.theory.isotropic_limits import IsotropicLimits, isotropic_limits, through_the_basis

# directions of less than this share of the largest standard deviation have no variance
_BLIND = 1e-10


def seen_directions(root: np.ndarray) -> np.ndarray:
    """`R (d1, r)` of full column rank with `R R' = L L'`, r the rank of `L (d1, d1)`."""
    left, values, _ = np.linalg.svd(root)
    kept = values > _BLIND * values[0]
    return left[:, kept] * values[kept]


def gaussian_limits(
    basis: np.ndarray,
    factors: np.ndarray,
    link: Link,
    *,
    root: np.ndarray,
    precision: float = 1.0,
    weights: np.ndarray | None = None,
) -> IsotropicLimits:
    """Limits of share-B, oracle and full (L1, L2) for features `x = L g`, in the metric of rewards.

    Args:
        basis: `B (d1, k)`, orthonormal: `Theta_i = Delta_i = B W_i`.
        factors: `W (N, k, d2)`.
        link: the law of the labels.
        root: `L (d1, d1)`.
        precision, weights: as in `isotropic_limits`.

    Returns:
        `subspace` of `n E[dist^2]` (infinite where `L L'` is singular); `reward`, `oracle_reward`
        and `full_reward` of `n E<E_i, x>^2`, not of `n E||E_i||_F^2`.

    Raises:
        InputError: shapes that do not agree, a root that hides part of the basis.
    """
    basis, factors = np.asarray(basis, np.float64), np.asarray(factors, np.float64)
    checks.shape("basis", basis, (None, None))
    d1, rank = basis.shape
    checks.shape("root", root, (d1, d1))
    checks.shape("factors", factors, (None, rank, None), remedy="one (k, d2) matrix for each user")
    seen = seen_directions(root)
    r = seen.shape[1]
    inner = np.linalg.qr(seen.T @ basis)[1]
    checks.require(
        r >= rank and np.linalg.matrix_rank(inner) == rank,
        f"features of {r} directions hide part of the {rank} columns of basis; lower the rank",
    )
    whitened = inner @ factors
    found = isotropic_limits(whitened, link, d1=r, precision=precision, weights=weights)
    if r < d1:
        return found._replace(subspace=math.inf)
    weights = np.ones(factors.shape[0]) if weights is None else np.asarray(weights)
    across = isotropic_values(np.linalg.norm(whitened, axis=(1, 2)), d1 * factors.shape[2], link)[1]
    spread = np.einsum("i,iab,icb->ac", precision * weights * across, factors, factors)
    inverse = np.linalg.inv(seen)
    outside = float(np.sum(inverse**2) - np.sum((inverse @ basis) ** 2)) if rank < d1 else 0.0
    return found._replace(subspace=through_the_basis(factors, spread, outside)[0])
