"""Distances between subspaces, and the small linear algebra around them.

Sines, not cosines: an angle of 1e-8 has a cosine that rounds to 1, so every distance here starts
from the part of one basis that lies outside the other (theory.md, Definition A.1).
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from simrlhf.core import checks

KINDS = ("frobenius", "spectral", "procrustes", "geodesic")
# columns further than this from orthonormal are an error of the caller, not rounding
_ORTHONORMAL_TOLERANCE = 1e-6


def principal_angles(b1: np.ndarray, b2: np.ndarray) -> np.ndarray:
    """Principal angles between two column spaces, ascending, in radians.

    Sines are the singular values of `(I - B1 B1') B2`, cosines those of `B1' B2`; the angle is
    `arctan2(sine, cosine)`, accurate to rounding near 0 and near pi/2 alike.

    Args:
        b1, b2: `(d, k)` with orthonormal columns.

    Returns:
        `(k,)` angles in `[0, pi/2]`.

    Raises:
        InputError: shapes differ, or columns are not orthonormal.
    """
    b1, b2 = _bases(b1, b2)
    sines, cosines = _sines_and_cosines(b1, b2)
    return np.arctan2(sines, cosines)


def subspace_distance(b1: np.ndarray, b2: np.ndarray, kind: str = "frobenius") -> float:
    """Distance between the column spaces of two orthonormal bases (Definition A.1).

    With principal angles `a_j`:

    * `frobenius`: `||B1 B1' - B2 B2'||_F / sqrt 2 = (sum sin^2 a_j)^{1/2}`, the paper's `dist`,
      in `[0, sqrt(min(k, d - k))]`;
    * `spectral`: the largest sine;
    * `procrustes`: `min_O ||B1 - B2 O||_F = (sum (2 sin(a_j / 2))^2)^{1/2}`;
    * `geodesic`: `(sum a_j^2)^{1/2}`.

    Args:
        b1, b2: `(d, k)` with orthonormal columns.
        kind: one of the four names above.

    Raises:
        InputError: unknown kind, shapes differ, or columns are not orthonormal.
    """
    checks.choice("kind of subspace distance", kind, KINDS)
    b1, b2 = _bases(b1, b2)
    sines, cosines = _sines_and_cosines(b1, b2)
    if kind == "frobenius":
        return float(np.linalg.norm(sines))
    if kind == "spectral":
        return float(sines.max(initial=0.0))
    angles = np.arctan2(sines, cosines)
    if kind == "procrustes":
        return float(np.linalg.norm(2.0 * np.sin(angles / 2.0)))
    return float(np.linalg.norm(angles))


def missed_sines(wide: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Singular values of `(I - P) B`, P the projection on a space that may be wider than B's.

    With `k` columns each they are the sines of the principal angles.

    Args:
        wide: `(d, m)` with orthonormal columns, `m >= k`.
        basis: `(d, k)` with orthonormal columns.

    Raises:
        InputError: fewer columns, another d, or columns that are not orthonormal.
    """
    wide, basis = _orthonormal("wide", wide), _orthonormal("basis", basis)
    checks.require(
        wide.shape[0] == basis.shape[0] and wide.shape[1] >= basis.shape[1],
        f"a space as wide as basis {basis.shape} is needed, got {wide.shape}; raise its rank",
    )
    return _sines_and_cosines(wide, basis)[0]


def top_left_space(matrix: np.ndarray, rank: int) -> np.ndarray:
    """Orthonormal basis `(d1, rank)` of the space of the `rank` largest left singular vectors."""
    rank = checks.integer("rank", rank, low=0, high=min(matrix.shape))
    return np.ascontiguousarray(np.linalg.svd(matrix, full_matrices=False)[0][:, :rank])


def unfold(delta: np.ndarray) -> np.ndarray:
    """Aggregate `[Delta_1 ... Delta_N]`: `(N, d1, d2)` to `(d1, N d2)`."""
    n_users, d1, d2 = delta.shape
    return np.ascontiguousarray(np.moveaxis(delta, 0, 1)).reshape(d1, n_users * d2)


def fold(aggregate: np.ndarray, n_users: int) -> np.ndarray:
    """Inverse of `unfold`: `(d1, N d2)` to `(N, d1, d2)`."""
    d1, columns = aggregate.shape
    blocks = aggregate.reshape(d1, n_users, columns // n_users)
    return np.ascontiguousarray(np.moveaxis(blocks, 1, 0))


def orthonormal_complement(basis: np.ndarray) -> np.ndarray:
    """Orthonormal basis `(d, d - k)` of the complement of the column space of `basis`."""
    return scipy.linalg.null_space(basis.T)


def _sines_and_cosines(b1: np.ndarray, b2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cross = b1.T @ b2
    outside = b2 - b1 @ cross
    outside -= b1 @ (b1.T @ outside)  # a second projection removes the rounding of the first
    sines = np.linalg.svd(outside, compute_uv=False)[::-1]
    cosines = np.linalg.svd(cross, compute_uv=False)
    return np.clip(sines, 0.0, 1.0), np.clip(cosines, 0.0, 1.0)


def _bases(b1: np.ndarray, b2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    b1, b2 = _matrix("b1", b1), _matrix("b2", b2)
    checks.require(
        b1.shape == b2.shape,
        f"bases of one shape are needed, got b1 {b1.shape} and b2 {b2.shape}; compare spaces of "
        "equal dimension in the same R^d",
    )
    return _orthonormal("b1", b1), _orthonormal("b2", b2)


def _matrix(name: str, basis: np.ndarray) -> np.ndarray:
    basis = checks.numbers(name, basis)
    checks.require(
        basis.ndim == 2, f"{name} must be a (d, k) matrix, got an array of shape {basis.shape}"
    )
    checks.finite(name, basis)
    return basis


def _orthonormal(name: str, basis: np.ndarray) -> np.ndarray:
    basis = _matrix(name, basis)
    error = float(np.abs(basis.T @ basis - np.eye(basis.shape[1])).max(initial=0.0))
    checks.require(
        error <= _ORTHONORMAL_TOLERANCE,
        f"the columns of {name} are not orthonormal (largest error {error:.2g}, limit "
        f"{_ORTHONORMAL_TOLERANCE:g}); pass np.linalg.qr({name})[0]",
    )
    return basis
