"""L4 against choices that are made and priced, and against the exact gap of an angle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.core import checks


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(41)


def drawn_covariance(rng: np.random.Generator, p: int) -> np.ndarray:
    root = rng.normal(size=(p, p))
    return root @ root.T / p + 0.1 * np.eye(p)


def priced(
    rng: np.random.Generator, theta: np.ndarray, covariance: np.ndarray, v: np.ndarray, n: int
) -> tuple[float, float]:
    """Mean and standard error of n times what `sign <Theta_hat, v>` loses to `sign <Theta, v>`."""
    root = np.linalg.cholesky(covariance)
    errors = rng.normal(size=v.shape) @ root.T / math.sqrt(n)
    margins = v @ theta
    chosen = margins + np.einsum("sp,sp->s", errors, v)
    losses = n * np.abs(margins) * (margins * chosen < 0.0)
    return float(losses.mean()), float(losses.std() / math.sqrt(losses.size))


def test_l4_is_what_two_gaussian_actions_lose(rng):
    theta = np.array([1.2, -0.5, 0.8])
    covariance = np.array([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 0.7]])
    actions = rng.normal(size=(2, 2_000_000, 3))
    mean, error = priced(rng, theta, covariance, actions[0] - actions[1], 400)
    limit = theory.gaussian_value_gap_limit(theta.reshape(1, 3, 1), covariance[None])
    assert mean == pytest.approx(limit[0], abs=4 * error + 5e-3 * limit[0])
    assert error < 0.01 * limit[0]
    u = theta / np.linalg.norm(theta)
    rivals = {
        "the whole trace": limit[0]
        * np.trace(covariance)
        / (np.trace(covariance) - u @ covariance @ u),
        "differences N(0, I)": limit[0] / math.sqrt(2.0),
        "without the half": 2.0 * limit[0],
        "the norm forgotten": limit[0] * np.linalg.norm(theta),
    }
    for name, rival in rivals.items():
        assert abs(mean - rival) > 8 * error + 5e-3 * limit[0], name


def test_l4_follows_from_the_exact_gap_of_an_angle(rng):
    """`||Theta|| (1 - cos alpha) / sqrt(pi)`: no density, no conditioning on the margin."""
    theta = rng.normal(size=(4, 3, 2))
    covariance = np.stack([drawn_covariance(rng, 6) for _ in range(4)])
    limit = theory.gaussian_value_gap_limit(theta, covariance)
    n, draws = 1e6, 40_000
    for one, cov, claimed in zip(theta.reshape(4, 6), covariance, limit, strict=True):
        errors = rng.normal(size=(draws, 6)) @ np.linalg.cholesky(cov).T
        estimates = one + np.concatenate([errors, -errors]) / math.sqrt(n)
        norm = np.linalg.norm(one)
        cosines = estimates @ one / (norm * np.linalg.norm(estimates, axis=1))
        gaps = n * norm * (1.0 - cosines) / math.sqrt(math.pi)
        standard_error = gaps.std() / math.sqrt(draws)
        assert gaps.mean() == pytest.approx(claimed, abs=4 * standard_error)
        assert standard_error < 0.01 * claimed


def test_the_general_form_is_what_bounded_differences_lose(rng):
    """`Theta = (1, 1)`, `v1 + v2` and `v1 - v2` independent and uniform: far from Gaussian."""
    covariance = np.array([[1.0, 0.6], [0.6, 2.0]])
    limit = theory.greedy_value_gap_limit(
        density=np.array([0.5]),
        moments=np.array([[[1.0, -1.0], [-1.0, 1.0]]]) / 12.0,  # v = (t, -t) / 2, t uniform
        covariance=covariance[None],
    )
    assert limit[0] == pytest.approx(0.25 * (1.0 - 1.2 + 2.0) / 12.0, rel=1e-14)
    turned = rng.uniform(-1.0, 1.0, size=(1_500_000, 2))
    v = turned @ np.array([[0.5, 0.5], [0.5, -0.5]])
    mean, error = priced(rng, np.ones(2), covariance, v, 400)
    assert mean == pytest.approx(limit[0], abs=4 * error + 0.01 * limit[0])
    unconditional = 0.25 * np.trace(covariance) / 6.0  # the rival forgets the margin
    per_distance = limit[0] * math.sqrt(2.0)  # the density of the distance to the line, not of m
    for rival in (unconditional, per_distance):
        assert abs(mean - rival) > 8 * error + 0.01 * limit[0]


def test_an_error_along_the_reward_vector_costs_nothing(rng):
    theta = rng.normal(size=(1, 2, 2))
    along = np.outer(theta, theta)[None]
    assert theory.gaussian_value_gap_limit(theta, along)[0] == pytest.approx(0.0, abs=1e-14)


def test_the_limit_of_a_world_needs_its_covariances_only(rng):
    """Scale: `Theta -> c Theta` with the information fixed divides the limit by c."""
    basis = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    factors = rng.normal(size=(3, 2, 2))
    covariance = theory.reward_covariances(basis, factors, np.broadcast_to(np.eye(10), (3, 10, 10)))
    theta = np.einsum("ak,ikb->iab", basis, factors)
    limits = theory.gaussian_value_gap_limit(theta, covariance)
    assert limits.shape == (3,)
    np.testing.assert_allclose(
        theory.gaussian_value_gap_limit(3.0 * theta, covariance), limits / 3.0, rtol=1e-12
    )


@pytest.mark.parametrize(
    ("theta", "covariance", "message"),
    [
        (np.zeros((1, 2, 1)), np.eye(2)[None], "reward vector is zero"),
        (np.ones((1, 2)), np.eye(2)[None], "theta has shape"),
        (np.ones((2, 2, 1)), np.eye(2)[None], "covariance has shape"),
        (np.full((1, 2, 1), np.nan), np.eye(2)[None], "theta holds"),
        (np.ones((1, 2, 1)), np.full((1, 2, 2), np.inf), "covariance holds"),
    ],
)
def test_bad_arrays_are_refused(theta, covariance, message):
    with pytest.raises(checks.InputError, match=message):
        theory.gaussian_value_gap_limit(theta, covariance)


def test_a_negative_density_is_refused():
    with pytest.raises(checks.InputError, match="density must be at least 0"):
        theory.greedy_value_gap_limit(
            density=np.array([-1.0]), moments=np.eye(2)[None], covariance=np.eye(2)[None]
        )


def test_finitely_many_contexts_lose_what_choices_are_priced(rng):
    theta, n = np.array([0.4, -0.3, 0.2]), 60
    covariance = drawn_covariance(rng, 3)
    contexts, weights = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(5))
    drawn = rng.choice(5, size=400_000, p=weights)
    mean, error = priced(rng, theta, covariance, contexts[drawn], n)
    found = theory.normal_value_gap(
        margins=(contexts @ theta)[None],
        variances=np.einsum("sp,pq,sq->s", contexts, covariance, contexts)[None],
        weights=weights[None],
        n_pairs=n,
    )[0]
    assert abs(mean - n * found) < 4 * error
    assert error < 0.02 * n * found


def test_dense_contexts_tend_to_the_limit_of_the_density():
    """Margins uniform on +-1 and one variance: the midpoints of 4,000 intervals."""
    margins = (np.arange(4000) + 0.5)[None] / 2000.0 - 1.0
    n = 10_000.0
    found = theory.normal_value_gap(
        margins=margins,
        variances=np.full_like(margins, 0.7),
        weights=np.full_like(margins, 1.0 / 4000.0),
        n_pairs=n,
    )
    limit = theory.greedy_value_gap_limit(
        density=np.array([0.5]), moments=np.eye(1)[None], covariance=np.full((1, 1, 1), 0.7)
    )
    # spacing over error is .06: the sum is the integral to its square
    np.testing.assert_allclose(n * found, limit, rtol=5e-3)


def test_contexts_without_error_or_margin_cost_nothing():
    found = theory.normal_value_gap(
        margins=np.array([[0.5, 0.0, 0.0]]),
        variances=np.array([[0.0, 0.0, 1.0]]),
        weights=np.array([[0.4, 0.3, 0.3]]),
        n_pairs=1,
    )
    np.testing.assert_array_equal(found, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variances": np.array([[-1.0]])}, "variances must be at least 0"),
        ({"weights": np.array([[-1.0]])}, "weights must be at least 0"),
        ({"weights": np.ones((1, 2))}, "weights has shape"),
        ({"margins": np.ones(3)}, "margins has shape"),
        ({"n_pairs": 0}, "n_pairs"),
    ],
)
def test_contexts_that_cannot_be_are_refused(change, message):
    given = {name: np.ones((1, 1)) for name in ("margins", "variances", "weights")}
    with pytest.raises(checks.InputError, match=message):
        theory.normal_value_gap(**({**given, "n_pairs": 1} | change))
