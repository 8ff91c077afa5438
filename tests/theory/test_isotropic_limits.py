"""Closed forms of L1 and L2 equal the general formulas, which know nothing of isotropy."""

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.core.links import IDENTITY, LOGISTIC
from simrlhf.theory import (
    isotropic_fisher,
    isotropic_limits,
    reward_covariances,
    subspace_limit,
)

CASES = [
    (LOGISTIC, "gaussian", 1.0, 5, 2, 7, 1),
    (LOGISTIC, "sphere", 1.0, 6, 2, 5, 2),
    (IDENTITY, "gaussian", 4.0, 4, 2, 3, 2),
    (LOGISTIC, "gaussian", 1.0, 4, 1, 6, 3),
]


def _instance(n_users: int, rank: int, d1: int, d2: int, seed: int = 0):
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((d1, rank)))[0]
    factors = random.standard_normal((n_users, rank, d2)) * random.uniform(0.3, 2, (n_users, 1, 1))
    return basis, factors, random.uniform(0.5, 2.0, n_users)


def _general(basis, factors, weights, link, law, precision):
    theta = np.einsum("ak,nkb->nab", basis, factors)
    informations = precision * isotropic_fisher(theta, link, law=law)
    given = (basis, factors, informations, weights)
    traces = {
        kind: np.trace(reward_covariances(*given, kind=kind), axis1=1, axis2=2)
        for kind in ("joint", "oracle", "full")
    }
    return subspace_limit(*given).value, traces


@pytest.mark.parametrize(("link", "law", "precision", "n_users", "rank", "d1", "d2"), CASES)
def test_the_closed_form_is_the_general_one(link, law, precision, n_users, rank, d1, d2) -> None:
    basis, factors, weights = _instance(n_users, rank, d1, d2)
    found = isotropic_limits(factors, link, d1=d1, law=law, precision=precision, weights=weights)
    subspace, traces = _general(basis, factors, weights, link, law, precision)
    assert found.subspace == pytest.approx(subspace, rel=1e-10)
    np.testing.assert_allclose(found.reward, traces["joint"], rtol=1e-10)
    np.testing.assert_allclose(found.oracle_reward, traces["oracle"], rtol=1e-10)
    np.testing.assert_allclose(found.full_reward, traces["full"], rtol=1e-10)
    # negative control: forgetting the weights, or c_i in S, is not the same number
    unweighted = isotropic_limits(factors, link, d1=d1, law=law, precision=precision)
    assert abs(unweighted.subspace / subspace - 1) > 1e-3
    spread = np.einsum("iab,icb->ac", factors, factors)
    assert abs((d1 - rank) * np.trace(np.linalg.inv(spread)) / subspace - 1) > 1e-3


def test_a_basis_of_all_directions_costs_nothing() -> None:
    _, factors, _ = _instance(4, 3, 3, 2)
    found = isotropic_limits(factors, LOGISTIC, d1=3)
    assert found.subspace == 0.0
    np.testing.assert_allclose(found.reward, found.full_reward, rtol=1e-12)


def test_factors_that_do_not_span_identify_no_subspace() -> None:
    factors = np.zeros((3, 2, 1))
    factors[:, 0] = 1.0
    found = isotropic_limits(factors, LOGISTIC, d1=5)
    assert np.isinf(found.subspace)
    assert np.isinf(found.reward).all()
    assert np.isfinite(found.oracle_reward).all()


def test_one_parameter_has_nothing_across() -> None:
    found = isotropic_limits(np.ones((2, 1, 1)), LOGISTIC, d1=1, law="sphere")
    # z = x = +-1: information Phi'(1) for each
    expected = 1.0 / (np.exp(-1) / (1 + np.exp(-1)) ** 2)
    np.testing.assert_allclose(found.reward, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factors": np.ones((3, 2))}, r"factors has shape \(3, 2\)"),
        ({"d1": 1}, r"d1 = 1 must be at least 2"),
        ({"weights": np.zeros(3)}, r"weights must be positive"),
        ({"law": "cube"}, r"unknown feature law 'cube'"),
        ({"precision": 0.0}, r"precision = 0 must be greater than 0"),
    ],
)
def test_bad_input_is_one_line(change, message: str) -> None:
    given = {"factors": np.ones((3, 2, 1)), "link": LOGISTIC, "d1": 4} | change
    with pytest.raises(InputError, match=message):
        isotropic_limits(given.pop("factors"), given.pop("link"), **given)
