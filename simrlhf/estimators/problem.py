"""The likelihood as kernels see it: tiles on the device, and the two maps that read the features.

Layout. A tile holds `n` pairs of one user; features are kept as rows `(T, n, d2, d1)` so that
`x' B` for all pairs is one matrix product over contiguous memory. Factors are kept transposed and
flat, `(N, d2 k)`, to match the projected features `(T, n, d2 k)`; `unflatten_factors` gives the
`W_i (k, d2)` of the theory.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.data.tiles import Tiles


class PreferenceSource(Protocol):
    """What `fit` needs to know of its data: `Preferences`, or anything that yields tiles."""

    @property
    def n_users(self) -> int: ...
    @property
    def d1(self) -> int: ...
    @property
    def d2(self) -> int: ...
    @property
    def user_ids(self) -> np.ndarray: ...
    @property
    def link(self) -> str: ...
    def chunks(self) -> Iterator[Tiles]: ...


class Problem(NamedTuple):
    """Pairs of all users, as arrays of the device, or of NumPy on their way to it.

    Attributes:
        rows: `(T, n, d2, d1)` features.
        labels, weights: `(T, n)`; weight 0 marks padding.
        offsets: `(T, n)` reward difference `<Theta_init, x>` of the base model.
        users: `(T,)` user of each tile, ascending.
    """

    rows: jax.Array
    labels: jax.Array
    weights: jax.Array
    offsets: jax.Array
    users: jax.Array

    @property
    def d1(self) -> int:
        return self.rows.shape[3]

    @property
    def d2(self) -> int:
        return self.rows.shape[2]


# converting and copying costs as much as several data passes, and sources are immutable
_on_device: weakref.WeakKeyDictionary[PreferenceSource, Problem] = weakref.WeakKeyDictionary()


def load_problem(source: PreferenceSource, theta_init: np.ndarray | None = None) -> Problem:
    """Put a preference source on the device; `theta_init` `(d1, d2)` enters as offsets."""
    if not isinstance(source, Hashable):  # a source of the user's own that cannot be remembered
        return with_base(_to_device(source), theta_init)
    if source not in _on_device:
        _on_device[source] = _to_device(source)
    return with_base(_on_device[source], theta_init)


def with_base(problem: Problem, theta_init: np.ndarray | jax.Array | None) -> Problem:
    """The problem with the base reward `<theta_init, x>`, if any, as offsets. One data pass."""
    if theta_init is None:
        return problem
    return problem._replace(offsets=jnp.einsum("tnba,ab->tn", problem.rows, theta_init))


def project_rows(problem: Problem, basis: jax.Array) -> jax.Array:
    """`z = B' x` of every pair: `(T, n, d2 k)`. One data pass."""
    n_tiles, height, d2, d1 = problem.rows.shape
    flat = problem.rows.reshape(-1, d1) @ basis
    return flat.reshape(n_tiles, height, d2 * basis.shape[1])


def rewards_of(problem: Problem, delta: jax.Array) -> jax.Array:
    """`<Delta_i, x>` of every pair, `(N, d1, d2)` to `(T, n)`, without the base. One data pass."""
    of_tile = jnp.swapaxes(delta, 1, 2)[problem.users]
    return jnp.einsum("tnba,tba->tn", problem.rows, of_tile)


def collect_rows(problem: Problem, coefficients: jax.Array) -> jax.Array:
    """`sum_pairs x c'`: `(T, n, d2 k)` coefficients to `(d1, k)`. One data pass."""
    d2, d1 = problem.d2, problem.d1
    k = coefficients.shape[2] // d2
    return problem.rows.reshape(-1, d1).T @ coefficients.reshape(-1, k)


def stacked_score(problem: Problem, slopes: jax.Array, n_users: int) -> jax.Array:
    """Score blocks `sum_j slope_ij x_ij` of every user: `(N, d2, d1)`. One data pass."""
    return sum_over_users(problem, jnp.einsum("tn,tnba->tba", slopes, problem.rows), n_users)


def sum_over_users(problem: Problem, per_tile: jax.Array, n_users: int) -> jax.Array:
    """Add the tiles of each user: `(T, ...)` to `(N, ...)`."""
    return jax.ops.segment_sum(per_tile, problem.users, n_users, indices_are_sorted=True)


def unflatten_factors(flat: np.ndarray, d2: int) -> np.ndarray:
    """`(N, d2 k)` kernel layout to `W (N, k, d2)`."""
    n_users = flat.shape[0]
    return np.swapaxes(np.asarray(flat).reshape(n_users, d2, -1), 1, 2)


def flatten_factors(factors: np.ndarray) -> np.ndarray:
    """Inverse of `unflatten_factors`."""
    return np.swapaxes(factors, 1, 2).reshape(factors.shape[0], -1)


def host_problem(source: PreferenceSource) -> Problem:
    """A preference source as NumPy arrays, offsets zero."""
    chunks = list(source.chunks())
    heights = {chunk.labels.shape[1] for chunk in chunks}
    if len(heights) > 1:
        chunks = [_pad(chunk, max(heights)) for chunk in chunks]
    users, features, labels, weights = (
        parts[0] if len(parts) == 1 else np.concatenate(parts)
        for parts in zip(*chunks, strict=True)
    )
    rows = np.ascontiguousarray(np.swapaxes(features, 2, 3))
    arrays: list[Any] = [rows, labels, weights, np.zeros(labels.shape), users.astype(np.int32)]
    return Problem(*arrays)


def _to_device(source: PreferenceSource) -> Problem:
    return Problem(*(jnp.asarray(array) for array in host_problem(source)))


def _pad(chunk: Tiles, height: int) -> Tiles:
    def pad(array: np.ndarray) -> np.ndarray:
        widths = [(0, 0), (0, height - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, widths)

    return Tiles(chunk.users, pad(chunk.features), pad(chunk.labels), pad(chunk.weights))
