"""Definition 4.1 against NumPy on the aggregate, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks, subspaces

SHAPES = [(7, 5, 1, 2), (3, 6, 2, 4), (4, 3, 5, 3), (2, 8, 3, 6), (1, 4, 4, 1)]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def beside(delta: np.ndarray) -> np.ndarray:
    """`[Delta_1 ... Delta_N]`, written out."""
    return np.concatenate(list(delta), axis=1)


@pytest.mark.parametrize(("n_users", "d1", "d2", "rank"), SHAPES)
def test_metrics_equal_numpys_singular_values(rng, n_users, d1, d2, rank):
    delta = rng.normal(size=(n_users, d1, d2))
    metrics = theory.diversity_metrics(delta, rank)
    values = np.linalg.svd(beside(delta), compute_uv=False)
    # two factorisations of one matrix of order 1: a few hundred roundings
    np.testing.assert_allclose(metrics.singular_values, values, rtol=1e-12)
    np.testing.assert_allclose(metrics.nu, values[rank - 1] ** 2 / n_users, rtol=1e-12)
    np.testing.assert_allclose(metrics.sigma_k, values[rank - 1], rtol=1e-12)
    tail = np.linalg.norm(beside(delta) - beside(metrics.truncated)) ** 2
    np.testing.assert_allclose(metrics.tail_energy, tail, rtol=1e-10, atol=1e-24)
    not_squared = values[rank - 1] / n_users  # the rival: nu without the square
    assert abs(metrics.nu / not_squared - 1.0) > 0.01


@pytest.mark.parametrize(("n_users", "d1", "d2", "rank"), SHAPES)
def test_truncation_is_the_projection_on_the_basis(rng, n_users, d1, d2, rank):
    delta = rng.normal(size=(n_users, d1, d2))
    metrics = theory.diversity_metrics(delta, rank)
    basis = metrics.basis
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-13)
    projected = np.stack([basis @ basis.T @ matrix for matrix in delta])
    np.testing.assert_allclose(metrics.truncated, projected, atol=1e-12)
    bias = [np.linalg.norm(matrix - basis @ basis.T @ matrix) ** 2 for matrix in delta]
    np.testing.assert_allclose(metrics.user_bias, bias, rtol=1e-10, atol=1e-24)
    np.testing.assert_allclose(metrics.user_bias.sum(), metrics.tail_energy, rtol=1e-10, atol=1e-24)


def test_rotating_the_rows_rotates_the_basis_and_keeps_the_numbers(rng):
    delta = rng.normal(size=(5, 6, 2))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    before = theory.diversity_metrics(delta, 3)
    after = theory.diversity_metrics(np.stack([turn @ matrix for matrix in delta]), 3)
    np.testing.assert_allclose(after.nu, before.nu, rtol=1e-12)
    np.testing.assert_allclose(after.user_bias, before.user_bias, rtol=1e-10)
    # a basis is known to a few roundings over the relative gap, here above 0.01
    assert subspaces.subspace_distance(after.basis, turn @ before.basis) < 1e-12


def test_a_rank_above_that_of_the_truth_gives_nu_zero(rng):
    delta = np.einsum("ak,nkb->nab", rng.normal(size=(9, 2)), rng.normal(size=(12, 2, 2)))
    assert theory.diversity_metrics(delta, 2).nu > 0.0
    above = theory.diversity_metrics(delta, 3)
    assert above.nu == 0.0
    assert above.singular_values[2] > 0.0  # rounding, which the naive formula would square
    assert theory.diversity_metrics(np.zeros((3, 4, 1)), 1).nu == 0.0


def test_nu_zero_makes_the_bounds_vacuous(rng):
    delta = np.einsum("ak,nkb->nab", rng.normal(size=(9, 2)), rng.normal(size=(12, 2, 2)))
    sigma = theory.diversity_metrics(delta, 3).sigma_k
    bound = theory.geometry_bound(0.0, sigma_k=sigma, ceiling=1.0)
    assert bound.status is theory.BoundStatus.VACUOUS


@pytest.mark.parametrize("rank", [0, 7, 2.5, True])
def test_a_rank_out_of_range_is_refused(rng, rank):
    with pytest.raises(checks.InputError, match="rank"):
        theory.diversity_metrics(rng.normal(size=(3, 6, 4)), rank)


def test_a_rank_above_n_users_times_d2_is_refused(rng):
    with pytest.raises(checks.InputError, match="rank = 4 must be at most 3"):
        theory.diversity_metrics(rng.normal(size=(3, 6, 1)), 4)


def test_deviations_must_be_finite_matrices(rng):
    with pytest.raises(checks.InputError, match="delta has shape"):
        theory.diversity_metrics(rng.normal(size=(3, 6)), 1)
    with pytest.raises(checks.InputError, match="not finite"):
        theory.diversity_metrics(np.full((2, 3, 1), np.nan), 1)
    with pytest.raises(checks.InputError, match="empty"):
        theory.diversity_metrics(np.zeros((0, 3, 1)), 1)
