"""Draws that the checks measure on: worlds, nested samples and fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, fit
from simrlhf.sampling import sample_preferences
from simrlhf.world import MDP, World, WorldConfig, make_world

# cells whose fits are kept for other checks of the same process
_KEPT = 64


class Draw(NamedTuple):
    """One fit, with the sample and the world behind it.

    Attributes:
        world: the truth.
        preferences: the pairs; those beyond `n_pairs` have weight 0.
        result: the fit.
        n_pairs: mean number of pairs per user.
        repetition: number of the world; samples of one repetition are nested in `n_pairs`.
    """

    world: World
    preferences: Preferences
    result: FitResult
    n_pairs: int
    repetition: int


def fitted_draws(
    config: WorldConfig,
    sizes: Sequence[int],
    repetitions: int,
    *,
    estimator: str = "share_b",
    soft: bool = False,
    seed: int = 0,
    keep: bool = False,
    **settings: Any,
) -> list[Draw]:
    """Fits of independent worlds, nested in the number of pairs.

    The world's own base reward and rank are told to the fit, and to `oracle` its basis.

    Args:
        config: of every world.
        sizes: mean pairs per user.
        repetitions: worlds.
        soft: labels are probabilities: label noise is off.
        keep: keep them for other checks of this process that ask for the same; features and all
            stay in memory.
        settings: of `fit`, such as `norm_bound`.
    """
    key = (config, tuple(sizes), repetitions, estimator, soft, seed)
    draw = _kept if keep else _fitted
    return list(draw(*key, tuple(sorted(settings.items()))))


def _fitted(
    config: WorldConfig,
    sizes: tuple[int, ...],
    repetitions: int,
    estimator: str,
    soft: bool,
    seed: int,
    settings: tuple[tuple[str, Any], ...],
) -> tuple[Draw, ...]:
    found = []
    for world, sample, n_pairs, repetition in samples(
        config, sizes, repetitions, soft=soft, seed=seed
    ):
        result = fit(
            sample,
            estimator=estimator,
            rank=None if estimator in ("oracle", "full") else config.rank,
            basis=world.basis if estimator == "oracle" else None,
            theta_init=world.theta_init if world.theta_init.any() else None,
            **dict(settings),
        )
        found.append(Draw(world, sample, result, n_pairs, repetition))
    return tuple(found)


_kept = lru_cache(maxsize=_KEPT)(_fitted)


def samples(
    config: WorldConfig,
    sizes: Sequence[int],
    repetitions: int,
    *,
    soft: bool = False,
    seed: int = 0,
    mdp: MDP | None = None,
) -> Iterator[tuple[World, Preferences, int, int]]:
    """Worlds and nested samples, without a fit: world, sample, pairs per user, repetition.

    Args:
        mdp: the decision problem of all worlds, where the config says that it is given.
    """
    for repetition in range(repetitions):
        of_world, of_sample = streams.generator(seed, "check", repetition).integers(2**62, size=2)
        world = make_world(config, seed=int(of_world), mdp=mdp)
        everything = sample_preferences(
            world,
            np.full(world.n_users, _height(world, max(sizes))),
            seed=int(of_sample),
            soft=soft,
        )
        for n_pairs in sizes:
            yield world, everything.switched_to_first(world.counts(n_pairs)), n_pairs, repetition


def _height(world: World, largest: int) -> int:
    """Pairs drawn for every user: a multiple of the largest mean that covers the largest user.

    As many for all worlds but for rare ones, so that unequal users need no compilation each.
    """
    return largest * -(-int(world.counts(largest).max()) // largest)
