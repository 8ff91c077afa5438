"""Estimators whose work is one function of arrays: compiled once, run for one problem or a batch.

Such an estimator is a `Kernel`: `solve` runs on the device, `finish` on the host. `fit` and
`fit_many` share every line of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from simrlhf.core.links import Link
from simrlhf.estimators.estimator import Outcome, Request, Tally
from simrlhf.estimators.problem import Problem, load_problem, rewards_of, with_base
from simrlhf.estimators.result import Factors, SharedFactors


class Model(NamedTuple):
    """What a kernel is compiled for, besides the shapes of its arrays."""

    link: Link
    n_users: int
    rank: int


class Limits(NamedTuple):
    """Numbers that may change without compiling again; `tolerance` is for the mean loss."""

    radius: jax.Array
    ridge: jax.Array
    tolerance: jax.Array
    max_iterations: jax.Array


class Answer(NamedTuple):
    """What `solve` returns; the fields of `Outcome`, with `parts` the factors as kernels keep them.

    `delta` is `(N, d1, d2)`, `multipliers` `(N,)`, the rest but `parts` are numbers. `growing` is
    what every user may scale alone, by which separated users are known: `delta` where not given,
    zero where labels cannot send the fit to infinity. `together` is what all users can only scale
    at once, `(N, d1, d2)`, whatever ridge and bound hold the rest: right for every pair, it
    separates everybody.
    """

    delta: jax.Array
    parts: Any
    multipliers: jax.Array
    loss: jax.Array
    gradient: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    data_passes: jax.Array
    growing: jax.Array | None = None
    together: jax.Array | None = None

    def outcome(self, factors: Factors, *, note: str = "") -> Outcome:
        """The outcome, once the answer is on the host."""
        return Outcome(
            delta=np.asarray(self.delta),
            basis=factors.basis if isinstance(factors, SharedFactors) else None,
            factors=factors,
            multipliers=np.asarray(self.multipliers),
            loss=float(self.loss),
            gradient=float(self.gradient),
            stalled=bool(self.stalled),
            iterations=int(self.iterations),
            data_passes=float(self.data_passes),
            note=note,
        )


Start = np.ndarray | jax.Array | None
# problem, start, limits, model
Solve = Callable[[Problem, Any, Limits, Model], Answer]


def tally_of(request: Request, growing: np.ndarray) -> Tally:
    """The numbers of a `Tally`, for what was not solved in one piece."""
    limits = limits_of(request)
    total, separated = count(request.problem, jnp.asarray(growing), limits, link=request.link)
    return Tally(float(total), int(separated))


def _no_start(_: Request) -> None:
    return None


def _any_shape(_: Problem, __: int) -> bool:
    return True


def bytes_of(problem: Problem) -> int:
    """Device memory of one problem of a batch, an upper estimate.

    The features four times (they, a product with them, projections), twelve numbers of every pair,
    ten matrices of side `d1`: 1 to 3 times what XLA plans for on the CPU.
    """
    return 8 * (4 * problem.rows.size + 12 * problem.labels.size + 10 * problem.d1**2)


@dataclass(frozen=True)
class Kernel:
    """`Estimator.run` in parts.

    Attributes:
        solve: pure function of arrays; must work under `jax.vmap`.
        finish: makes the outcome of an answer on the host.
        start: an array that goes to `solve` with the problem, or `None`.
        ranked: whether `solve` depends on the rank; where not, other ranks need no compilation.
        takes: whether `solve` takes a problem (and its number of users) in one piece.
        otherwise: answers a request that it does not take.
        memory: bytes that one problem of a batch needs on the device, an upper estimate.
    """

    solve: Solve
    finish: Callable[[Request, Answer], Outcome]
    start: Callable[[Request], Start] = _no_start
    ranked: bool = True
    takes: Callable[[Problem, int], bool] = _any_shape
    otherwise: Callable[[Request, Model], Answer] | None = None
    memory: Callable[[Problem], int] = bytes_of

    def __call__(self, request: Request) -> Outcome:
        problem, model = load_problem(request.source), self.model(request)
        if not self.takes(problem, model.n_users):
            assert self.otherwise is not None
            return self.finish(request, jax.device_get(self.otherwise(request, model)))
        start, limits = self.start(request), limits_of(request)
        solved = solve_one(problem, request.base, start, limits, solve=self.solve, model=model)
        return self.outcome(request, jax.device_get(solved))

    def model(self, request: Request) -> Model:
        """What a request compiles `solve` for."""
        return Model(request.link, request.n_users, request.rank if self.ranked else 0)

    def outcome(self, request: Request, solved: Solved) -> Outcome:
        """What `solve` found, once it is on the host, as an outcome."""
        # copies: these arrays belong to the device, or to a whole batch
        solved = jax.tree.map(np.array, solved)
        tally = Tally(float(solved.total), int(solved.separated))
        return self.finish(request, solved.answer)._replace(tally=tally)


class Solved(NamedTuple):
    """Everything that one dispatch brings back: the answer, and the numbers of a `Tally`."""

    answer: Answer
    total: jax.Array
    separated: jax.Array


def limits_of(request: Request) -> Limits:
    """The numbers of a request; NumPy's scalars travel with the dispatch."""
    reals = (request.radius, request.ridge, request.tolerance)
    numbers: list[Any] = [*map(np.float64, reals), np.int64(request.max_iterations)]
    return Limits(*numbers)


