"""Starting bases for Share-B: spectral, random, or given."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, streams
from simrlhf.core.links import Link
from simrlhf.estimators.problem import Problem, stacked_score

# up to this side a full eigendecomposition of the score's Gram matrix is cheaper than iterating
_SMALL = 512
_OVERSAMPLING = 8
_POWER_STEPS = 6


def given_basis(
    init: str | np.ndarray, *, d1: int, rank: int, seed: int
) -> np.ndarray | jax.Array | None:
    """Orthonormal `(d1, rank)` start that does not depend on the data; `None` for the spectral one.

    Args:
        init: `"spectral"`: top left space of the stacked score at zero, which the kernel finds;
            `"random"`: uniform on the Grassmannian; or a basis `(d1, rank)`, orthonormalised.
    """
    if isinstance(init, str):
        kind = checks.choice(
            "init", init, ("spectral", "random"), remedy="or pass a (d1, rank) basis"
        )
        if kind == "spectral":
            return None
        key = streams.stream(seed, "start")
        return jnp.linalg.qr(jax.random.normal(key, (d1, rank)))[0]
    basis = checks.numbers("init", init)
    checks.shape("init", basis, (d1, rank), remedy="pass a (d1, rank) basis")
    checks.finite("init", basis)
    found = np.linalg.matrix_rank(basis)
    checks.require(found == rank, f"init must have {rank} independent columns, got rank {found}")
    return np.linalg.qr(basis)[0]


@partial(jax.jit, static_argnames=("link", "n_users", "rank"))
def spectral_basis(problem: Problem, *, link: Link, n_users: int, rank: int) -> jax.Array:
    """Top left space `(d1, rank)` of the users' stacked score at zero. One data pass."""
    slopes = problem.weights * link.loss_slope(problem.offsets, problem.labels)
    score = stacked_score(problem, slopes, n_users).reshape(-1, problem.d1)
    if problem.d1 <= _SMALL:
        return jnp.linalg.eigh(score.T @ score)[1][:, ::-1][:, :rank]
    # subspace iteration; its own fixed stream, for a start needs no more
    width = min(rank + _OVERSAMPLING, problem.d1)
    guess = jax.random.normal(streams.stream(0, "subspace iteration"), (problem.d1, width))
    for _ in range(_POWER_STEPS):
        guess = jnp.linalg.qr(score.T @ (score @ guess))[0]
    inside = score @ guess
    return guess @ jnp.linalg.eigh(inside.T @ inside)[1][:, ::-1][:, :rank]
