"""S6, L5 and the efficient score against least squares, brute force and their limits' own sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize

from simrlhf import theory
from simrlhf.core import checks, subspaces
from simrlhf.core.links import LOGISTIC

RANDOM = np.random.default_rng(4)


def orthonormal(d1: int, k: int) -> np.ndarray:
    return np.linalg.qr(RANDOM.standard_normal((d1, k)))[0]


def test_the_bound_holds_for_fits_by_scipy_and_not_without_the_missed_part() -> None:
    """Logistic fits of a new user on a wrong basis; the rival forgets what the basis misses."""
    beaten = 0
    for _ in range(20):
        truth = RANDOM.standard_normal(4)
        basis = orthonormal(4, 2)
        x = RANDOM.standard_normal((300, 4))
        y = (RANDOM.random(300) < 1 / (1 + np.exp(-x @ truth))).astype(float)
        z = x @ basis

        def loss(v, z=z, y=y):
            return np.sum(np.logaddexp(0.0, z @ v) - y * (z @ v))

        fitted = scipy.optimize.minimize(loss, np.zeros(2), method="BFGS").x
        missed = truth - basis @ (basis.T @ truth)
        values = np.linalg.eigvalsh(z.T @ z)
        margins = [np.abs(x @ v).max() for v in (truth, truth - missed, basis @ fitted)]
        given = {
            "noise": float(np.linalg.norm(z.T @ (y - 1 / (1 + np.exp(-x @ truth))))),
            "missed_rewards": float(np.linalg.norm(x @ missed)),
            "smallest_design": values[0],
            "largest_design": values[-1],
            "curvature": theory.curvature_floor(LOGISTIC, margin=max(margins)),
            "curvature_bound": 0.25,
        }
        error = float(np.linalg.norm(basis @ fitted - truth))
        bound = theory.new_user_bound(missed=float(np.linalg.norm(missed)), **given)
        assert error <= bound.value
        assert bound.terms["missed"] <= error
        rival = given | {"missed_rewards": 0.0, "noise": 0.0}
        beaten += error > theory.new_user_bound(missed=0.0, **rival).value
    assert beaten == 20


def test_what_is_missed_is_bounded_by_the_largest_sine_and_reaches_it() -> None:
    basis, other = orthonormal(5, 2), orthonormal(5, 2)
    truth = basis @ np.linalg.svd(basis.T - basis.T @ other @ other.T)[0][:, :1]
    sine = subspaces.subspace_distance(basis, other, "spectral")
    missed = float(np.linalg.norm(truth - other @ (other.T @ truth)))
    bound = theory.missed_truth(largest_sine=sine, inside_norm=1.0, outside_norm=0.0)
    assert missed == pytest.approx(bound, rel=1e-10)


def test_the_chance_bound_holds_for_gaussian_noise_of_its_proxy() -> None:
    """Scores within a range of width w are no heavier than `N(0, w^2 / 4)`; 1 % may exceed it."""
    z = RANDOM.standard_normal((40, 3)) * [3.0, 1.0, 0.3]
    bound = theory.new_user_noise_bound(z.T @ z, score_width=2.0, delta=0.01)
    norms = np.linalg.norm(RANDOM.standard_normal((20_000, 40)) @ z, axis=1)
    assert np.mean(norms > bound) < 0.01
    # the rival leaves the largest direction's deviation out
    assert np.mean(norms > 0.6 * bound) > 0.01


def limits_of_six_users():
    basis, factors = orthonormal(5, 2), RANDOM.standard_normal((6, 2, 1))
    informations = theory.isotropic_fisher(basis @ factors, LOGISTIC)
    return basis, factors, informations


def test_a_new_user_with_an_old_users_truth_has_his_covariance_where_old_ones_are_many() -> None:
    """L5 at `n_0 = n` is L2's joint covariance."""
    basis, factors, informations = limits_of_six_users()
    joint = theory.reward_covariances(basis, factors, informations)[0]
    limit = theory.new_user_limit(
        basis, factors, informations, factor=factors[0], information=informations[0],
        covariance=np.eye(5), n_pairs=50.0, new_pairs=50.0,
    )  # fmt: skip
    assert limit.value == pytest.approx(np.trace(joint) / 50.0, rel=1e-10)
    assert 0.0 < limit.terms["shared"] < limit.terms["own"]


