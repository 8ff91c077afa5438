"""Users fitted one by one: `full` (no structure) and `local` (one rank-k LoRA each).

Users share nothing here, so they are padded in groups of similar size and solved group by group;
memory is bounded by the group. With fewer pairs than parameters the problem is first reduced,
without loss, to the space spanned by the user's features: the minimiser lies in it, whatever the
ridge or the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core.links import Link
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.share_b_solver import solve_share_b
from simrlhf.estimators.starts import spectral_basis
from simrlhf.estimators.user_newton import fit_users

# bytes of curvature matrices that one group may hold; three copies live at once
_GROUP_BYTES = 256 * 2**20
# a Newton step reads the features three times: rewards, gradient, curvature
_PASSES_PER_STEP = 3


class ApartFit(NamedTuple):
    """Answers of `N` separate problems.

    Attributes:
        delta: `(N, d1, d2)`.
        bases, weights: `(N, d1, k)`, `(N, k, d2)` for `local`; `None` for `full`.
        multipliers: `(N,)` of the norm bound, for the summed loss.
        losses: `(N,)` summed penalised losses.
        residual: Frobenius norm of all KKT residuals of the summed losses.
        stalled: whether some user ended at rounding level above his tolerance.
        iterations: the most that a user needed.
        data_passes: reads of the features, averaged over pairs.
    """

    delta: np.ndarray
    bases: np.ndarray | None
    weights: np.ndarray | None
    multipliers: np.ndarray
    losses: np.ndarray
    residual: float
    stalled: bool
    iterations: int
    data_passes: float


class _Answer(NamedTuple):
    """What the kernels return for a group of users; leading axis `(Nb,)` throughout."""

    delta: jax.Array
    bases: jax.Array
    weights: jax.Array
    multiplier: jax.Array
    loss: jax.Array
    residual: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    passes: jax.Array


_Kernel = Callable[[Problem, jax.Array], _Answer]


def fit_full(
    problem: Problem,
    *,
    link: Link,
    n_users: int,
    radius: float,
    ridge: float,
    tolerance: float,
    max_iterations: int,
) -> ApartFit:
    """Each user's own `d1 x d2` matrix by Newton's method: `N` convex problems."""
    kernel = partial(
        _solve_full,
        link=link,
        radius=jnp.asarray(radius),
        ridge=jnp.asarray(ridge),
        max_iterations=jnp.asarray(max_iterations),
    )
    return _by_groups(problem, kernel, n_users=n_users, tolerance=tolerance)


def fit_local(
    problem: Problem,
    *,
    rank: int,
    link: Link,
    n_users: int,
    radius: float,
    ridge: float,
    tolerance: float,
    max_iterations: int,
) -> ApartFit:
    """Each user's own rank-k matrix: Share-B with a single user, `N` times."""
    kernel = partial(
        _solve_local,
        rank=rank,
        link=link,
        radius=jnp.asarray(radius),
        ridge=jnp.asarray(ridge),
        max_iterations=jnp.asarray(max_iterations),
    )
    return _by_groups(problem, kernel, n_users=n_users, tolerance=tolerance)


@partial(jax.jit, static_argnames="link")
def _solve_full(
    group: Problem,
    tolerance: jax.Array,
    *,
    link: Link,
    radius: jax.Array,
    ridge: jax.Array,
    max_iterations: jax.Array,
) -> _Answer:
    n_users, height, d2, d1 = group.rows.shape
    flat = group.rows.reshape(n_users, height, d2 * d1)
    if height < d1 * d2:  # coordinates in the space Q that the user's features span
        span, triangle = jnp.linalg.qr(jnp.swapaxes(flat, 1, 2))
        projected = jnp.swapaxes(triangle, 1, 2)
    else:
        span, projected = None, flat
    start = jnp.zeros((n_users, projected.shape[2]))
    fits = fit_users(
        group,
        projected,
        start,
        link=link,
        radius=radius,
        ridge=ridge,
        tolerance=tolerance,
        max_steps=max_iterations,
    )
    flat_delta = fits.factors if span is None else jnp.einsum("upq,uq->up", span, fits.factors)
    delta = jnp.swapaxes(flat_delta.reshape(n_users, d2, d1), 1, 2)
    each = jnp.ones(n_users)
    return _Answer(
        delta=delta,
        bases=jnp.zeros((n_users, d1, 0)),
        weights=jnp.zeros((n_users, 0, d2)),
        multiplier=fits.multiplier,
        loss=fits.loss,
        residual=each * fits.residual / jnp.sqrt(n_users),
        stalled=(each * fits.residual > tolerance) & (fits.steps < max_iterations),
        iterations=each * fits.steps,
        passes=each * (_PASSES_PER_STEP * (fits.steps + 1)),
    )


