"""`first_order`: the paper's training, AdamW on minibatches, of the class of `share_b`.

`share_b` minimises the same mean loss to rounding; this is what it is measured against.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, streams
from simrlhf.estimators.adam_steps import (
    Adapter,
    Reading,
    Recipe,
    advance,
    flat_pairs,
    read,
    start_state,
)
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.problem import Problem, unflatten_factors
from simrlhf.estimators.result import InputSharedFactors, SharedFactors
from simrlhf.estimators.training_settings import TrainingSettings, phases, steps_per_epoch

# of the entry: the variant that the paper finds best, and the learning rate that in the shipped
# benchmark (features of order one) ends within 1e-3 of the optimum after 30 epochs and any later
_ENTRY_VARIANT = "WU"
_ENTRY_RATE = 0.03


class Trace(NamedTuple):
    """Training seen from outside, at `m` times; evaluations are not counted as passes.

    Attributes:
        data_passes: `(m,)` epochs done. An epoch reads every pair once; forward and backward
            products of a batch, which `share_b` counts one by one, are one reading here.
        steps: `(m,)` optimiser steps done.
        loss: `(m,)` mean loss of all pairs.
        gradient: `(m,)` norm of its gradient, as `FitResult.gradient_norm`.
        bases: `(m, d1, k)` orthonormal column space of the shared factor (`(m, d2, k)`, its row
            space, for `share="A"`).
    """

    data_passes: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    bases: np.ndarray


class _Moment(NamedTuple):
    """What is kept of one reading."""

    data_passes: float
    steps: int
    reading: Reading


def train(
    request: Request, settings: TrainingSettings, record: Iterable[float] = ()
) -> tuple[Outcome, Trace]:
    """Train on the pairs of `request`; the trace is read at `record` data passes and at the end.

    Memory: the features once more (a second copy of them for `share="A"`), the factors three times
    (`N k d2` numbers: AdamW moves every user in every step), one `(d1, k)` basis for each reading.
    """
    check_class(request, settings)
    problem = request.problem
    if settings.share == "A":
        problem = problem._replace(rows=jnp.swapaxes(problem.rows, 2, 3))
    recipe = Recipe(request.link, settings.scaling, settings.weight_decay, settings.clip_norm)
    moments: list[_Moment] = []
    for moment in _readings(problem, request.n_users, settings, recipe, record):
        if moments:  # the users' factors of the last reading alone are kept
            light = moments[-1].reading._replace(flat=moment.reading.flat)
            moments[-1] = moments[-1]._replace(reading=light)
        moments.append(moment)
    trace = Trace(
        np.array([moment.data_passes for moment in moments]),
        np.array([moment.steps for moment in moments]),
        np.array([float(moment.reading.loss) for moment in moments]),
        np.array([float(moment.reading.gradient) for moment in moments]),
        np.stack([moment.reading.basis for moment in moments]),
    )
    return _outcome(moments[-1], settings, problem.d2), trace


def check_class(request: Request, settings: TrainingSettings) -> None:
    """Refuse a Share-A whose rank restricts nothing."""
    d2 = request.source.d2
    checks.require(
        settings.share == "B" or settings.rank < d2,
        f'rank = {settings.rank} must be below d2 = {d2} with share="A", which is the full model '
        'there; lower rank, or use share="B"',
    )


def first_adapter(
    settings: TrainingSettings, *, personal: bool, n_users: int, d1: int, d2: int
) -> Adapter:
    """Factors before the first step: the shared one zero, the personal ones random.

    Args:
        personal: whether each of the `n_users` users has his own; otherwise one serves all.
    """
    k, seed = settings.rank, settings.seed
    variance = 1.0 / (3.0 * (k if personal else d2))
    n_drawn = n_users if personal and settings.draw == "normal" else 1
    key, shape = streams.stream(seed, "adapter"), (n_drawn, k, d2)
    if settings.draw == "normal":
        drawn = jnp.sqrt(variance) * jax.random.normal(key, shape)
    else:
        width = jnp.sqrt(3.0 * variance)
        drawn = jax.random.uniform(key, shape, minval=-width, maxval=width)
    drawn = jnp.broadcast_to(drawn, (n_users if personal else 1, k, d2))
    return Adapter(jnp.zeros((d1, k)), drawn)


def to_personal(adapter: Adapter, n_users: int) -> Adapter:
    """Every user starts from the adapter of all."""
    return adapter._replace(personal=jnp.repeat(adapter.personal, n_users, axis=0))


def _readings(
    problem: Problem,
    n_users: int,
    settings: TrainingSettings,
    recipe: Recipe,
    record: Iterable[float],
) -> Iterator[_Moment]:
    """Train, and stop to read at the wanted times; a phase's border is read where it ends."""
    places = np.flatnonzero(np.asarray(problem.weights).reshape(-1) > 0)
    per_epoch = steps_per_epoch(places.size, settings.batch_size)
    plan = phases(settings, places.size)
    total = sum(phase.steps for phase in plan)
    wanted = {min(max(round(point * per_epoch), 0), total) for point in record} | {total}
    cuts = sorted(wanted | set(range(0, total, per_epoch)))
    adapter = first_adapter(
        settings, personal=plan[0].personal, n_users=n_users, d1=problem.d1, d2=problem.d2
    )
    everyone, begun = flat_pairs(problem), 0

    def moment(adapter: Adapter, step: int) -> _Moment:
        reading = read(adapter, problem, recipe=recipe, n_users=n_users)
        return _Moment(step / per_epoch, step, jax.device_get(reading))

    if 0 in wanted:
        yield moment(adapter, 0)
    for phase in plan:
        pairs = everyone
        if not phase.personal:
            pairs = pairs._replace(users=jnp.zeros_like(pairs.users))
        elif begun:
            adapter = to_personal(adapter, n_users)
        state, end = start_state(adapter, recipe), begun + phase.steps
        stops = [begun, *(cut for cut in cuts if begun < cut < end), end]
        for first, last in itertools.pairwise(stops):
            epoch = first // per_epoch
            order = _order(places, settings, epoch)
            rate = (phase.first_rate, phase.first_rate / phase.horizon, first - begun)
            span = (first - epoch * per_epoch, last - epoch * per_epoch)
            state = advance(state, pairs, order, span, rate, recipe=recipe)
            if last in wanted:
                yield moment(state.adapter, last)
        adapter, begun = state.adapter, end