def test_the_efficient_score_has_the_covariance_that_l1_inverts() -> None:
    """Scores drawn as `N(0, n w_i H_i)`: the step's mean square is `tr I_eff^{-1} / n`."""
    basis, factors, informations = limits_of_six_users()
    weights, n = np.array([0.5, 1.0, 1.5, 1.0, 1.2, 0.8]), 200.0
    roots = np.linalg.cholesky(informations * (n * weights)[:, None, None])
    squares = [
        np.sum(
            theory.efficient_score_step(
                basis, factors, informations,
                (roots @ RANDOM.standard_normal((6, 5, 1))).reshape(6, 5, 1),
                n_pairs=n, weights=weights,
            ) ** 2
        )
        for _ in range(4000)
    ]  # fmt: skip
    limit = theory.subspace_limit(basis, factors, informations, weights).value
    error = np.std(squares) / math.sqrt(len(squares))
    assert abs(np.mean(squares) - limit / n) < 4 * error
    # the rival forgets the weights
    assert abs(np.mean(squares) - theory.subspace_limit(basis, factors, informations).value / n) > (
        4 * error
    )


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: theory.missed_truth(largest_sine=1.2, inside_norm=1, outside_norm=0), "1.2"),
        (
            lambda: theory.new_user_noise_bound(np.ones((2, 3)), score_width=1, delta=0.1),
            "square",
        ),
        (lambda: theory.new_user_noise_bound(np.eye(2), score_width=1, delta=0.0), "delta = 0"),
        (
            lambda: theory.efficient_score_step(
                *limits_of_six_users(), np.zeros((6, 4, 1)), n_pairs=10
            ),
            "scores",
        ),
    ],
)
def test_bad_numbers_are_named(call, told: str) -> None:
    with pytest.raises(checks.InputError, match=told):
        call()


def test_a_loss_that_is_not_convex_gets_no_bound() -> None:
    bound = theory.new_user_bound(
        noise=1.0, missed=0.0, missed_rewards=0.0, smallest_design=1.0, largest_design=1.0,
        curvature=-0.1, curvature_bound=1.0,
    )  # fmt: skip
    assert bound.status is theory.BoundStatus.NOT_APPLICABLE
    assert math.isnan(bound.value)


def test_a_user_without_information_leaves_the_step_as_it_is_without_him() -> None:
    basis, factors, informations = limits_of_six_users()
    scores = RANDOM.standard_normal((6, 5, 1))
    silent = informations.copy()
    silent[5], scores[5] = 0.0, 0.0
    with_him = theory.efficient_score_step(basis, factors, silent, scores, n_pairs=50)
    without = theory.efficient_score_step(
        basis, factors[:5], informations[:5], scores[:5], n_pairs=50
    )
    np.testing.assert_allclose(with_him, without, rtol=1e-9)


def test_both_parts_of_the_covariance_are_an_old_users_where_their_truths_agree() -> None:
    basis, factors, informations = limits_of_six_users()
    weights = np.array([0.5, 1.0, 1.5, 1.0, 1.2, 0.8])
    own, shared = theory.new_user_covariances(
        basis, factors, informations, weights,
        new_factors=factors[:3], new_informations=informations[:3],
    )  # fmt: skip
    joint = theory.reward_covariances(basis, factors, informations, weights)
    # an old user's own part is over his share of the pairs
    np.testing.assert_allclose(own / weights[:3, None, None] + shared, joint[:3], atol=1e-10)
    assert np.abs(own + shared - joint[:3]).max() > 0.01