@partial(jax.jit, static_argnames=("rank", "link"))
def _solve_local(
    group: Problem,
    tolerance: jax.Array,
    *,
    rank: int,
    link: Link,
    radius: jax.Array,
    ridge: jax.Array,
    max_iterations: jax.Array,
) -> _Answer:
    n_users = group.rows.shape[0]

    def one_user(rows: jax.Array, labels: jax.Array, weights: jax.Array, offsets: jax.Array):
        alone = Problem(
            rows[None], labels[None], weights[None], offsets[None], jnp.zeros(1, jnp.int32)
        )
        total = weights.sum()
        fit = solve_share_b(
            alone,
            spectral_basis(alone, link=link, n_users=1, rank=rank),
            link=link,
            n_users=1,
            radius=radius,
            ridge=ridge,
            tolerance=tolerance / (total * jnp.sqrt(n_users)),
            max_iterations=max_iterations,
        )
        weight = fit.factors.reshape(rows.shape[1], rank).T
        return _Answer(
            delta=fit.basis @ weight,
            bases=fit.basis,
            weights=weight,
            multiplier=fit.multiplier[0],
            loss=fit.loss * total,
            residual=fit.gradient * total,
            stalled=fit.stalled,
            iterations=fit.iterations,
            passes=fit.data_passes + 1,
        )

    # one user after the other: on the CPU a batched solver waits for its slowest member
    return jax.lax.map(
        lambda arrays: one_user(*arrays), (group.rows, group.labels, group.weights, group.offsets)
    )


def _by_groups(problem: Problem, kernel: _Kernel, *, n_users: int, tolerance: float) -> ApartFit:
    """Solve groups of users of similar size; `tolerance` is for the mean loss over all users."""
    total = float(problem.weights.sum())
    answers, places, sizes = [], [], []
    for users, group in _groups(problem, n_users):
        # the squares of the groups' tolerances add up to the square of the whole
        share = tolerance * total * np.sqrt(users.size / n_users)
        answers.append(jax.device_get(kernel(group, jnp.asarray(share))))
        places.append(users)
        sizes.append(np.asarray((group.weights > 0).sum(axis=1)))
    order = np.argsort(np.concatenate(places))
    joined = {
        name: np.concatenate([getattr(answer, name) for answer in answers])[order]
        for name in _Answer._fields
    }
    has_bases = joined["bases"].shape[2] > 0
    return ApartFit(
        delta=joined["delta"],
        bases=joined["bases"] if has_bases else None,
        weights=joined["weights"] if has_bases else None,
        multipliers=joined["multiplier"],
        losses=joined["loss"],
        residual=float(np.linalg.norm(joined["residual"])),
        stalled=bool(joined["stalled"].any()),
        iterations=int(joined["iterations"].max()),
        data_passes=float(np.average(joined["passes"], weights=np.concatenate(sizes)[order])),
    )


def _groups(problem: Problem, n_users: int) -> Iterator[tuple[np.ndarray, Problem]]:
    """Users of similar size as one tile each: sizes within a factor two, memory bounded."""
    n_tiles, height, d2, d1 = problem.rows.shape
    if n_tiles == n_users and _fits_in_memory(n_users, height, d1 * d2):
        yield np.arange(n_users), problem
        return
    flat = (n_tiles * height,)
    arrays = [np.asarray(array).reshape(flat + array.shape[2:]) for array in problem[:4]]
    owner = np.repeat(np.asarray(problem.users), height)
    # pairs of weight 0 keep their place: other weights then mean the same shapes, compiled once
    starts = np.searchsorted(owner, np.arange(n_users + 1))
    counts = np.diff(starts)
    waiting = np.argsort(-counts, kind="stable")
    while waiting.size:
        tall = int(counts[waiting[0]])
        similar = int(np.searchsorted(-counts[waiting], -tall / 2, side="right"))
        while similar > 1 and not _fits_in_memory(similar, tall, d1 * d2):
            similar = -(-similar // 2)
        users, waiting = waiting[:similar], waiting[similar:]
        padded = [np.zeros((users.size, tall, *array.shape[1:])) for array in arrays]
        for row, user in enumerate(users):
            mine = slice(starts[user], starts[user + 1])
            for target, source in zip(padded, arrays, strict=True):
                target[row, : mine.stop - mine.start] = source[mine]
        tiles = [jnp.asarray(array) for array in padded]
        yield users, Problem(*tiles, users=jnp.arange(users.size, dtype=jnp.int32))


def _fits_in_memory(n_users: int, height: int, parameters: int) -> bool:
    side = min(height, parameters)
    return n_users * (side**2 + height * parameters) * 8 <= _GROUP_BYTES or n_users == 1
