"""`make_world`: a truth with an exactly known spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks, numerics, streams
from simrlhf.core.links import Link, get_link
from simrlhf.world import spectra
from simrlhf.world.behaviours import Behaviours
from simrlhf.world.config import TRAJECTORIES, WorldConfig
from simrlhf.world.decisions import Truth, make_decisions
from simrlhf.world.feature_laws import feature_root
from simrlhf.world.mdp import MDP


@dataclass(frozen=True, eq=False)
class World:
    """The truth behind a simulation.

    Attributes:
        config: what was asked.
        theta_init: `(d1, d2)` base reward shared by all users.
        delta: `(N, d1, d2)` deviations; user `i`'s reward is `theta_init + delta[i]`.
        basis: `B^<> (d1, k)`, the top-k left space of the aggregate; with a deficiency it has the
            columns that are identified, `k - deficiency`.
        singular_values: positive singular values of the aggregate, descending.
        link: the law of the labels.
        memberships: `A (N, K)` of clusters and mixtures: but for a tail, `Delta_i = sum_j a_ij C_j`
            exactly. Of a minority `(N, 2)`: its users have a 1 in the second column. Else `None`.
        feature_root: `L (d1, d1)` of features `x = L g`, or `None` where `E[vec x vec x'] = I`.
        mdp, behaviours: the decision problem, and the policies that are compared in it; `None`
            where the config has no decision problem.
        count_factors: `(N,)` the users' shares `n_i / n` of the pairs, or `None` for equal ones.
    """

    config: WorldConfig
    theta_init: np.ndarray
    delta: np.ndarray
    basis: np.ndarray
    singular_values: np.ndarray
    link: Link
    memberships: np.ndarray | None = None
    feature_root: np.ndarray | None = None
    count_factors: np.ndarray | None = None
    mdp: MDP | None = None
    behaviours: Behaviours | None = None

    @property
    def theta(self) -> np.ndarray:
        """`(N, d1, d2)` full reward matrices."""
        return self.theta_init + self.delta

    @property
    def truncated(self) -> np.ndarray:
        """`Delta^<> (N, d1, d2)`: the deviations projected on `B^<>`."""
        return np.einsum("ak,bk,nbc->nac", self.basis, self.basis, self.delta)

    @property
    def n_users(self) -> int:
        return self.config.n_users

    @property
    def features(self) -> str:
        """Name of the law of the feature differences."""
        return self.config.features

    @property
    def feature_covariance(self) -> np.ndarray:
        """`S (d1, d1)` with `E[vec x vec x'] = S (x) I_{d2}`.

        Raises:
            InputError: features are differences of trajectories; see `policy.pair_moments`.
        """
        checks.require(
            self.features != TRAJECTORIES,
            "features = 'trajectories' have no covariance S (x) I; take policy.pair_moments",
        )
        if self.feature_root is None:
            return np.eye(self.config.d1)
        return self.feature_root @ self.feature_root.T

    def counts(self, n_pairs: int) -> np.ndarray:
        """Pairs of each user `(N,)` where their mean is `n_pairs`: `n_i = max(1, round(n f_i))`.

        They rise with `n_pairs`, so that samples are nested; where 1 is the limit of some the mean
        is above `n_pairs`.
        """
        n_pairs = checks.integer("n_pairs", n_pairs, low=1)
        if self.count_factors is None:
            return np.full(self.n_users, n_pairs)
        return np.maximum(1, np.floor(n_pairs * self.count_factors + 0.5).astype(np.int64))


def make_world(
    config: WorldConfig,
    seed: int = 0,
    *,
    mdp: MDP | None = None,
    behaviours: Behaviours | None = None,
) -> World:
    """Draw a world: exact singular values, Haar left directions, right ones as the population has.

    Deviations are the same whatever the features, counts and decisions are.

    Args:
        mdp: the decision problem, where `config.decision.mdp` is `"given"` or `"texts"`.
        behaviours: the policies whose trajectories are compared, in the place of the config's.

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
        random, of_features, of_counts, of_decisions = (
            streams.generator(seed, purpose)
            for purpose in ("world", "feature law", "counts", "decisions")
        )
    delta, basis, memberships = spectra.matrix_with_spectrum(config, values, random)
    base = random.standard_normal((config.d1, config.d2))
    base *= config.base_norm / np.linalg.norm(base)
    decisions = (None, None)
    if config.decision is not None:
        truth = Truth(base + delta, base, basis)
        decisions = make_decisions(config.decision, truth, of_decisions, mdp, behaviours)
    else:
        checks.require(
            mdp is None and behaviours is None,
            "make_world got an mdp or behaviours, and the config has no decision problem",
        )
    return World(
        config,
        base,
        delta,
        basis,
        values,
        get_link(config.link),
        memberships=memberships,
        feature_root=feature_root(config, basis, of_features),
        count_factors=_count_factors(config, of_counts),
        mdp=decisions[0],
        behaviours=decisions[1],
    )


def _count_factors(config: WorldConfig, random: np.random.Generator) -> np.ndarray | None:
    if config.count_spread == 0.0:
        return None
    factors = np.exp(config.count_spread * random.standard_normal(config.n_users))
    return factors / factors.mean()
