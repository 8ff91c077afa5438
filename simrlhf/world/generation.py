"""`make_world`: a truth with an exactly known spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks, numerics, streams
from simrlhf.core.links import Link, get_link
from simrlhf.world import spectra
from simrlhf.world.config import WorldConfig


@dataclass(frozen=True, eq=False)
class World:
    """The truth behind a simulation.

    Attributes:
        config: what was asked.
        theta_init: `(d1, d2)` base reward shared by all users.
        delta: `(N, d1, d2)` deviations; user `i`'s reward is `theta_init + delta[i]`.
        basis: `B^<> (d1, k)`, the top-k left space of the aggregate.
        singular_values: positive singular values of the aggregate, descending.
        link: the law of the labels.
    """

    config: WorldConfig
    theta_init: np.ndarray
    delta: np.ndarray
    basis: np.ndarray
    singular_values: np.ndarray
    link: Link

    @property
    def theta(self) -> np.ndarray:
        """`(N, d1, d2)` full reward matrices."""
        return self.theta_init + self.delta

    @property
    def n_users(self) -> int:
        return self.config.n_users

    @property
    def features(self) -> str:
        """Name of the law of the feature differences."""
        return self.config.features


def make_world(config: WorldConfig, seed: int = 0) -> World:
    """Draw a world: exact singular values, Haar left and right directions.

    Raises:
        InputError: the spectrum, the tail or the norm bound asked for cannot exist.
    """
    checks.require(
        isinstance(config, WorldConfig),
        f"config must be a WorldConfig, got {type(config).__name__}",
    )
    values = spectra.singular_values(config)
    spectra.user_norm_target(config, values)
    with numerics.float64_scope():
        random = streams.generator(seed, "world")
    delta, basis = spectra.matrix_with_spectrum(config, values, random)
    base = random.standard_normal((config.d1, config.d2))
    base *= config.base_norm / np.linalg.norm(base)
    return World(config, base, delta, basis, values, get_link(config.link))
