"""L1 and L2 against a brute-force inverse of the joint Fisher information; L3 as an identity.

The reference knows nothing of complements, eliminations or Schur: it differentiates
`(B, W_1 .. W_N) -> Delta` and `B -> projector` and inverts over all parameters, gauge included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from simrlhf import testing, theory
from simrlhf.core import checks, links

SIZES = [(3, 4, 1, 2), (3, 3, 2, 1), (4, 4, 3, 2), (2, 5, 2, 3)]


class Instance(NamedTuple):
    basis: np.ndarray
    factors: np.ndarray
    informations: np.ndarray
    weights: np.ndarray


def draw(rng: np.random.Generator, n_users: int, d1: int, d2: int, rank: int) -> Instance:
    """Informations in general position (nothing isotropic), unequal weights."""
    p = d1 * d2
    roots = rng.normal(size=(n_users, p, p))
    return Instance(
        np.linalg.qr(rng.normal(size=(d1, rank)))[0],
        rng.normal(size=(n_users, rank, d2)),
        roots @ np.swapaxes(roots, 1, 2) / p + 0.2 * np.eye(p),
        rng.uniform(0.3, 2.0, size=n_users),
    )


def jacobian(function: Callable[[np.ndarray], np.ndarray], point: np.ndarray) -> np.ndarray:
    """Derivative by complex steps: exact to rounding for an analytic function, no cancellation."""
    steps = 1e-100j * np.eye(point.size)
    return np.stack([function(point + step).imag.ravel() / 1e-100 for step in steps], axis=-1)


def brute_force(case: Instance) -> tuple[float, np.ndarray]:
    """`lim n E[dist^2]` and `lim n Cov(vec E_i)` from the information about every parameter."""
    n_users, rank, d2 = case.factors.shape
    d1 = case.basis.shape[0]
    split = d1 * rank

    def deviations(flat):
        basis = flat[:split].reshape(d1, rank)
        factors = flat[split:].reshape(n_users, rank, d2)
        return np.einsum("ak,ikb->iab", basis, factors)

    def projector(flat):
        basis = flat[:split].reshape(d1, rank)
        return basis @ np.linalg.inv(basis.T @ basis) @ basis.T

    flat = np.concatenate([case.basis.ravel(), case.factors.ravel()])
    slopes = jacobian(deviations, flat).reshape(n_users, d1 * d2, -1)
    information = np.einsum(
        "i,ipa,ipq,iqb->ab", case.weights, slopes, case.informations, slopes, optimize=True
    )
    values = np.linalg.eigvalsh(information)
    assert values[rank**2 - 1] < 1e-10 * values[-1] < values[rank**2]  # the gauge, nothing else
    covariance = np.linalg.pinv(information, rcond=1e-10, hermitian=True)
    turn = jacobian(projector, flat)
    # dist^2 = ||P_hat - P||_F^2 / 2, to leading order in the error of B
    return 0.5 * np.trace(turn @ covariance @ turn.T), slopes @ covariance @ np.swapaxes(
        slopes, 1, 2
    )


def by_kind(case: Instance, kind: str) -> np.ndarray:
    return theory.reward_covariances(*case, kind=kind)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(17)


@pytest.mark.parametrize(("n_users", "d1", "d2", "rank"), SIZES)
def test_l1_and_l2_equal_the_inverse_of_the_whole_information(rng, n_users, d1, d2, rank):
    case = draw(rng, n_users, d1, d2, rank)
    distance, covariances = brute_force(case)
    limit = theory.subspace_limit(*case)
    # a pseudo-inverse of a matrix of condition 1e4 keeps some 11 digits
    assert limit.value == pytest.approx(distance, rel=1e-8)
    assert limit.status is theory.BoundStatus.INFORMATIVE
    assert limit.information.shape == ((d1 - rank) * rank,) * 2
    np.testing.assert_allclose(by_kind(case, "joint"), covariances, rtol=1e-7, atol=1e-9)


def test_l1_ignoring_the_personal_factors_is_rejected(rng):
    case = draw(rng, 4, 4, 3, 2)
    distance, _ = brute_force(case)
    complement = np.linalg.svd(case.basis)[0][:, 2:]
    moved = np.stack([np.kron(complement, factor.T) for factor in case.factors])
    naive = np.einsum("i,ipa,ipq,iqb->ab", case.weights, moved, case.informations, moved)
    assert np.trace(np.linalg.inv(naive)) < 0.9 * distance  # as if every W_i were known
    by_columns = np.stack([np.kron(factor.T, complement) for factor in case.factors])
    assert not np.allclose(np.abs(by_columns), np.abs(moved))


def total_information(case: Instance, covariances: np.ndarray) -> float:
    """`sum_i w_i tr(H_i Cov_i)`, which L3 says is the number of parameters."""
    return np.einsum("i,ipq,iqp->", case.weights, case.informations, covariances)


@pytest.mark.parametrize(("n_users", "d1", "d2", "rank"), SIZES)
@pytest.mark.parametrize(
    ("kind", "count"), [("joint", "share_b"), ("oracle", "oracle"), ("full", "full")]
)
def test_l3_weighted_traces_add_up_to_the_number_of_parameters(
    rng, n_users, d1, d2, rank, kind, count
):
    case = draw(rng, n_users, d1, d2, rank)
    expected = theory.parameter_count(count, n_users=n_users, d1=d1, d2=d2, rank=rank)
    testing.assert_identity(
        total_information(case, by_kind(case, kind)),
        expected,
        rival=expected + 1,  # a parameter that is counted and not there
        statement=f"L3 of {count}",
    )


def test_l3_fails_without_the_projections(rng):
    case = draw(rng, 4, 4, 3, 2)
    oracle, limit = by_kind(case, "oracle"), theory.subspace_limit(*case)
    complement = np.linalg.svd(case.basis)[0][:, 2:]
    bare = np.stack([np.kron(complement, factor.T) for factor in case.factors])
    wrong = oracle + bare @ np.linalg.inv(limit.information) @ np.swapaxes(bare, 1, 2)
    right = by_kind(case, "joint")
    for name, rival in (
        ("without the projections", total_information(case, wrong)),
        ("without the weights", np.einsum("ipq,iqp->", case.informations, right)),
    ):
        testing.assert_identity(
            theory.parameter_count("share_b", n_users=4, d1=4, d2=3, rank=2),
            total_information(case, right),
            rival=rival,
            statement=f"L3, {name}",
        )


def test_covariances_are_ordered_oracle_share_b_full(rng):
    case = draw(rng, 3, 4, 2, 2)
    for better, worse in (("oracle", "joint"), ("joint", "full")):
        gaps = np.linalg.eigvalsh(by_kind(case, worse) - by_kind(case, better))
        assert gaps.min() > -1e-10  # rounding of covariances of order 10
        assert gaps.max() > 0.01


def test_the_limit_does_not_depend_on_the_basis_of_the_space(rng):
    case = draw(rng, 3, 5, 2, 2)
    turn = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    turned = case._replace(basis=case.basis @ turn, factors=turn.T @ case.factors)
    value = theory.subspace_limit(*case).value
    assert theory.subspace_limit(*turned).value == pytest.approx(value, rel=1e-10)
    np.testing.assert_allclose(by_kind(turned, "joint"), by_kind(case, "joint"), atol=1e-10)
    stretched = case._replace(factors=case.factors * np.array([[2.0], [1.0]]))
    assert theory.subspace_limit(*stretched).value != pytest.approx(value, rel=0.01)


def test_twice_the_pairs_or_the_information_halve_the_limit(rng):
    case = draw(rng, 3, 5, 2, 2)
    value = theory.subspace_limit(*case).value
    for change in ({"weights": 2 * case.weights}, {"informations": 2 * case.informations}):
        doubled = theory.subspace_limit(*case._replace(**change))
        assert doubled.value == pytest.approx(value / 2, rel=1e-12)
    ones = case._replace(weights=np.ones(3))
    by_default = theory.subspace_limit(*ones[:3])
    assert by_default.value == theory.subspace_limit(*ones).value
    assert by_default.distance(400) == pytest.approx(math.sqrt(by_default.value) / 20, rel=1e-14)


def test_regression_with_isotropic_features_has_a_closed_form(rng):
    case = draw(rng, 6, 5, 2, 2)
    informations = theory.isotropic_fisher(np.ones((6, 5, 2)), links.IDENTITY)
    gram = np.einsum("i,ikb,ilb->kl", case.weights, case.factors, case.factors)
    value = theory.subspace_limit(*case._replace(informations=informations)).value
    assert value == pytest.approx((5 - 2) * np.trace(np.linalg.inv(gram)), rel=1e-12)


def test_a_full_basis_has_no_distance(rng):
    case = draw(rng, 3, 3, 2, 3)
    limit = theory.subspace_limit(*case)
    assert limit.value == 0.0
    assert limit.status is theory.BoundStatus.INFORMATIVE
    np.testing.assert_allclose(by_kind(case, "joint"), by_kind(case, "full"), rtol=1e-9)


def test_factors_that_leave_a_direction_out_have_no_limit(rng):
    case = draw(rng, 5, 4, 1, 2)
    flat = case._replace(factors=np.einsum("k,ib->ikb", [0.6, 0.8], case.factors[:, 0]))
    limit = theory.subspace_limit(*flat)
    assert limit.value == math.inf
    assert limit.status is theory.BoundStatus.VACUOUS
    with pytest.raises(checks.InputError, match="singular"):
        by_kind(flat, "joint")
    assert np.isfinite(by_kind(flat, "oracle")).all()


def test_a_user_without_information_adds_nothing_to_the_limit(rng):
    case = draw(rng, 4, 4, 2, 2)
    silent = case._replace(informations=case.informations * np.array([1, 1, 1, 0])[:, None, None])
    three = Instance(case.basis, *(array[:3] for array in case[1:]))
    value = theory.subspace_limit(*silent).value
    assert value == pytest.approx(theory.subspace_limit(*three).value, rel=1e-12)
    with pytest.raises(checks.InputError, match="number 3 is singular"):
        by_kind(silent, "full")


def degrees_of_freedom(rng: np.random.Generator, kind: str, n_users, d1, d2, rank) -> int:
    """Rank of the derivative of a parametrisation at a random point."""
    basis = rng.normal(size=(d1, rank))
    copies = 1 if kind == "global" else n_users
    shape = {"share_b": (rank, d2), "oracle": (rank, d2)}.get(kind, (d1 + d2, rank))

    def deviations(flat: np.ndarray) -> np.ndarray:
        factors = flat[basis.size :].reshape(copies, *shape)
        if kind in ("local", "global"):
            return factors[:, :d1] @ np.swapaxes(factors[:, d1:], 1, 2)
        return (basis if kind == "oracle" else flat[: basis.size].reshape(d1, rank)) @ factors

    point = np.concatenate([basis.ravel(), rng.normal(size=copies * shape[0] * shape[1])])
    return int(np.linalg.matrix_rank(jacobian(deviations, point)))


@pytest.mark.parametrize("kind", ["share_b", "oracle", "local", "global"])
@pytest.mark.parametrize(("n_users", "d1", "d2", "rank"), [*SIZES, (5, 4, 1, 3), (3, 2, 3, 2)])
def test_parameter_counts_equal_the_rank_of_the_parametrisation(rng, kind, n_users, d1, d2, rank):
    expected = degrees_of_freedom(rng, kind, n_users, d1, d2, rank)
    found = theory.parameter_count(kind, n_users=n_users, d1=d1, d2=d2, rank=rank)
    assert found == expected


def test_a_lora_of_a_vector_counts_its_entries_once():
    sizes = {"n_users": 32, "d1": 64, "d2": 1, "rank": 4}
    assert theory.parameter_count("share_b", **sizes) == 4 * (32 + 64 - 4)
    assert theory.parameter_count("local", **sizes) == 32 * 64  # not 32 * 4 * (64 + 1 - 4)
    assert theory.parameter_count("full", **sizes | {"rank": 99}) == 32 * 64


def test_excess_log_loss_by_hand():
    assert theory.excess_log_loss(368, n_users=32, n_pairs=200) == pytest.approx(0.02875, rel=1e-14)


def test_bad_input_is_refused(rng):
    case = draw(rng, 3, 4, 2, 2)
    for change, message in (
        ({"basis": 2.0 * case.basis}, "not orthonormal"),
        ({"factors": case.factors[:, :1]}, "factors has shape"),
        ({"informations": case.informations[:, :4]}, "informations has shape"),
        ({"weights": np.array([1.0, 0.0, 1.0])}, "weights must be positive"),
        ({"informations": np.full_like(case.informations, np.nan)}, "not finite"),
    ):
        with pytest.raises(checks.InputError, match=message):
            theory.subspace_limit(*case._replace(**change))
    with pytest.raises(checks.InputError, match="kind"):
        by_kind(case, "pooled")
    with pytest.raises(checks.InputError, match="rank = 5 must be at most 4"):
        theory.parameter_count("share_b", n_users=4, d1=6, d2=1, rank=5)
