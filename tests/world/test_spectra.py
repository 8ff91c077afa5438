"""The spectrum of `Delta*` is exact (Definition 4.1), and user norms obey their limit."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core import subspaces
from simrlhf.world import WorldConfig, make_world, spectra

# what issue 2 asks for; a dense SVD is right to some 1e-14 of sigma_1, over an eigengap of 1e-3
EXACT = 1e-10


def random_config(index: int) -> WorldConfig:
    """All corners: both tail shapes, both norm laws, with and without bound, wide and tall."""
    random = np.random.default_rng([index, 17])
    d1, d2, users = (int(random.integers(low, high)) for low, high in ((2, 30), (1, 4), (2, 40)))
    rank = int(random.integers(1, min(d1, users * d2) + 1))
    room = min(d1, users * d2) - rank
    nu, condition = float(10 ** random.uniform(-2, 2)), float(10 ** random.uniform(0, 1))
    shape, decay = ("flat", "power")[index % 2], float(random.uniform(0, 2))
    profile = np.arange(1, room + 1) ** -(decay if shape == "power" else 0.0)
    # the largest tail value may come as near to sigma_k as the limit of 1e-3 allows
    largest = 0.999 * np.sqrt(nu) * np.linalg.norm(profile) * (1 - 1e-12)
    tail = largest * (1.0 if index % 5 == 0 else float(random.uniform(0, 1)))
    top = nu * condition ** (2 * np.linspace(1, 0, rank)) if rank > 1 else np.array([nu])
    mean_square = top.sum() + tail**2
    bound = float(np.sqrt(mean_square) * random.uniform(1.0, 1.3)) if index % 3 == 0 else None
    return WorldConfig(
        n_users=users, d1=d1, d2=d2, rank=rank, nu=nu, condition=condition, tail=tail,
        tail_shape=shape, tail_decay=decay, norm_bound=bound,
        user_norms=("random", "equal")[index // 2 % 2],
    )  # fmt: skip


def wrong_claims(config: WorldConfig, delta: np.ndarray, basis: np.ndarray) -> set[str]:
    """Which of the claims about `delta` fail, by an SVD of the blocks side by side."""
    left, values, _ = np.linalg.svd(np.hstack(list(delta)))
    k, users = config.rank, config.n_users
    tail = np.sqrt(np.sum(values[k:] ** 2) / users)
    condition = values[0] / values[k - 1] if k > 1 else config.condition
    distance = subspaces.subspace_distance(left[:, :k], basis) if k < config.d1 else 0.0
    claims = {
        "nu": abs(values[k - 1] ** 2 / users / config.nu - 1) <= EXACT,
        "condition": abs(condition / config.condition - 1) <= EXACT,
        "tail": abs(tail - config.tail) <= EXACT,
        "basis": distance <= EXACT,
    }
    return {name for name, holds in claims.items() if not holds}


def tampered(delta: np.ndarray, index: int, size: float) -> np.ndarray:
    """The same matrix with its singular value number `index` larger by the factor `1 + size`."""
    left, values, right = np.linalg.svd(np.hstack(list(delta)), full_matrices=False)
    values[index] *= 1 + size
    return subspaces.fold((left * values) @ right, delta.shape[0])


def test_nu_condition_tail_and_basis_are_exact_over_100_random_configurations():
    for index in range(100):
        config = random_config(index)
        world = make_world(config, seed=index)
        assert wrong_claims(config, world.delta, world.basis) == set(), (index, config)
        np.testing.assert_allclose(
            np.linalg.svd(np.hstack(list(world.delta)))[1][: world.singular_values.size],
            world.singular_values,
            rtol=0,
            atol=1e-12 * world.singular_values[0],
        )


def test_a_spectrum_off_by_1e_8_is_rejected_by_the_same_check():
    config = WorldConfig(n_users=9, d1=8, d2=2, rank=3, nu=0.5, tail=0.4)
    world = make_world(config, seed=3)
    assert wrong_claims(config, world.delta, world.basis) == set()
    assert "condition" in wrong_claims(config, tampered(world.delta, 0, 1e-8), world.basis)
    assert "nu" in wrong_claims(config, tampered(world.delta, 2, 1e-8), world.basis)
    assert "tail" in wrong_claims(config, tampered(world.delta, 3, 1e-8), world.basis)
    outside = subspaces.orthonormal_complement(world.basis)[:, :1]
    tilted = world.basis + 1e-8 * outside @ np.ones((1, 3))
    assert wrong_claims(config, world.delta, np.linalg.qr(tilted)[0]) == {"basis"}


def test_user_norms_obey_the_bound_or_are_equal():
    seen = {"equal": 0, "bound": 0}
    for index in range(100):
        config = random_config(index)
        norms = np.linalg.norm(make_world(config, seed=index).delta, axis=(1, 2))
        # squared norms are matched to 1e-12 of themselves, one user may collect N such errors
        if config.norm_bound is not None:
            assert norms.max() <= config.norm_bound * (1 + 1e-11), index
            seen["bound"] += 1
        if config.user_norms == "equal":
            np.testing.assert_allclose(norms, norms.mean(), rtol=1e-10)
            seen["equal"] += 1
    assert min(seen.values()) > 20
    free = make_world(WorldConfig(n_users=20, d1=6, rank=2), seed=0)
    assert np.ptp(np.linalg.norm(free.delta, axis=(1, 2))) > 0.5  # without it they do differ


def test_rotating_users_against_each_other_keeps_singular_values_and_left_space():
    blocks = np.random.default_rng(0).normal(size=(9, 4, 2)) * np.linspace(0.1, 3, 9)[:, None, None]
    squares = np.sum(blocks**2, axis=(1, 2))
    for limit in (squares.mean(), 1.5 * squares.mean(), 2 * squares.max()):
        lowered = spectra.lower_norms(blocks, limit)
        assert np.sum(lowered**2, axis=(1, 2)).max() <= limit * (1 + 1e-11)
        before, after = (np.hstack(list(b)) for b in (blocks, lowered))
        np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(spectra.lower_norms(blocks, 2 * squares.max()), blocks)
    barely = squares.max() * (1 - 1e-9)
    assert np.sum(spectra.lower_norms(blocks, barely) ** 2, axis=(1, 2)).max() < barely * (
        1 + 1e-11
    )


@pytest.mark.parametrize(("shape", "decay"), [("flat", 1.0), ("power", 1.0), ("power", 2.5)])
def test_the_tail_has_the_shape_asked_for(shape, decay):
    config = WorldConfig(n_users=30, d1=12, rank=2, tail=0.3, tail_shape=shape, tail_decay=decay)
    tail = spectra.singular_values(config)[2:]
    expected = np.ones(10) if shape == "flat" else np.arange(1, 11) ** -decay
    np.testing.assert_allclose(tail / tail[0], expected, rtol=1e-14)
    assert np.sum(tail**2) == pytest.approx(30 * 0.3**2, rel=1e-13)
