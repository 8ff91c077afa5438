"""Repetitions and the curves in them: a line through each curve, one number for each repetition."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simrlhf.core import checks


def groups(name: str, given: ArrayLike | None, size: int) -> np.ndarray:
    """Return labels as integers from 0; without labels everything is one group."""
    if given is None:
        return np.zeros(size, dtype=np.intp)
    labels = checks.names(name, given).ravel()
    checks.shape(name, labels, (size,), remedy="give one label for each point")
    return np.unique(labels, return_inverse=True)[1]


def numbered(*keys: np.ndarray) -> np.ndarray:
    """For each entry, the number of its combination of keys among those that occur."""
    stacked = np.stack([key.astype(float) for key in keys])
    return np.unique(stacked, axis=1, return_inverse=True)[1].ravel()


def lines(u: np.ndarray, v: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercepts and slopes of the least-squares lines of `v` on `u`, one for each group."""
    u_mean, v_mean = means(u, group), means(v, group)
    away = u - u_mean[group]
    slopes = np.bincount(group, weights=away * v) / np.bincount(group, weights=away**2)
    return v_mean - slopes * u_mean, slopes


def means(v: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mean of each group."""
    return np.bincount(group, weights=v) / np.bincount(group)


def over_curves(found: np.ndarray, line: np.ndarray, repetition: np.ndarray) -> np.ndarray:
    """Mean over the curves of each repetition of what was found for each line.

    Args:
        found: one number for each line.
        line, repetition: for each point, the number of its line and of its repetition.
    """
    owner = np.zeros(found.size, dtype=np.intp)
    owner[line] = repetition
    return means(found, numbered(owner))


def fewest_distinct(u: np.ndarray, group: np.ndarray) -> int:
    """Distinct `u` of the group that has fewest."""
    pairs = np.unique(np.stack([group.astype(float), u]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def require_repetitions(number: int, *, fewest: int) -> None:
    """Refuse fewer repetitions than a Student interval of their mean is worth."""
    checks.require(
        number >= fewest,
        f"{number} repetitions say too little of a mean; at least {fewest} are needed",
    )


def require_owner(curve: object, repetition: object) -> None:
    """Refuse curves without the repetitions that they are part of."""
    checks.require(
        curve is None or repetition is not None,
        "curve= names the curves of a repetition; give repetition= as well",
    )