def _solve(
    problem: Problem, base: Start, start: Start, limits: Limits, *, solve: Solve, model: Model
) -> Solved:
    problem = with_base(problem, base)
    answer = solve(problem, start, limits, model)
    growing = answer.delta if answer.growing is None else answer.growing
    total, separated = count(problem, growing, limits, link=model.link)
    if answer.together is not None and model.link.is_preference:
        all_at_once = separated_mask(problem, answer.together).all()
        separated = jnp.where(all_at_once, jnp.int32(model.n_users), separated)
    return Solved(answer, total, separated)


solve_one = jax.jit(_solve, static_argnames=("solve", "model"))


@partial(jax.jit, static_argnames=("solve", "model", "mesh"))
def solve_batch(
    problem: Problem,
    base: Start,
    start: Start,
    limits: Limits,
    *,
    solve: Solve,
    model: Model,
    mesh: Mesh,
) -> Solved:
    """`solve_one` of a batch: a leading axis on all but `offsets`, `users` and the limits.

    The batch is split over the devices of `mesh`. Each runs its own loops, so none waits for
    another, and nothing is sent between them.
    """
    one = partial(_solve, solve=solve, model=model)
    every = jax.vmap(one, in_axes=(_of_problem(0, None), 0, 0, None))
    split, whole = P("batch"), P()
    shares = (_of_problem(split, whole), split, split, whole)
    return jax.shard_map(every, mesh=mesh, in_specs=shares, out_specs=split, check_vma=False)(
        problem, base, start, limits
    )


def _of_problem(each: Any, shared: Any) -> Problem:
    """`each` where the members of a batch have arrays of their own, `shared` where one serves."""
    return Problem(rows=each, labels=each, weights=each, offsets=shared, users=shared)


@partial(jax.jit, static_argnames="link")
def count(
    problem: Problem, delta: jax.Array, limits: Limits, *, link: Link
) -> tuple[jax.Array, jax.Array]:
    """Total weight, and how many users are separated with neither bound nor ridge to hold them."""
    total, nobody = problem.weights.sum(), jnp.asarray(0, jnp.int32)
    if not link.is_preference:
        return total, nobody
    free = jnp.isinf(limits.radius) & (limits.ridge == 0)

    def separated() -> jax.Array:
        return separated_mask(problem, delta).sum(dtype=jnp.int32)

    return total, jax.lax.cond(free, separated, lambda: nobody)


def separated_mask(problem: Problem, delta: jax.Array) -> jax.Array:
    """Users `(N,)` with every label on the right side of `<delta, x>`, and nothing soft between.

    Such a user's likelihood rises for ever as his delta grows, whatever the base reward: there is
    no maximiser. Labels that only tie (rewards of zero) do not count, so separation of a user with
    such pairs goes unseen.
    """
    n_users = delta.shape[0]
    rewards = rewards_of(problem, delta)
    right = jnp.where(problem.labels == 1, rewards > 0, (problem.labels == 0) & (rewards < 0))
    all_right = jnp.where(problem.weights > 0, right, True).all(axis=1).astype(jnp.int32)
    return jax.ops.segment_min(all_right, problem.users, n_users) == 1
