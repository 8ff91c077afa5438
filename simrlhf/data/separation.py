"""Separable labels: can a linear reward sort a user's answers, so that no likelihood is largest?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse
from scipy.special import expit

KINDS = COMPLETE, QUASI, OVERLAP, NOT_EXAMINED = "complete", "quasi", "overlap", "not examined"

# where a direction separates, each step divides the residuals there by e
_NEWTON_STEPS = 30
# a sign is certain above this, for rows of orthonormal columns and residuals of order one
_CERTAIN = 1e-10
# keeps Newton's equations solvable where every label is fitted
_LEAST_CURVATURE = 1e-12
# a row of orthonormal columns shorter than this is zero up to rounding
_ZERO = 1e-12
# a label with a smaller residual may be one that a direction separates
_FITTED = 1e-6
# constraints times unknowns of a linear program: 28,000 times 51 took 15 s
_LARGEST_PROGRAM = 1_500_000


class RowSpace(NamedTuple):
    """Feature rows in an orthonormal basis: what separation and rank depend on.

    Attributes:
        rows: `(n, rank)`, orthonormal columns.
        values: `(min(n, D),)` singular values of the features, falling.
        empty: `(n,)` rows of zeros, up to rounding.
    """

    rows: np.ndarray
    values: np.ndarray
    empty: np.ndarray

    @property
    def rank(self) -> int:
        return self.rows.shape[1]

    @property
    def condition(self) -> float:
        """Largest over smallest singular value above rounding; NaN for rows of zeros alone."""
        return float(self.values[0] / self.values[self.rank - 1]) if self.rank else np.nan


class Separation(NamedTuple):
    """The kind, and how many hard labels one direction of recession gets strictly right."""

    kind: str
    n_separated: int


def row_space(features: np.ndarray) -> RowSpace:
    """Orthonormal coordinates of feature rows `(n, D)`; singular values below rounding are zero."""
    left, values, _ = np.linalg.svd(features, full_matrices=False)
    rounding = values.max(initial=0.0) * max(features.shape) * np.finfo(float).eps
    empty = np.linalg.norm(features, axis=1) <= rounding
    return RowSpace(left[:, values > rounding], values, empty)


def find_separation(space: RowSpace, labels: np.ndarray) -> Separation:
    """Can a linear reward without intercept sort these labels?

    Some `theta` has `s_j x_j'theta >= 0` for every hard label (`s_j = 1` or `-1`), `x_j'theta = 0`
    for every soft one, and `> 0` somewhere: then the likelihood rises for ever along `theta` and
    has no maximiser. `"complete"`: `> 0` for every label, all hard; `"quasi"`: for some only;
    `"overlap"`: no such `theta`. Rows of zeros take no part. (A. Albert and J. A. Anderson,
    Biometrika 71, 1984.)

    As a rule Newton's method finds a proof (see `_prove`), exact up to rounding. Otherwise a linear
    program decides, which keeps its constraints to 1e-7 only: by it, labels that a direction
    separates by margins of that order may count as separated or not.

    Args:
        space: of the features `(n, D)`.
        labels: `(n,)` in `[0, 1]`; 0 and 1 are hard.

    Returns:
        `("not examined", 0)` for a program too large or one that the solver did not finish.
    """
    rows, labels = space.rows[~space.empty], labels[~space.empty]
    hard = (labels == 0) | (labels == 1)
    sided = rows[hard] * np.where(labels[hard] == 1, 1.0, -1.0)[:, None]
    if not hard.all():
        sided = _off(sided, rows[~hard])
    moved = _nonzero(sided)
    if not moved.any():
        return Separation(OVERLAP, 0)
    whole = hard.all() and moved.all()
    kind, n_separated = _separate(sided if whole else row_space(sided[moved]).rows)
    return Separation(QUASI if kind == COMPLETE and not whole else kind, n_separated)


def _separate(sided: np.ndarray) -> Separation:
    """Separation of rows `s_j x_j` `(n, r)` of orthonormal columns, none of them zero."""
    kind, residual = _prove(sided)
    if kind != NOT_EXAMINED:
        return Separation(kind, len(sided) if kind == COMPLETE else 0)
    # where Newton's method diverges, it has fitted the labels that a direction separates; where a
    # reward is merely large, some labels look like it
    fitted = residual < _FITTED
    if fitted.any() and not fitted.all():
        rest = row_space(sided[~fitted])
        if _prove(rest.rows)[0] == OVERLAP:
            # theta = 0 on the rest, by multipliers above 0: it is free off their rows alone
            if rest.rank == sided.shape[1]:
                return Separation(OVERLAP, 0)
            # orthonormal columns again, for the rest does not move along them
            free = _off(sided[fitted], sided[~fitted])
            if _prove(free)[0] == COMPLETE:
                return Separation(QUASI, len(free))
    return _by_program(sided)


def _nonzero(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=1) > _ZERO


def _off(rows: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Rows as they act on the directions along which no row of `fixed` moves."""
    return rows @ scipy.linalg.null_space(np.linalg.qr(fixed, mode="r"))


def _prove(sided: np.ndarray) -> tuple[str, np.ndarray]:
    """Complete separation or overlap with a proof, or `"not examined"`; and the residuals.

    Newton's method on the logistic loss. A proof of separation is a `theta` with
    `s_j x_j'theta > 0`; one of overlap are `lambda_j > 0` with `sum_j lambda_j s_j x_j = 0`: the
    residuals, projected off the features.

    Args:
        sided: `(n, r)` rows `s_j x_j` of orthonormal columns.
    """
    theta, residual = np.zeros(sided.shape[1]), np.full(len(sided), 0.5)
    for _ in range(_NEWTON_STEPS):
        reward = sided @ theta
        if (reward > _CERTAIN * np.abs(reward).max()).all():
            return COMPLETE, residual
        residual = expit(-reward)
        slope = sided.T @ residual
        if (residual - sided @ slope > _CERTAIN).all():
            return OVERLAP, residual
        curvature = (sided * (residual * (1 - residual))[:, None]).T @ sided
        theta += np.linalg.solve(curvature + _LEAST_CURVATURE * np.eye(theta.size), slope)
    return NOT_EXAMINED, residual


def _by_program(sided: np.ndarray) -> Separation:
    """The linear program (K. Konis, thesis, Oxford, 2007)

        max sum_j u_j   subject to   s_j x_j'theta >= u_j,  0 <= u_j <= 1,

    whose value is the largest number of labels that one recession direction gets strictly right.
    Rows are brought to length one first: the solver's 1e-7 is absolute.
    """
    n, r = sided.shape
    if n * r > _LARGEST_PROGRAM:
        return Separation(NOT_EXAMINED, 0)
    unit = sided / np.linalg.norm(sided, axis=1)[:, None]
    below = [scipy.sparse.csr_array(-unit), scipy.sparse.eye_array(n)]
    found = scipy.optimize.linprog(
        np.concatenate([np.zeros(r), -np.ones(n)]),
        A_ub=scipy.sparse.hstack(below).tocsc(),
        b_ub=np.zeros(n),
        bounds=[(None, None)] * r + [(0, 1)] * n,
        method="highs",
    )
    if found.status != 0:
        return Separation(NOT_EXAMINED, 0)
    n_separated = -round(found.fun)
    kind = COMPLETE if n_separated == n else QUASI if n_separated else OVERLAP
    return Separation(kind, n_separated)
