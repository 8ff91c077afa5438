"""Recovery: distances between fit and truth, against plain NumPy."""

import dataclasses

import numpy as np
import pytest

import simrlhf as sim
from simrlhf.metrics import recovery


@pytest.fixture(scope="module")
def case() -> tuple[sim.World, sim.FitResult]:
    config = sim.WorldConfig(n_users=5, d1=7, d2=2, rank=2, tail=0.1, base_norm=1.5)
    world = sim.make_world(config, seed=1)
    prefs = sim.sample_preferences(world, 60, seed=2)
    return world, sim.fit(prefs, rank=2, norm_bound=4.0, theta_init=world.theta_init)


def test_the_truth_has_distance_and_error_zero(case: tuple[sim.World, sim.FitResult]) -> None:
    world, result = case
    exact = dataclasses.replace(result, delta=world.delta, basis=world.basis)
    found = recovery(world, exact)
    # rounding of a 7 x 2 orthonormal basis
    assert found["subspace_distance"] < 1e-14
    # theta_init is added and subtracted again
    assert found["reward_error"] < 1e-14


def test_errors_are_those_of_a_random_pair(case: tuple[sim.World, sim.FitResult]) -> None:
    world, result = case
    found = recovery(world, result)
    x = np.random.default_rng(0).standard_normal((5, 40_000, 14))
    error = (result.delta - world.delta).reshape(5, 14)
    squares = np.einsum("unp,up->un", x, error) ** 2
    monte_carlo = squares.mean()
    standard_error = squares.std() / np.sqrt(squares.size)
    assert abs(found["reward_error"] ** 2 - monte_carlo) < 4 * standard_error
    # the Frobenius norm of the aggregate without the mean over users is the named rival
    assert abs(np.sum(error**2) - monte_carlo) > 4 * standard_error
    scale = np.sqrt(np.mean(np.sum(world.delta**2, axis=(1, 2))))
    assert found["relative_error"] == pytest.approx(found["reward_error"] / scale, rel=1e-12)


def test_a_base_fitted_apart_counts_as_error(case: tuple[sim.World, sim.FitResult]) -> None:
    world, result = case
    moved = dataclasses.replace(result, theta_init=np.zeros((7, 2)))
    assert recovery(world, moved)["reward_error"] > recovery(world, result)["reward_error"] + 0.5


def test_another_rank_or_shape_is_refused(case: tuple[sim.World, sim.FitResult]) -> None:
    world, result = case
    with pytest.raises(sim.InputError, match=r"basis has 1 columns, the world's 2"):
        recovery(world, dataclasses.replace(result, basis=world.basis[:, :1]))
    with pytest.raises(sim.InputError, match=r"delta of shape \(4, 7, 2\), the world \(5, 7, 2\)"):
        recovery(world, dataclasses.replace(result, delta=world.delta[:4]))
