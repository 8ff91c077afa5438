"""Named random streams: the one place where keys are made.

A stream is identified by the root seed, a purpose and integers (user, repetition ...), so that
two purposes never share numbers and the same purpose is reproduced anywhere.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np

from simrlhf.core import checks


def stream(root: int, purpose: str, *indices: int) -> jax.Array:
    """Return the typed key of `purpose` (and its integer `indices`) under the seed `root`.

    The purpose enters as its CRC-32, which does not change between processes (`hash` does), and
    the generator is named, so that a caller's JAX settings do not change the numbers.

    Raises:
        InputError: a seed outside 63 bits, an index outside 32 bits.
    """
    seed = checks.integer(
        "seed", root, low=0, high=2**63 - 1, remedy="use a non-negative 64-bit seed"
    )
    # jax.random.key keeps 32 bits unless x64 is on; folding both halves in keeps all of them
    folded = [seed >> 31, zlib.crc32(purpose.encode())]
    folded += [checks.integer("index", index, low=0, high=2**32 - 1) for index in indices]
    return _folded(np.uint32(seed & 0x7FFFFFFF), *map(np.uint32, folded))


@jax.jit  # a sweep makes streams by the thousand
def _folded(seed: jax.Array, *parts: jax.Array) -> jax.Array:
    key = jax.random.key(seed, impl="threefry2x32")
    for part in parts:
        key = jax.random.fold_in(key, part)
    return key


def generator(root: int, purpose: str, *indices: int) -> np.random.Generator:
    """Return a NumPy generator on the same named stream, for host-side construction."""
    words = np.asarray(jax.random.key_data(stream(root, purpose, *indices)), dtype=np.uint32)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(w) for w in words])))
