"""Every kernel lowers for CUDA, which needs no GPU: an operation without a CUDA rule fails here."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from simrlhf.core.links import IDENTITY, LOGISTIC
from simrlhf.estimators import classes, fitting, share_b_solver, starts, user_newton, users_apart
from simrlhf.estimators.problem import Problem
from simrlhf.sampling import _draw

USERS, PAIRS, D1, D2, RANK = 3, 8, 6, 2, 2


def spec(*shape: int, dtype=jnp.float64) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


PROBLEM = Problem(
    rows=spec(USERS, PAIRS, D2, D1),
    labels=spec(USERS, PAIRS),
    weights=spec(USERS, PAIRS),
    offsets=spec(USERS, PAIRS),
    users=spec(USERS, dtype=jnp.int32),
)
NUMBER, COUNT = spec(), spec(dtype=jnp.int64)


def share_b(problem, basis, radius, ridge, tolerance, limit, *, link):
    return share_b_solver.solve_share_b(
        problem, basis, link=link, n_users=USERS, radius=radius, ridge=ridge, tolerance=tolerance,
        max_iterations=limit,
    )  # fmt: skip


def users(problem, projected, start, radius, ridge, tolerance, *, link):
    return user_newton.fit_users(
        problem, projected, start, link=link, radius=radius, ridge=ridge, tolerance=tolerance
    )


def full(problem, radius, ridge, tolerance, limit, *, link):
    return users_apart._solve_full(
        problem, tolerance, link=link, radius=radius, ridge=ridge, max_iterations=limit
    )


def local(problem, radius, ridge, tolerance, limit, *, link):
    return users_apart._solve_local(
        problem, tolerance, rank=1, link=link, radius=radius, ridge=ridge, max_iterations=limit
    )


def oracle(problem, basis, radius, ridge, tolerance, limit, *, link):
    return classes._fit_on_basis(
        problem, basis, link=link, n_users=USERS, radius=radius, ridge=ridge, tolerance=tolerance,
        max_iterations=limit,
    )  # fmt: skip


def spectral(problem, *, link):
    return starts.spectral_basis(problem, link=link, n_users=USERS, rank=RANK)


SETTINGS = (NUMBER, NUMBER, NUMBER, COUNT)
BASIS = spec(D1, RANK)
KERNELS = {
    "share_b": (share_b, (PROBLEM, BASIS, *SETTINGS)),
    "users": (users, (PROBLEM, spec(USERS, PAIRS, 4), spec(USERS, 4), *SETTINGS[:3])),
    "full": (full, (PROBLEM, *SETTINGS)),
    "local": (local, (PROBLEM, *SETTINGS)),
    "oracle": (oracle, (PROBLEM, BASIS, *SETTINGS)),
    "spectral": (spectral, (PROBLEM,)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_solver_lowers_for_cuda(name):
    kernel, arguments = KERNELS[name]
    exported = jax.export.export(jax.jit(partial(kernel, link=LOGISTIC)), platforms=["cuda"])
    lowered = exported(*arguments)
    assert lowered.platforms == ("cuda",)
    assert "func.func public @main" in lowered.mlir_module()


def test_the_spectral_start_lowers_for_cuda_beyond_the_dense_size(monkeypatch):
    monkeypatch.setattr(starts, "_SMALL", 1)
    kernel = jax.jit(
        partial(starts.spectral_basis.__wrapped__, link=LOGISTIC, n_users=USERS, rank=RANK)
    )
    assert jax.export.export(kernel, platforms=["cuda"])(PROBLEM).platforms == ("cuda",)


def test_separation_and_sampling_lower_for_cuda():
    separated = jax.export.export(fitting._separated_users, platforms=["cuda"])
    assert separated(PROBLEM, spec(USERS, D1, D2)).platforms == ("cuda",)
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
