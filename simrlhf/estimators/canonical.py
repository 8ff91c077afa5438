"""One form for factors that rotations leave free: singular directions in order, signs fixed."""

from __future__ import annotations

import numpy as np


def canonical(basis: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotate `B, W` without changing `B W_i` so that B's columns are singular directions in order.

    Args:
        basis: `(d1, k)` orthonormal.
        weights: `(N, k, d2)`.
    """
    aggregate = np.moveaxis(weights, 0, 1).reshape(basis.shape[1], -1)
    if aggregate.shape[1] > aggregate.shape[0]:
        aggregate = np.asarray(np.linalg.qr(aggregate.T, mode="r")).T
    turn = oriented(np.linalg.svd(aggregate)[0], basis)
    return basis @ turn, np.einsum("kj,nkb->njb", turn, weights)


def oriented(columns: np.ndarray, frame: np.ndarray | None = None) -> np.ndarray:
    """Flip columns so that the largest entry of each (seen in `frame`) is positive."""
    seen = columns if frame is None else frame @ columns
    largest = np.take_along_axis(seen, np.abs(seen).argmax(axis=0)[None], axis=0)[0]
    return columns * np.where(largest < 0, -1.0, 1.0)
