"""Starting bases: the spectral one is the SVD of the stacked score at zero."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf.core import subspaces
from simrlhf.core.links import LOGISTIC
from simrlhf.estimators import fit, starts
from simrlhf.estimators import problem as kernels


@pytest.mark.parametrize("case", ["narrow", "wide"])
def test_the_spectral_start_is_the_top_space_of_the_stacked_score(request, reference, case):
    prefs = request.getfixturevalue(case).prefs
    zero = np.zeros((prefs.n_users, prefs.d1, prefs.d2))
    left = np.linalg.svd(subspaces.unfold(reference.score(prefs, zero)))[0]
    found = starts.spectral_basis(
        kernels.load_problem(prefs), link=LOGISTIC, n_users=prefs.n_users, rank=2
    )
    assert subspaces.subspace_distance(np.asarray(found), left[:, :2]) < 1e-10
    assert subspaces.subspace_distance(np.asarray(found), left[:, 1:3]) > 0.5


def test_beyond_the_dense_size_subspace_iteration_finds_the_same_space(narrow, monkeypatch):
    problem = kernels.load_problem(narrow.prefs)
    dense = starts.spectral_basis(problem, link=LOGISTIC, n_users=5, rank=2)
    monkeypatch.setattr(starts, "_SMALL", 1)
    monkeypatch.setattr(starts, "_OVERSAMPLING", 1)
    iterated = starts.spectral_basis.__wrapped__(problem, link=LOGISTIC, n_users=5, rank=2)
    # six power steps on an instance without much of a gap: close, which is all a start needs
    distance = subspaces.subspace_distance(np.asarray(dense), np.asarray(iterated))
    assert 0 < distance < 1e-2


def test_random_starts_are_orthonormal_and_named_by_their_seed():
    def start(seed):
        return np.asarray(starts.given_basis("random", d1=6, rank=2, seed=seed))

    np.testing.assert_array_equal(start(1), start(1))
    assert subspaces.subspace_distance(start(1), start(2)) > 0.1
    np.testing.assert_allclose(start(1).T @ start(1), np.eye(2), rtol=0, atol=1e-14)


def test_a_given_start_is_orthonormalised():
    given = np.random.default_rng(0).normal(size=(6, 2))
    found = starts.given_basis(given, d1=6, rank=2, seed=0)
    np.testing.assert_allclose(found.T @ found, np.eye(2), rtol=0, atol=1e-14)
    expected = np.linalg.qr(given)[0]
    assert subspaces.subspace_distance(found, expected) < 1e-14


def test_only_a_spectral_start_reads_the_features(narrow):
    passes = {
        init: fit(narrow.prefs, "share_b", rank=2, init=init, tol=10.0).data_passes
        for init in ("spectral", "random")
    }
    # pooled Gram matrix, projection and gradient, at a tolerance that needs no step
    assert passes == {"spectral": 4, "random": 3}


def test_factors_go_to_the_kernels_layout_and_back():
    factors = np.random.default_rng(0).normal(size=(4, 2, 3))
    flat = kernels.flatten_factors(factors)
    assert flat.shape == (4, 6)
    np.testing.assert_array_equal(kernels.unflatten_factors(flat, 3), factors)


def test_projection_and_collection_are_adjoint_maps_of_the_features(wide):
    problem = kernels.load_problem(wide.prefs)
    random = np.random.default_rng(0)
    basis = random.normal(size=(5, 2))
    coefficients = random.normal(size=(*problem.labels.shape, 6))
    projected = kernels.project_rows(problem, jnp.asarray(basis))
    # <projected W-layout, W> is <x, B W>, pair by pair
    weights = random.normal(size=(4, 2, 3))
    flat = kernels.flatten_factors(weights)[np.asarray(problem.users)]
    rewards = np.einsum("tna,ta->tn", np.asarray(projected), flat).ravel()
    expected = np.einsum("pab,pab->p", wide.prefs.features, (basis @ weights)[wide.prefs.users])
    np.testing.assert_allclose(rewards, expected, rtol=0, atol=1e-12)
    collected = kernels.collect_rows(problem, jnp.asarray(coefficients))
    assert float(jnp.vdot(collected, basis)) == pytest.approx(
        float(jnp.vdot(projected, coefficients)), rel=1e-12
    )
