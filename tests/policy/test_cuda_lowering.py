"""Every kernel of policies lowers for CUDA, which needs no GPU."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from simrlhf.core.links import LOGISTIC
from simrlhf.policy import gaps, master, responses, values
from simrlhf.policy.recursion import Tables
from simrlhf.policy.regions import Ball, Likely
from simrlhf.world.trajectories import TrajectoryLaw, draw_differences

N, H, S, A, P, Q, M = 3, 4, 5, 2, 6, 6, 8


def spec(*shape: int, dtype=jnp.float64) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


TABLES = Tables(spec(H - 1, S, A, S), spec(H, S, A, P))
CUTS = master.Cuts(spec(N, M, Q), spec(N, M), spec(N, M, dtype=jnp.bool_))
PAIRS = 9
LIKELY = Likely(
    features=spec(N, PAIRS, Q),
    rewards=spec(N, PAIRS),
    labels=spec(N, PAIRS),
    weights=spec(N, PAIRS),
    level=spec(N),
    budget=spec(N),
    factor=spec(N, Q),
    turn=spec(N, Q, Q),
    link=LOGISTIC,
)
KERNELS = {
    "evaluate": (
        partial(values._evaluate, batch=2),
        (TABLES, (spec(N, P), spec(N, H, S, A), spec(N, S))),
    ),
    "optimise": (
        partial(values._optimise, soft=False, batch=2),
        (TABLES, spec(N, P), spec(H, S, A), spec()),
    ),
    "regularised": (
        partial(values._optimise, soft=True, batch=2),
        (TABLES, spec(N, P), spec(H, S, A), spec()),
    ),
    "flow": (
        partial(values._flow, batch=2),
        (TABLES.kernels, (spec(N, H, S, A), spec(N, S))),
    ),
    "gaps": (partial(gaps._gaps, batch=2), (TABLES, (spec(N, 2, P), spec(N, S)))),
    "respond": (
        partial(responses._respond, soft=False, flow=False, batch=2),
        (TABLES, (spec(N, P), spec(N, S)), spec(H, S, A), spec()),
    ),
    "occupancies of responses": (
        partial(responses._respond, soft=True, flow=True, batch=2),
        (TABLES, (spec(N, P), spec(N, S)), spec(H, S, A), spec()),
    ),
    "centres of balls": (master.centres, (CUTS, Ball(), spec(N, Q), spec(N))),
    "centres of likelihoods": (master.centres, (CUTS, LIKELY, spec(N, Q), spec(N))),
    "trajectories": (
        partial(draw_differences, n_pairs=7, shared_start=True),
        (
            jax.eval_shape(lambda: jax.random.key(0)),
            TrajectoryLaw(spec(S), TABLES.kernels, spec(2, H, S, A), TABLES.features),
        ),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_lowers_for_cuda(name):
    kernel, arguments = KERNELS[name]
    exported = jax.export.export(jax.jit(kernel), platforms=["cuda"])(*arguments)
    assert exported.platforms == ("cuda",)
