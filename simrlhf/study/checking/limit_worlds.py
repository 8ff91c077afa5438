"""The worlds on which the limits L1, L2, L3 and L5 are judged, and the information in them.

More than thirty kinds: three links, `d2` of 1 and 2, isotropic, bounded-norm and anisotropic
features, with a base model, an ill-conditioned truth, and users with unequal numbers of pairs. They
share few shapes, so that few kernels are compiled.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.world import World, WorldConfig

# inside the ball of this radius lie all truths below and, at these sizes, nearly all fits
NORM_BOUND = 12.0
_LINKS = ("logistic", "probit", "laplace")
_SHAPES = ({"d1": 6, "d2": 1, "rank": 2}, {"d1": 5, "d2": 2, "rank": 2})
_VARIANTS = (
    {},
    {"features": "sphere"},
    {"features": "anisotropic", "feature_condition": 4.0},
    {"base_norm": 1.0},
    {"condition": 2.0},
    {"count_spread": 0.3},
)


class Kind(NamedTuple):
    """A kind of world, with a name for tables."""

    name: str
    config: WorldConfig


def limit_worlds(size: str) -> list[Kind]:
    """The kinds of world: 36, or three at the size `tiny`."""
    kinds = []
    for link, shape, variant in itertools.product(_LINKS, _SHAPES, _VARIANTS):
        # equal norms keep every reward of order one, where the links differ most
        config = WorldConfig(
            n_users=8,
            nu=0.7,
            user_norms="equal",
            link=link,
            **{"condition": 1.3, **shape, **variant},
        )
        told = (
            ", ".join(
                f"{key} {value:g}" if isinstance(value, float) else str(value)
                for key, value in variant.items()
            )
            or "plain"
        )
        kinds.append(Kind(f"{link}, d2 = {shape['d2']}, {told}", config))
    return kinds if size != "tiny" else [kinds[0], kinds[2], kinds[5]]


class Ingredients(NamedTuple):
    """What the limits need to know of a truth."""

    basis: np.ndarray
    factors: np.ndarray
    informations: np.ndarray
    weights: np.ndarray


def ingredients(world: World, n_pairs: int) -> Ingredients:
    """Basis, factors, informations `H_i` and weights `n_i / n` of a world.

    Features `x = L g` have `H_i = (L (x) I) H(L' Theta_i) (L (x) I)'` with the information H of the
    isotropic `g`.
    """
    root, theta = world.feature_root, world.theta
    law = "sphere" if world.features == "sphere" else "gaussian"
    whitened = theta if root is None else root.T @ theta
    informations = theory.isotropic_fisher(whitened, world.link, law)
    if root is not None:
        turn = np.kron(root, np.eye(world.config.d2))
        informations = turn @ informations @ turn.T
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    return Ingredients(world.basis, factors, informations, world.counts(n_pairs) / n_pairs)


def feature_covariance(world: World) -> np.ndarray:
    """`E[vec x vec x'] = S (x) I`, of side `d1 d2`."""
    return np.kron(world.feature_covariance, np.eye(world.config.d2))
