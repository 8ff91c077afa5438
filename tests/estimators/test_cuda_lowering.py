"""Every kernel lowers for CUDA, which needs no GPU: an operation without a CUDA rule fails here."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf.core.links import IDENTITY, LOGISTIC
from simrlhf.estimators import ESTIMATORS, kernels, share_b_solver, starts, user_newton, users_apart
from simrlhf.estimators.kernels import Kernel, Limits, Model
from simrlhf.estimators.problem import Problem
from simrlhf.sampling import _draw

USERS, PAIRS, D1, D2, RANK = 3, 8, 6, 2, 2
BATCH = 4
IN_ONE_PIECE = [name for name, entry in ESTIMATORS.items() if isinstance(entry.run, Kernel)]


def spec(*shape: int, dtype=jnp.float64) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def problem_of(*batch: int) -> Problem:
    return Problem(
        rows=spec(*batch, USERS, PAIRS, D2, D1),
        labels=spec(*batch, USERS, PAIRS),
        weights=spec(*batch, USERS, PAIRS),
        offsets=spec(USERS, PAIRS),
        users=spec(USERS, dtype=jnp.int32),
    )


PROBLEM = problem_of()
NUMBER, COUNT = spec(), spec(dtype=jnp.int64)
LIMITS = Limits(NUMBER, NUMBER, NUMBER, COUNT)
BASIS = spec(D1, RANK)


def share_b(problem, basis, radius, ridge, tolerance, limit, *, link):
    return share_b_solver.solve_share_b(
        problem, basis, link=link, n_users=USERS, radius=radius, ridge=ridge, tolerance=tolerance,
        max_iterations=limit,
    )  # fmt: skip


def users(problem, projected, start, radius, ridge, tolerance, *, link):
    return user_newton.fit_users(
        problem, projected, start, link=link, radius=radius, ridge=ridge, tolerance=tolerance
    )


def full(problem, tolerance, limits, *, link):
    return users_apart.full_each(problem, tolerance, limits, Model(link, USERS, 0))


def local(problem, tolerance, limits, *, link):
    return users_apart.local_each(problem, tolerance, limits, Model(link, USERS, 1))


def spectral(problem, *, link):
    return starts.spectral_basis(problem, link=link, n_users=USERS, rank=RANK)


KERNELS = {
    "share_b": (share_b, (PROBLEM, BASIS, *LIMITS)),
    "users": (users, (PROBLEM, spec(USERS, PAIRS, 4), spec(USERS, 4), *LIMITS[:3])),
    "full": (full, (PROBLEM, NUMBER, LIMITS)),
    "local": (local, (PROBLEM, NUMBER, LIMITS)),
    "spectral": (spectral, (PROBLEM,)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_solver_lowers_for_cuda(name):
    kernel, arguments = KERNELS[name]
    exported = jax.export.export(jax.jit(partial(kernel, link=LOGISTIC)), platforms=["cuda"])
    lowered = exported(*arguments)
    assert lowered.platforms == ("cuda",)
    assert "func.func public @main" in lowered.mlir_module()


def lowered_for(platform: str, name: str, *batch: int) -> str:
    """The whole device part of an estimator, alone or for a batch, as StableHLO."""
    kernel = ESTIMATORS[name].run
    assert isinstance(kernel, Kernel)
    alone = ("local", "shared_core", "global_plus_local", "share_a")
    model = Model(LOGISTIC, USERS, 1 if name in alone else RANK)
    starts_of = {
        "oracle": (D1, RANK),
        "nuclear": (),
        "shared_diag": (4, 2, RANK, RANK),
    }
    base = spec(*batch, D1, D2)
    start = spec(*batch, *starts_of[name]) if name in starts_of else None
    if batch:
        mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), ("batch",))
        solve = partial(kernels.solve_batch, solve=kernel.solve, model=model, mesh=mesh)
    else:
        solve = partial(kernels.solve_one, solve=kernel.solve, model=model)
    exported = jax.export.export(jax.jit(solve), platforms=[platform])
    return exported(problem_of(*batch), base, start, LIMITS).mlir_module()


@pytest.mark.parametrize("batch", [(), (BATCH,)], ids=["alone", "batched"])
@pytest.mark.parametrize("name", IN_ONE_PIECE)
def test_an_estimator_lowers_for_cuda(name, batch):
    module = lowered_for("cuda", name, *batch)
    assert "func.func public @main" in module
    assert "lapack" not in module


def test_local_users_are_solved_side_by_side_on_cuda_and_in_turn_on_the_cpu():
    # one user's metric is (d1, d1); a batch of users on CUDA has them all at once
    together = f"tensor<{BATCH}x{USERS}x{D1}x{D1}xf64>"
    assert together in lowered_for("cuda", "local", BATCH)
    assert together not in lowered_for("cpu", "local", BATCH)


def test_the_spectral_start_lowers_for_cuda_beyond_the_dense_size(monkeypatch):
    monkeypatch.setattr(starts, "_SMALL", 1)
    kernel = jax.jit(
        partial(starts.spectral_basis.__wrapped__, link=LOGISTIC, n_users=USERS, rank=RANK)
    )
    assert jax.export.export(kernel, platforms=["cuda"])(PROBLEM).platforms == ("cuda",)


def test_counting_and_sampling_lower_for_cuda():
    count = jax.export.export(kernels.count, platforms=["cuda"])
    lowered = count(PROBLEM, spec(USERS, D1, D2), LIMITS, link=LOGISTIC)
    assert lowered.platforms == ("cuda",)
    keys = jax.random.split(jax.random.key(0), 2 * USERS)
    draw = jax.jit(
        lambda data, theta, noise: _draw(
            jax.random.wrap_key_data(data[:USERS]),
            jax.random.wrap_key_data(data[USERS:]),
            theta,
            law="sphere",
            link=IDENTITY,
            noise=noise,
            n_pairs=4,
            soft=False,
        )
    )
    data = jax.random.key_data(keys)
    exported = jax.export.export(draw, platforms=["cuda"])(data, spec(USERS, D1), NUMBER)
    assert exported.platforms == ("cuda",)
