"""The spectrum of the aggregate deviation: how much of it a shared basis of rank k can carry."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks, subspaces


@dataclass(frozen=True, kw_only=True)
class DiversityMetrics:
    """Definition 4.1, and the best rank-k approximation that (4.1) names.

    Attributes:
        nu: `sigma_k(Delta*)^2 / N`, a size and not a ratio; 0 when the rank of `Delta*` is below k.
        tail_energy: `Sigma_tail`, the sum of `sigma_i^2` over `i > k`.
        basis: `B^<> (d1, k)`, the k leading left singular vectors.
        truncated: `Delta^<> (N, d1, d2)`, the best rank-k approximation of the aggregate.
        user_bias: `b_i = ||Delta*_i - Delta^<>_i||_F^2`, `(N,)`; its sum is `tail_energy`.
        singular_values: all `min(d1, N d2)` of them, descending.
    """

    nu: float
    tail_energy: float
    basis: np.ndarray
    truncated: np.ndarray
    user_bias: np.ndarray
    singular_values: np.ndarray

    @property
    def sigma_k(self) -> float:
        """`sqrt(N nu)`: the k-th singular value, 0 where it is rounding."""
        return math.sqrt(self.user_bias.size * self.nu)


def diversity_metrics(delta: np.ndarray, rank: int) -> DiversityMetrics:
    """Diversity of the users' deviations (Definition 4.1).

        nu = sigma_k([Delta_1 ... Delta_N])^2 / N,   Sigma_tail = sum_{i > k} sigma_i^2

    A `sigma_k` below `eps max(d1, N d2) sigma_1` is rounding: `nu` is then exactly 0 and every
    bound that divides by it is VACUOUS. The last columns of the basis mean nothing in that case.

    Args:
        delta: `(N, d1, d2)` deviations `Theta_i - Theta_init`.
        rank: k, between 1 and `min(d1, N d2)`.

    Raises:
        InputError: another shape, entries that are not finite, or a rank out of range.
    """
    delta = checks.numbers("delta", delta)
    checks.shape("delta", delta, (None, None, None), remedy="one (d1, d2) matrix for each user")
    checks.require(delta.size > 0, f"delta is empty: its shape is {delta.shape}")
    checks.finite("delta", delta)
    aggregate = subspaces.unfold(delta)
    largest = min(aggregate.shape)
    rank = checks.integer(
        "rank", rank, low=1, high=largest, remedy=f"min(d1, N d2) is {largest} here"
    )
    left, values, right = np.linalg.svd(aggregate, full_matrices=False)
    truncated = subspaces.fold((left[:, :rank] * values[:rank]) @ right[:rank], delta.shape[0])
    rounding = np.finfo(np.float64).eps * max(aggregate.shape) * values[0]
    kth = float(values[rank - 1])
    return DiversityMetrics(
        nu=kth**2 / delta.shape[0] if kth > rounding else 0.0,
        tail_energy=float(np.sum(values[rank:] ** 2)),
        basis=np.ascontiguousarray(left[:, :rank]),
        truncated=truncated,
        user_bias=np.sum((delta - truncated) ** 2, axis=(1, 2)),
        singular_values=values,
    )
