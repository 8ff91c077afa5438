"""The limits L1 and L2 in closed form where features are isotropic and the base model is zero.

With `z = <B W_i, x>` and isotropic features `H_i = c_i I + (a_i - c_i) u_i u_i'`, where
`u_i = vec(B W_i) / ||W_i||_F` lies in the space of `Mb = B (x) I`. So `H_i` does not mix that space
with its complement: `Pi_i J_i = J_i`, and `H_i` is `c_i I` on the complement. Hence, with
`S = sum_i w_i c_i W_i W_i'`,

    I_eff = I_{d1-k} (x) S,    A_i = c_i I + (a_i - c_i) vec(V) vec(V)',  V = W_i / ||W_i||_F,

whose traces are those below. `theory.limits` computes the same for any informations from matrices
of side `d1 d2`, one for each user.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import Link
from simrlhf.theory.information import isotropic_values

# eigenvalues of S below this fraction of the largest are rounding
_SINGULAR = 1e-13


class IsotropicLimits(NamedTuple):
    """Traces of L1 and L2; infinite where the factors do not identify the subspace.

    Attributes:
        subspace: `tr I_eff^{-1}`, the limit of `n E[dist^2]` for share-B.
        reward: `(N,)` `tr Cov_i` of share-B, the limit of `n E||E_i||_F^2`.
        oracle_reward: `(N,)` the same where the basis is known.
        full_reward: `(N,)` the same without a rank constraint.
    """

    subspace: float
    reward: np.ndarray
    oracle_reward: np.ndarray
    full_reward: np.ndarray


def isotropic_limits(
    factors: np.ndarray,
    link: Link,
    *,
    d1: int,
    law: str = "gaussian",
    precision: float = 1.0,
    weights: np.ndarray | None = None,
) -> IsotropicLimits:
    """Limits of the errors of share-B, oracle and full (L1, L2) from the factors alone.

        tr I_eff^{-1} = (d1 - k) tr S^{-1},
        tr Cov_i = [(k d2 - 1) / c_i + 1 / a_i] / w_i + (d1 - k) tr(W_i W_i' S^{-1}),

    oracle: the bracket alone; full: `[(d1 d2 - 1) / c_i + 1 / a_i] / w_i`.

    Args:
        factors: `W (N, k, d2)` on an orthonormal basis: `Theta_i = Delta_i = B W_i`.
        link: the law of the labels.
        d1: rows of a deviation.
        law: `gaussian` or `sphere`.
        precision: `1 / noise^2` for regression, 1 for preferences.
        weights: `(N,)` positive `n_i / n`; 1 by default.

    Raises:
        InputError: shapes that do not agree, values that are not finite, weights not positive.
    """
    factors = np.asarray(factors, dtype=np.float64)
    checks.shape("factors", factors, (None, None, None), remedy="one (k, d2) matrix for each user")
    checks.finite("factors", factors)
    n_users, rank, d2 = factors.shape
    d1 = checks.integer("d1", d1, low=rank, remedy="a basis has at most d1 columns")
    precision = checks.real("precision", precision, above=0.0)
    weights = np.ones(n_users) if weights is None else np.asarray(weights, dtype=np.float64)
    checks.shape("weights", weights, (n_users,), remedy="one n_i / n for each user")
    checks.finite("weights", weights)
    checks.require(bool((weights > 0.0).all()), "weights must be positive; drop the other users")
    norms = np.linalg.norm(factors, axis=(1, 2))
    along, across = (precision * v for v in isotropic_values(norms, d1 * d2, link, law))
    spread = np.einsum("i,iab,icb->ac", weights * across, factors, factors)
    subspace, moved = through_the_basis(factors, spread, d1 - rank)
    oracle = _trace(rank * d2, along, across) / weights
    return IsotropicLimits(
        subspace=subspace,
        reward=oracle + moved,
        oracle_reward=oracle,
        full_reward=_trace(d1 * d2, along, across) / weights,
    )


def _trace(size: int, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """`tr` of the inverse of a matrix with eigenvalue `along` once and `across` otherwise."""
    others = (size - 1) / across if size > 1 else 0.0
    return 1.0 / along + others


def through_the_basis(
    factors: np.ndarray, spread: np.ndarray, outside: float
) -> tuple[float, np.ndarray]:
    """`outside tr S^{-1}` and `outside tr(W_i W_i' S^{-1})`: what not knowing the basis adds."""
    each = np.zeros(factors.shape[0])
    if outside == 0:
        return 0.0, each
    values, vectors = np.linalg.eigh(spread)
    if values[0] <= _SINGULAR * max(values[-1], 0.0):
        return math.inf, each + math.inf
    inverse = (vectors / values) @ vectors.T
    each = np.einsum("iab,icb,ac->i", factors, factors, inverse)
    return outside * float(np.trace(inverse)), outside * each
