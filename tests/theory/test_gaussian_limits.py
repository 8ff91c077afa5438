"""L1 and L2 under Gaussian features of any covariance: closed forms against explicit matrices."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core.checks import InputError
from simrlhf.core.links import LABEL_FLIP, PROBIT


def instance(d1: int, d2: int, rank: int, n_users: int = 5):
    random = np.random.default_rng([d1, d2, rank])
    basis = np.linalg.qr(random.normal(size=(d1, rank)))[0]
    factors = random.normal(size=(n_users, rank, d2))
    turn = np.linalg.qr(random.normal(size=(d1, d1)))[0]
    root = (turn * np.geomspace(0.3, 2.0, d1)) @ turn.T
    return basis, factors, root, random.uniform(0.4, 2.0, n_users)


def informations(theta: np.ndarray, root: np.ndarray, link) -> np.ndarray:
    """`E[I(z) vec x vec x']` from the isotropic one: `x = L g`."""
    inner = theory.isotropic_fisher(np.einsum("ab,nac->nbc", root, theta), link)
    wide = np.kron(root, np.eye(theta.shape[2]))
    return wide @ inner @ wide.T


@pytest.mark.parametrize("link", [PROBIT, LABEL_FLIP], ids=lambda link: link.name)
@pytest.mark.parametrize(("d1", "d2", "rank"), [(6, 1, 2), (4, 3, 2), (3, 2, 3)])
def test_the_closed_form_is_the_general_one(link, d1, d2, rank):
    basis, factors, root, weights = instance(d1, d2, rank)
    found = theory.gaussian_limits(basis, factors, link, root=root, weights=weights)
    matrices = informations(np.einsum("ak,nkb->nab", basis, factors), root, link)
    given = (basis, factors, matrices, weights)
    assert found.subspace == pytest.approx(theory.subspace_limit(*given).value, rel=1e-9)
    metric = np.kron(root @ root.T, np.eye(d2))
    for name, kind in (("reward", "joint"), ("oracle_reward", "oracle"), ("full_reward", "full")):
        covariances = theory.reward_covariances(*given, kind=kind)
        expected = np.einsum("ab,nba->n", metric, covariances)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-9)
        # the rival measures the error without the covariance of the features
        assert np.abs(np.trace(covariances, axis1=1, axis2=2) / expected - 1).max() > 0.05
    if rank < d1:  # and the rival of L1 forgets the covariance outside of B
        plain = theory.isotropic_limits(factors, link, d1=d1, weights=weights).subspace
        assert abs(plain / found.subspace - 1) > 0.05


def test_a_blind_direction_leaves_rewards_known_and_the_subspace_not():
    basis, factors, _, _ = instance(6, 1, 2)
    outside = np.linalg.svd(basis)[0][:, 2]
    blind = (basis[:, 0] + outside) / np.sqrt(2)
    found = theory.gaussian_limits(basis, factors, PROBIT, root=np.eye(6) - np.outer(blind, blind))
    assert np.isinf(found.subspace)
    # the same rewards in the five directions that are seen
    seen = np.linalg.svd(blind[:, None])[0][:, 1:]
    inner = np.linalg.qr(seen.T @ basis)[1]
    expected = theory.isotropic_limits(inner @ factors, PROBIT, d1=5)
    np.testing.assert_allclose(found.reward, expected.reward, rtol=1e-10)
    six = theory.isotropic_limits(factors, PROBIT, d1=6).reward
    assert np.abs(found.reward / six - 1).min() > 0.02


def test_a_root_that_hides_a_column_of_the_basis_is_refused():
    basis, factors, _, _ = instance(6, 1, 2)
    with pytest.raises(InputError, match=r"hide part of the 2 columns of basis; lower the rank"):
        theory.gaussian_limits(
            basis, factors, PROBIT, root=np.eye(6) - np.outer(basis[:, 0], basis[:, 0])
        )
