"""Scores of redrawn labels on a fixed design, and the bounds S3 of their norm."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.core import subspaces
from simrlhf.core.links import Link
from simrlhf.data.preferences import Preferences
from simrlhf.world import World


class Design(NamedTuple):
    """Features of all users and the true rewards of their pairs.

    Attributes:
        link: of the labels.
        features: `(P, d1, d2)`, by user.
        offsets: `(N + 1,)`.
        rewards: `(P,)` true reward differences.
    """

    link: Link
    features: np.ndarray
    offsets: np.ndarray
    rewards: np.ndarray

    @property
    def sizes(self) -> dict[str, int]:
        """`d1`, `n_users` and `d2`, as the bounds of S3 take them."""
        _, d1, d2 = self.features.shape
        return {"d1": d1, "n_users": self.offsets.size - 1, "d2": d2}


def design_of(world: World, preferences: Preferences, *, n_pairs: int | None = None) -> Design:
    """The pairs that carry weight; with `n_pairs` only the first so many of each user."""
    place = np.arange(preferences.n_total) - preferences.offsets[preferences.users]
    seen = (preferences.weights > 0) & (place < (n_pairs or preferences.n_total))
    x, users = preferences.features[seen], preferences.users[seen]
    counts = np.bincount(users, minlength=world.n_users)
    rewards = np.einsum("jab,jab->j", x, world.theta[users])
    return Design(world.link, x, np.concatenate([[0], np.cumsum(counts)]), rewards)


def redrawn_norms(design: Design, redraws: int, *, seed: int) -> np.ndarray:
    """`||G||_op` over so many draws of all labels from the truth."""
    link, z = design.link, design.rewards
    users = np.repeat(np.arange(design.offsets.size - 1), np.diff(design.offsets))
    probability = np.asarray(link.mean(z))
    of_zero, of_one = (np.asarray(link.loss_slope(z, np.full_like(z, y))) for y in (0.0, 1.0))
    random = np.random.default_rng(seed)
    norms = np.empty(redraws)
    for number in range(redraws):
        factors = np.where(random.random(z.size) < probability, of_one, of_zero)
        scores = np.zeros((design.offsets.size - 1, *design.features.shape[1:]))
        np.add.at(scores, users, factors[:, None, None] * design.features)
        norms[number] = np.linalg.norm(subspaces.unfold(scores), 2)
    return norms


def noise_bounds(design: Design, *, delta: float) -> dict[str, float]:
    """Bernstein's bound and the net bound of `||G||_op`, and `sqrt V` without a logarithm."""
    link, z = design.link, design.rewards
    constants = theory.link_constants(link, margin=float(np.abs(z).max()))
    variance = theory.score_variance(
        design.features, design.offsets, np.asarray(link.information(z))
    )
    return {
        "bernstein": theory.bernstein_noise_bound(
            variance=variance,
            largest_score=theory.largest_score(design.features, link, margins=z),
            delta=delta,
            **design.sizes,
        ).value,
        "nets": theory.net_noise_bound(
            score_width=constants.score_width,
            largest_design=theory.design_extremes(design.features, design.offsets)[1],
            delta=delta,
            **design.sizes,
        ).value,
        "root_variance": float(np.sqrt(variance)),
    }
