"""Laws of the feature difference `x = phi(tau_0) - phi(tau_1)`, nested in the number of pairs."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.world import populations
from simrlhf.world.config import ISOTROPIC_LAWS, TRAJECTORIES, WorldConfig


@partial(jax.jit, static_argnames=("law", "n_pairs", "size"))
def draw_features(
    key: jax.Array, *, law: str, n_pairs: int, size: int, root: jax.Array | None = None
) -> jax.Array:
    """`(n_pairs, size)` features; the first rows do not depend on `n_pairs`.

    JAX's partitionable threefry gives entry `j` of a draw from the key and `j` alone, so a longer
    draw begins with the shorter one (a test pins this down).

    Args:
        law: with `E[x x'] = I` where there is no root.
        size: `d1 d2`; rows are `vec x`, in C order.
        root: `L (d1, d1)` of the laws `x = L g`, g standard normal `(d1, d2)`.
    """
    if law == "bounded":
        widest = math.sqrt(3.0)
        return jax.random.uniform(key, (n_pairs, size), minval=-widest, maxval=widest)
    gaussian = jax.random.normal(key, (n_pairs, size))
    if root is not None:
        return jnp.einsum(
            "ab,nbc->nac", root, gaussian.reshape(n_pairs, root.shape[0], -1)
        ).reshape(n_pairs, size)
    if law == "gaussian":
        return gaussian
    return jnp.sqrt(size) * gaussian / jnp.linalg.norm(gaussian, axis=1, keepdims=True)


def feature_root(
    config: WorldConfig, basis: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    """Symmetric root `L (d1, d1)` of the covariance `L L' (x) I` of `vec x`; `None` for `I`.

    anisotropic: `L = Q diag(lambda)^{1/2} Q'`, Q Haar, lambda geometric with sum d1;
    degenerate: `L = I - v v'`, `v = (b + o) / sqrt 2`, b and o uniform in `B^<>` and outside of it.

    Memory and work are those of a dense `d1 x d1` matrix and its QR.
    """
    if config.features in (*ISOTROPIC_LAWS, TRAJECTORIES):
        return None
    d1 = config.d1
    if config.features == "anisotropic":
        values = np.geomspace(config.feature_condition if d1 > 1 else 1.0, 1.0, d1)
        values *= d1 / values.sum()
        turn = populations.haar(d1, d1, random)
        root = (turn * np.sqrt(values)) @ turn.T
        return 0.5 * (root + root.T)
    inside = basis @ random.standard_normal(basis.shape[1])
    outside = random.standard_normal(d1)
    for _ in range(2):
        outside -= basis @ (basis.T @ outside)
    blind = inside / np.linalg.norm(inside) + outside / np.linalg.norm(outside)
    blind /= np.linalg.norm(blind)
    return np.eye(d1) - np.outer(blind, blind)
