"""Users fitted one by one: `full` (no structure) and `local` (one rank-k LoRA each).

Users share nothing here, so they are padded in groups of similar size and solved group by group;
memory is bounded by the group. With fewer pairs than parameters the problem is first reduced,
without loss, to the space spanned by the user's features: the minimiser lies in it, whatever the
ridge or the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.estimators.estimator import Request
from simrlhf.estimators.kernels import Answer, Limits, Model, bytes_of, limits_of
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.share_b_solver import solve_share_b
from simrlhf.estimators.starts import spectral_basis
from simrlhf.estimators.user_newton import fit_users

# bytes of curvature matrices that one group may hold; three copies live at once
_GROUP_BYTES = 256 * 2**20
# a Newton step reads the features three times: rewards, gradient, curvature
_PASSES_PER_STEP = 3


class Users(NamedTuple):
    """Answers of separate problems; leading axis `(Nb,)`, the users of a group, throughout.

    Attributes:
        delta: `(Nb, d1, d2)`.
        bases, weights: `(Nb, d1, k)`, `(Nb, k, d2)` of `local`, empty for `full`.
        multiplier: of the norm bound, for the summed loss.
        loss: summed penalised loss.
        residual: norm of the KKT residual of the summed loss.
        stalled: whether the user ended at rounding level above his tolerance.
        iterations, passes: work done; a pass reads the user's features once.
    """

    delta: jax.Array
    bases: jax.Array
    weights: jax.Array
    multiplier: jax.Array
    loss: jax.Array
    residual: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    passes: jax.Array


# group, tolerance for the norm of the group's residuals, limits, model
Each = Callable[[Problem, jax.Array, Limits, Model], Users]


def full_each(group: Problem, tolerance: jax.Array, limits: Limits, model: Model) -> Users:
    """Each user's own `d1 x d2` matrix by Newton's method: convex problems."""
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
        link=model.link,
        radius=limits.radius,
        ridge=limits.ridge,
        tolerance=tolerance,
        max_steps=limits.max_iterations,
    )
    flat_delta = fits.factors if span is None else jnp.einsum("upq,uq->up", span, fits.factors)
    delta = jnp.swapaxes(flat_delta.reshape(n_users, d2, d1), 1, 2)
    each = jnp.ones(n_users)
    return Users(
        delta=delta,
        bases=jnp.zeros((n_users, d1, 0)),
        weights=jnp.zeros((n_users, 0, d2)),
        multiplier=fits.multiplier,
        loss=fits.loss,
        residual=each * fits.residual / jnp.sqrt(n_users),
        stalled=(each * fits.residual > tolerance) & (fits.steps < limits.max_iterations),
        iterations=each * fits.steps,
        passes=each * (_PASSES_PER_STEP * (fits.steps + 1)),
    )


def local_each(group: Problem, tolerance: jax.Array, limits: Limits, model: Model) -> Users:
    """Each user's own rank-k matrix: Share-B with a single user."""
    n_users, _, d2, d1 = group.rows.shape
    if model.rank >= min(d1, d2):  # no constraint
        return full_each(group, tolerance, limits, model)

    def alone(arrays: tuple[jax.Array, ...]) -> Users:
        rows, labels, weights, offsets = arrays
        problem = Problem(
            rows[None], labels[None], weights[None], offsets[None], jnp.zeros(1, jnp.int32)
        )
        total = weights.sum()
        fit = solve_share_b(
            problem,
            spectral_basis(problem, link=model.link, n_users=1, rank=model.rank),
            link=model.link,
            n_users=1,
            radius=limits.radius,
            ridge=limits.ridge,
            tolerance=tolerance / (total * jnp.sqrt(n_users)),
            max_iterations=limits.max_iterations,
        )
        weight = fit.factors.reshape(rows.shape[1], model.rank).T
        return Users(
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

    # on the CPU one user after the other, for a batched solver waits for its slowest member; an
    # accelerator would be idle with one
    return jax.lax.platform_dependent(
        group[:4], cpu=partial(jax.lax.map, alone), default=jax.vmap(alone)
    )


def solve_together(
    problem: Problem, _: None, limits: Limits, model: Model, *, each: Each
) -> Answer:
    """All users as one group: tile i holds the pairs of user i."""
    total = problem.weights.sum()
    users = each(problem, limits.tolerance * total, limits, model)
    return _answer(users, _sizes(problem), total)


def solve_in_groups(request: Request, model: Model, *, each: Each) -> Answer:
    """Groups of users of similar size, one after the other."""
    problem, limits = request.problem, limits_of(request)
    total = problem.weights.sum()
    answers: list[Any] = []
    places, sizes = [], []
    for members, group in _groups(problem, request.n_users):
        # the squares of the groups' tolerances add up to the square of the whole
        share = limits.tolerance * total * np.sqrt(members.size / request.n_users)
        answers.append(jax.device_get(_solve_group(group, share, limits, model=model, each=each)))
        places.append(members)
        sizes.append(np.asarray(_sizes(group)))
    order = np.argsort(np.concatenate(places))
    joined: list[Any] = [np.concatenate(parts)[order] for parts in zip(*answers, strict=True)]
    users = Users(*joined)
    return _answer(users, np.concatenate(sizes)[order], total)


def is_one_group(problem: Problem, n_users: int) -> bool:
    """Whether `solve_together` takes the problem: one tile for each user, and memory allows."""
    n_tiles, height, d2, d1 = problem.rows.shape
    return n_tiles == n_users and _fits_in_memory(n_users, height, d1 * d2)


def bytes_of_users(problem: Problem) -> int:
    """Device memory of one problem of a batch, with ten matrices for every user as well."""
    n_users, height, d2, d1 = problem.rows.shape
    side = max(d1, min(height, d1 * d2))
    return bytes_of(problem) + 80 * n_users * side**2


@partial(jax.jit, static_argnames=("model", "each"))
def _solve_group(
    group: Problem, tolerance: jax.Array, limits: Limits, *, model: Model, each: Each
) -> Users:
    return each(group, tolerance, limits, model)


def _answer(users: Users, sizes: jax.Array | np.ndarray, total: jax.Array) -> Answer:
    """`N` separate answers as one; `sizes (N,)` pairs of each user."""
    return Answer(
        delta=users.delta,
        parts=(users.bases, users.weights),
        multipliers=users.multiplier,
        loss=users.loss.sum() / total,
        gradient=jnp.linalg.norm(users.residual) / total,
        stalled=users.stalled.any(),
        iterations=users.iterations.max(),
        data_passes=(users.passes * sizes).sum() / sizes.sum(),
    )


def _sizes(problem: Problem) -> jax.Array:
    return (problem.weights > 0).sum(axis=1).astype(float)


def _groups(problem: Problem, n_users: int) -> Iterator[tuple[np.ndarray, Problem]]:
    """Users of similar size as one tile each: sizes within a factor two, memory bounded."""
    n_tiles, height, d2, d1 = problem.rows.shape
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