def _order(places: np.ndarray, settings: TrainingSettings, epoch: int) -> np.ndarray:
    """Batches `(S, b)` of an epoch: every pair once, -1 where the last batch is not full."""
    size = min(settings.batch_size, places.size)
    random = streams.generator(settings.seed, "batches", epoch)
    full = -np.ones(-(-places.size // size) * size, dtype=np.int32)
    full[: places.size] = random.permutation(places)
    return full.reshape(-1, size)


def _outcome(last: _Moment, settings: TrainingSettings, d2: int) -> Outcome:
    """What the last reading says, as `fit` wants it."""
    reading = last.reading
    basis, weights = canonical(
        np.asarray(reading.basis), unflatten_factors(np.asarray(reading.flat), d2)
    )
    delta = np.einsum("ak,nkb->nab", basis, weights)
    factors, top = SharedFactors(basis, weights), basis
    if settings.share == "A":
        delta = np.ascontiguousarray(np.swapaxes(delta, 1, 2))
        factors, top = InputSharedFactors(np.swapaxes(weights, 1, 2), basis.T), None
    return Outcome(
        delta=delta,
        basis=top,
        factors=factors,
        multipliers=np.zeros(delta.shape[0]),
        loss=float(reading.loss),
        gradient=float(reading.gradient),
        stalled=False,
        iterations=math.ceil(last.data_passes),
        data_passes=last.data_passes,
        note=f"{settings.variant} training, {settings.epochs:g} epochs (the iterations) at "
        f"learning rate {settings.learning_rate:g}",
    )


def _entry(request: Request) -> Outcome:
    settings = TrainingSettings(
        variant=_ENTRY_VARIANT,
        rank=request.rank,
        epochs=request.max_iterations,
        learning_rate=_ENTRY_RATE,
        seed=request.seed,
    )
    return train(request, settings)[0]


FIRST_ORDER = Estimator(
    "first_order",
    "Delta_i = B W_i trained by AdamW on minibatches, max_iterations epochs.",
    "P-ShareLoRA Algorithm 2, Section 5",
    _entry,
    needs_rank=True,
    accepts=(),
)
