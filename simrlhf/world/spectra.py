"""The spectrum of `Delta*` and matrices that have exactly that spectrum."""

from __future__ import annotations

import heapq

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.world import populations
from simrlhf.world.config import EIGENGAP, WorldConfig

# user norms are matched to their targets to this relative accuracy of the squared norm
_BALANCED = 1e-12


def singular_values(config: WorldConfig) -> np.ndarray:
    """All positive singular values of `Delta*`, descending: those of the top `k`, then the tail.

    Raises:
        InputError: the tail does not fit below `sigma_k`, or there is no room for one.
    """
    k = config.true_rank
    # with k = 1 there is one value, sigma_1 = sigma_k, whatever the condition
    top = config.smallest_value * np.geomspace(config.condition if k > 1 else 1.0, 1.0, k)
    if config.tail == 0:
        return top
    room = config.largest_rank - k
    checks.require(
        room > 0,
        f"tail = {config.tail:g} needs directions beyond rank {k}, but min(d1, N d2) = "
        f"{config.largest_rank}; lower rank or set tail = 0",
    )
    weights = np.arange(1, room + 1) ** -(
        config.tail_decay if config.tail_shape == "power" else 0.0
    )
    tail = config.tail * np.sqrt(config.n_users) * weights / np.linalg.norm(weights)
    limit = (1.0 - EIGENGAP) * config.sigma_k
    checks.require(
        bool(tail[0] <= limit),
        f"the largest tail singular value {tail[0]:.6g} must stay below sigma_k = sqrt(N nu) = "
        f"{config.sigma_k:.6g} (by {EIGENGAP:g} of it); lower tail to at most "
        f"{config.tail * limit / tail[0]:.6g}, or raise nu",
    )
    return np.concatenate([top, tail])


def user_norm_target(config: WorldConfig, values: np.ndarray) -> float | None:
    """Upper limit of `||Delta_i||_F^2`: the mean for equal norms, `R^2` for a bound.

    The squared norms add up to `sum sigma^2`, so a bound below their root mean square is
    impossible; any other is met (Schur and Horn).
    """
    mean = float(np.sum(values**2)) / config.n_users
    if config.norm_bound is not None:
        checks.require(
            mean <= config.norm_bound**2 * (1.0 + 1e-12),
            f"norm_bound = {config.norm_bound:.12g} is below {np.sqrt(mean):.12g}, the root mean "
            "square of ||Delta_i||_F that nu, condition and tail imply; raise norm_bound or lower "
            "nu",
        )
    if config.user_norms == "equal":
        return mean
    return None if config.norm_bound is None else max(config.norm_bound**2, mean)


def matrix_with_spectrum(
    config: WorldConfig, values: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """`Delta* (N, d1, d2)` with singular values `values`, its `B^<>`, and who belongs where.

    Left directions are Haar, right ones as the population has them. Rotating two users' blocks
    against each other leaves the singular values and the left space as they are; such rotations
    bring the norms under their limit.
    """
    left = populations.haar(config.d1, values.size, random)
    right, memberships = populations.right_directions(config, values.size, random)
    scaled = subspaces.fold((values[:, None] * right.T), config.n_users)
    limit = user_norm_target(config, values)
    if limit is not None:
        scaled = lower_norms(scaled, limit)
    return left @ scaled, left[:, : config.true_rank], memberships


def lower_norms(blocks: np.ndarray, limit: float) -> np.ndarray:
    """Rotate pairs of blocks `(N, r, d2)` until every squared norm is at most `limit`.

    Each rotation takes the largest block to the limit and gives the rest to the smallest one
    (Bendel and Mickey's construction), so at most `N - 1` are needed. The mean squared norm must
    not exceed `limit`.
    """
    blocks = blocks.copy()
    squares = np.einsum("nra,nra->n", blocks, blocks)
    above = squares > limit * (1.0 + _BALANCED)
    largest = [(-squares[user], int(user)) for user in np.flatnonzero(above)]
    smallest = [(squares[user], int(user)) for user in np.flatnonzero(~above)]
    heapq.heapify(largest)
    heapq.heapify(smallest)
    while largest and smallest:
        _, high = heapq.heappop(largest)
        _, low = heapq.heappop(smallest)
        cosine, sine = _rotation_to(blocks[high], blocks[low], limit)
        first, second = blocks[high].copy(), blocks[low].copy()
        blocks[high] = cosine * first + sine * second
        blocks[low] = cosine * second - sine * first
        rest = float(np.sum(blocks[low] ** 2))
        if rest > limit * (1.0 + _BALANCED):
            heapq.heappush(largest, (-rest, low))
        else:
            heapq.heappush(smallest, (rest, low))
    worst = float(np.einsum("nra,nra->n", blocks, blocks).max())
    # rounding of N - 1 rotations in the last block, which takes what is left
    assert worst <= limit * (1.0 + 1e-9), (worst, limit)
    return blocks


def _rotation_to(high: np.ndarray, low: np.ndarray, target: float) -> tuple[float, float]:
    """Cosine and sine with `||c high + s low||^2 = target`, which lies between their squares.

    With `t = s / c`: `(b - target) t^2 + 2 m t + (a - target) = 0` for `a, b` the squares and `m`
    the inner product.
    """
    a, b, m = float(np.sum(high**2)), float(np.sum(low**2)), float(np.sum(high * low))
    root = np.sqrt(max(m * m - (b - target) * (a - target), 0.0))
    # the root of smaller size, in the form that does not cancel
    denominator = m + np.copysign(root, m)
    t = -(a - target) / denominator if denominator != 0 else 0.0
    cosine = 1.0 / np.sqrt(1.0 + t * t)
    return cosine, t * cosine
