"""How badly the comparisons cover what a target policy does (Park's Definition 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.policy.pair_moments import pair_moments
from simrlhf.policy.values import feature_expectations
from simrlhf.world import MDP, Behaviours

# eigenvalues below this share of the largest are rounding: the design does not see them
_UNSEEN = 1e-12
# a target lies in the design's range if less than this share of it is outside
_OUTSIDE = 1e-8


class Concentrability(NamedTuple):
    """Coverage of each user's target policy, `(N,)` unless said otherwise.

    Attributes:
        value: `C_i = ||g_i||_{Sigma^{-1}}`; infinite where `g_i` leaves the range of Sigma.
        worst: `(N, d1, d2)`, the error `Theta*_i - Theta` of unit length that attains it: in the
            design norm, or, where C is infinite, in the Frobenius norm along a direction that no
            comparison shows. Zero where `g_i` is.
        oracle: the same within a known basis, `||B'g||_{(B' Sigma B)^{-1}}`; `None` without one.
        standard_error: `sqrt(g' Cov_i g)` of an estimate of that covariance; `None` without one.
        gap: `g_i = E_{pi_tar} phi - E_{mu_ref} phi`, `(N, d1, d2)`.
    """

    value: np.ndarray
    worst: np.ndarray
    oracle: np.ndarray | None
    standard_error: np.ndarray | None
    gap: np.ndarray


def concentrability(
    mdp: MDP,
    target: np.ndarray,
    behaviours: Behaviours,
    *,
    reference: np.ndarray | None = None,
    basis: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
) -> Concentrability:
    """Concentrability of the linear class, exactly (Park, Definition 3.1; Definition A.3).

        C_i = max(0, sup_Theta <Theta*_i - Theta, g_i> / ||Theta*_i - Theta||_Sigma)
            = ||g_i||_{Sigma^{-1}},   Sigma = E_{mu_0, mu_1}[vec x vec x']

    for a truth in the interior of the class; on the boundary of its ball C_i is at most that. The
    class of rank k has it at `d2 = 1`, where one user's reward vector is not restricted.

    Args:
        target: `pi_tar`, `(H, S, A)` or `(N, H, S, A)`.
        behaviours: `mu_0`, `mu_1`.
        reference: `mu_ref (H, S, A)`, by default `mu_1`. C depends on it.
        basis: `B (d1, k)` for the oracle's value.
        covariance: `(N, p, p)`, of an estimate's error, in C order of `vec`.

    Raises:
        InputError: shapes that do not agree.
    """
    users = _n_users(mdp, target)
    reference = behaviours.second if reference is None else reference
    ahead, behind = (
        np.broadcast_to(feature_expectations(mdp, policy), (users, *mdp.reward_shape))
        for policy in (target, reference)
    )
    gap = (ahead - behind).reshape(users, -1)
    sigma = pair_moments(mdp, behaviours)
    sigma = sigma[None] if sigma.ndim == 2 else sigma
    value, worst = _norms(gap, sigma)
    oracle = error = None
    if basis is not None:
        basis = checks.numbers("basis", basis)
        checks.shape("basis", basis, (mdp.reward_shape[0], None), remedy="(d1, k)")
        inside = np.kron(basis, np.eye(mdp.reward_shape[1]))
        oracle = _norms(gap @ inside, inside.T @ sigma @ inside)[0]
    if covariance is not None:
        covariance = checks.numbers("covariance", covariance)
        checks.shape("covariance", covariance, (users, gap.shape[1], gap.shape[1]))
        error = np.sqrt(np.einsum("np,npq,nq->n", gap, covariance, gap))
    shape = (users, *mdp.reward_shape)
    return Concentrability(value, worst.reshape(shape), oracle, error, gap.reshape(shape))


def _n_users(mdp: MDP, target: np.ndarray) -> int:
    """Users, where the target policies or the first states tell them apart."""
    if np.ndim(target) == 4:
        return len(target)
    return 1 if mdp.initial.ndim == 1 else mdp.initial.shape[0]


def _norms(gap: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`||g||_{Sigma^{-1}} (N,)` and directions `(N, q)` that attain it; `sigma (1 or N, q, q)`."""
    values, vectors = np.linalg.eigh(sigma)
    seen = values > _UNSEEN * np.maximum(values[:, -1:], 0.0)
    vectors = np.broadcast_to(vectors, (len(gap), *vectors.shape[1:]))
    parts = np.einsum("npq,np->nq", vectors, gap)
    inverse = np.where(seen, 1.0 / np.where(seen, values, 1.0), 0.0)
    length = np.sqrt(np.sum(parts**2 * inverse, axis=1))
    hidden = np.where(seen, 0.0, parts)
    missed = np.linalg.norm(hidden, axis=1)
    outside = missed > _OUTSIDE * np.linalg.norm(gap, axis=1)
    found = np.where(outside[:, None], hidden, parts * inverse)
    scale = np.where(outside, missed, length)
    found = np.divide(found, scale[:, None], out=np.zeros_like(found), where=scale[:, None] > 0.0)
    directions = np.einsum("npq,nq->np", vectors, found)
    return np.where(outside, np.inf, length), directions
