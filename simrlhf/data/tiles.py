"""Tiles: how flat pairs of unequal users become arrays of one shape.

A tile is a block of a fixed number of pairs that belong to one user; only a user's last tile is
padded, with weight 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# tile heights that a solver may see; the one that costs least is chosen (see `tile_height`)
_TILE_HEIGHTS = (8, 16, 32, 64, 128, 256)
# what one more tile costs, in pairs: every tile carries a row of per-user quantities
_TILE_OVERHEAD = 4


class Tiles(NamedTuple):
    """Blocks of pairs with one user each.

    Attributes:
        users: `(T,)` user of each tile, ascending.
        features: `(T, n, d1, d2)`, zero where padded.
        labels: `(T, n)`, zero where padded.
        weights: `(T, n)`, zero where padded.
    """

    users: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


def make_tiles(
    counts: np.ndarray, *, features: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> Tiles:
    """Cut pairs ordered by user into tiles; views of the flat arrays where nothing is padded.

    Args:
        counts: `(N,)` pairs of each user.
        features: `(P, d1, d2)`.
        labels, weights: `(P,)`.
    """
    height = tile_height(counts)
    per_user = -(-counts // height)
    n_tiles = int(per_user.sum())
    users = np.repeat(np.arange(counts.size), per_user)
    flat = [features, labels, weights]
    if n_tiles * height != labels.size:
        first_row = (np.cumsum(per_user) - per_user) * height
        within = np.arange(labels.size) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(first_row, counts) + within
        flat = [_scattered(array, rows, n_tiles * height) for array in flat]
    return Tiles(users, *(array.reshape(n_tiles, height, *array.shape[1:]) for array in flat))


def tile_height(counts: np.ndarray) -> int:
    """Height with the fewest padded pairs, counting what each tile costs; `n` for equal users."""
    if counts.min() == counts.max():
        return int(counts[0])
    cost = [(-(-counts // h)).sum() * (h + _TILE_OVERHEAD) for h in _TILE_HEIGHTS]
    return _TILE_HEIGHTS[int(np.argmin(cost))]


def _scattered(source: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    target = np.zeros((length, *source.shape[1:]))
    target[rows] = source
    return target
