"""Charts: in which parameters a class is differentiated at a fit, and the pairs seen in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.estimators.result import FitResult, FreeFactors, PooledFactors, SharedFactors

# classes whose information is worked out
FISHER_CLASSES = ("share_b", "oracle", "adapted", "full", "global")


class Pairs(NamedTuple):
    """Pairs ordered by model: `features (P, d1, d2)`, `information (P,)` weight times `I(z)`.

    Model m owns `offsets[m]:offsets[m + 1]`; models are users, or one that all users share.
    """

    features: np.ndarray
    information: np.ndarray
    offsets: np.ndarray

    @property
    def n_models(self) -> int:
        return self.offsets.size - 1

    def of_models(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Features and information of every model, without pairs of weight 0."""
        for first, last in zip(self.offsets, self.offsets[1:], strict=False):
            seen = self.information[first:last] > 0
            mine = self.features[first:last]
            yield (
                (mine, self.information[first:last])
                if seen.all()
                else (mine[seen], self.information[first:last][seen])
            )


class Chart(NamedTuple):
    """Where the class is differentiated.

    Attributes:
        basis: `B (d1, k)`; `None` for matrices without structure (k = d1).
        outside: `B_perp (d1, d1 - k)`, or `None` where the basis does not move.
        weights: `W (M, k, d2)`, used where the basis moves.
    """

    basis: np.ndarray | None
    outside: np.ndarray | None
    weights: np.ndarray | None

    def inside(self, features: np.ndarray) -> np.ndarray:
        """`p (m, k d2)`."""
        if self.basis is None:
            return features.reshape(len(features), -1)
        return np.einsum("mab,ak->mkb", features, self.basis, optimize=True).reshape(
            len(features), -1
        )

    def across(self, features: np.ndarray) -> np.ndarray:
        """`B_perp' x`: `(m, (d1 - k) d2)`."""
        assert self.outside is not None
        return np.einsum("mab,ao->mob", features, self.outside, optimize=True).reshape(
            len(features), -1
        )

    def through(self, across: np.ndarray, model: int) -> np.ndarray:
        """`(m, (d1 - k) d2)` to `(m, (d1 - k) k)`: from outside B, through the factors, to K."""
        assert self.weights is not None
        turned = across.reshape(-1, self.weights.shape[2]) @ self.weights[model].T
        return turned.reshape(len(across), -1)


def chart_of(result: FitResult) -> Chart:
    """The chart of a fit's class.

    Raises:
        InputError: a class whose information is not worked out.
    """
    factors = result.factors
    if is_free(result):
        return Chart(None, None, None)
    checks.require(
        result.estimator in FISHER_CLASSES,
        f"the information of {result.estimator} is not worked out (it is for "
        f'{", ".join(FISHER_CLASSES)}); use method="bootstrap"',
    )
    if isinstance(factors, PooledFactors):
        if factors.basis.shape[1] >= min(result.delta.shape[1:]):
            return Chart(None, None, None)  # one matrix without a constraint
        weights = factors.weights[None]
    else:
        assert isinstance(factors, SharedFactors)
        if result.estimator != "share_b":
            return Chart(factors.basis, None, factors.weights)
        weights = factors.weights
    return Chart(factors.basis, subspaces.orthonormal_complement(factors.basis), weights)


def is_free(result: FitResult) -> bool:
    """`full`, and `local` of a rank that is no constraint."""
    return isinstance(result.factors, FreeFactors) and result.estimator in ("full", "local")
