"""Users who come later: another draw of the factors on the same basis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simrlhf.core import subspaces
from simrlhf.world import World


def newcomers(world: World, other: World) -> World:
    """The users of `other`, turned so that they have the basis of `world`.

    Both bases are completed to frames of `R^d1`, so a tail stays off the span.
    """
    turn = _frame(world.basis) @ _frame(other.basis).T
    return replace(other, delta=turn @ other.delta, basis=world.basis)


def _frame(basis: np.ndarray) -> np.ndarray:
    return np.hstack([basis, subspaces.orthonormal_complement(basis)])
