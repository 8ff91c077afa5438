"""Laws of the feature difference `x = phi(tau_0) - phi(tau_1)`, nested in the number of pairs."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.jit, static_argnames=("law", "n_pairs", "size"))
def draw_features(key: jax.Array, *, law: str, n_pairs: int, size: int) -> jax.Array:
    """`(n_pairs, size)` features with `E[x x'] = I`; the first rows do not depend on `n_pairs`.

    JAX's partitionable threefry gives entry `j` of a draw from the key and `j` alone, so a longer
    draw begins with the shorter one (a test pins this down).
    """
    gaussian = jax.random.normal(key, (n_pairs, size))
    if law == "gaussian":
        return gaussian
    return jnp.sqrt(size) * gaussian / jnp.linalg.norm(gaussian, axis=1, keepdims=True)
