"""Standard errors: against theory, dense finite differences, least squares and redrawn labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from scipy.special import expit

from simrlhf import theory
from simrlhf.core.checks import InputError
from simrlhf.data import Preferences
from simrlhf.estimators import (
    ESTIMATORS,
    fisher,
    fit,
    load_fit,
    standard_errors,
)
from simrlhf.estimators.result import SharedFactors
from simrlhf.sampling import sample_preferences


@pytest.fixture(scope="module")
def shared(narrow):
    return fit(narrow.prefs, "share_b", rank=2)


@pytest.fixture(scope="module")
def shared_errors(narrow, shared):
    return standard_errors(shared, narrow.prefs)


def at(result, prefs, basis, weights, reference, **changes):
    """The fit with other parameters, as if they had been fitted to `prefs`."""
    delta = np.einsum("ak,nkb->nab", basis, weights)
    changes = {"theta_init": np.zeros(delta.shape[1:])} | changes
    return replace(
        result,
        delta=delta,
        basis=basis,
        factors=SharedFactors(basis, weights),
        multipliers=np.zeros(len(delta)),
        neg_log_likelihood=reference.loss(prefs, delta, changes["theta_init"]),
        **changes,
    )


def without_basis_term(errors):
    """The mutated formula: the basis counts as known."""
    return replace(errors, parts=replace(errors.parts, basis_errors=None))


# ---------------------------------------------------------------- against theory


def test_errors_at_the_truth_have_the_covariance_of_l2(narrow, shared, reference):
    n = 20_000
    world = narrow.world
    prefs = sample_preferences(world, n, seed=5)
    weights = np.einsum("ak,nab->nkb", world.basis, world.delta)
    informations = theory.isotropic_fisher(world.theta, world.link)

    def limit(kind):
        found = theory.reward_covariances(world.basis, weights, informations, kind=kind)
        return np.trace(found, axis1=1, axis2=2) / n

    joint = standard_errors(at(shared, prefs, world.basis, weights, reference), prefs)
    known = at(shared, prefs, world.basis, weights, reference, estimator="oracle")
    # sums over 20,000 pairs differ from expectations by about 1 % in each entry
    measured = np.sum(joint.delta**2, axis=(1, 2))
    np.testing.assert_allclose(measured, limit("joint"), rtol=0.05)
    np.testing.assert_allclose(
        np.sum(standard_errors(known, prefs).delta ** 2, axis=(1, 2)), limit("oracle"), rtol=0.05
    )
    assert (np.sum(without_basis_term(joint).delta ** 2, axis=(1, 2)) < 0.9 * limit("joint")).all()


# ---------------------------------------------------------------- against finite differences


def second_differences(function, size, step):
    units = step * np.eye(size)
    found = np.empty((size, size))
    for a in range(size):
        for b in range(a + 1):
            signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            values = [s * t * function(s * units[a] + t * units[b]) for s, t in signs]
            found[a, b] = found[b, a] = sum(values) / (4 * step**2)
    return found


def dense_variances(prefs, result, users, features, random):
    """`g' (J + rho P)^{-1} J (J + rho P)^{-1} g` with every derivative by central differences.

    The labels are the fitted probabilities, so that the Hessian of the loss is its expectation.
    """
    basis, weights = result.factors.basis, result.factors.weights
    (d1, k), (n_users, _, d2) = basis.shape, weights.shape
    # a frame of the complement of its own
    outside = np.linalg.qr(np.hstack([basis, random.normal(size=(d1, d1 - k))]))[0][:, k:]
    cut = (d1 - k) * k

    def delta(parameters):
        moved = basis + outside @ parameters[:cut].reshape(d1 - k, k)
        steps = parameters[cut:].reshape(n_users, k, d2)
        return np.stack([moved @ w + basis @ v for w, v in zip(weights, steps, strict=True)])

    def rewards(parameters):
        theta = result.theta_init + delta(parameters)
        return np.einsum("pab,pab->p", prefs.features, theta[prefs.users])

    size = cut + weights.size
    first = expit(rewards(np.zeros(size)))

    def loss(parameters):
        z = rewards(parameters)
        return np.sum(prefs.weights * (np.logaddexp(0, z) - first * z))

    information = second_differences(loss, size, 1e-3)
    penalty = second_differences(lambda p: 0.5 * np.sum(delta(p) ** 2), size, 1e-3)
    bread = np.linalg.inv(information + result.ridge * penalty)
    covariance = bread @ information @ bread
    step = 1e-5
    slopes = np.stack(
        [
            np.einsum("mab,mab->m", features, (delta(u) - delta(-u))[users]) / (2 * step)
            for u in step * np.eye(size)
        ],
        axis=1,
    )
    return np.einsum("ma,ab,mb->m", slopes, covariance, slopes)


def assert_dense(prefs, result, random):
    users = np.repeat(np.arange(prefs.n_users), 3)
    features = random.normal(size=(users.size, prefs.d1, prefs.d2))
    errors = standard_errors(result, prefs)
    dense = dense_variances(prefs, result, users, features, random)
    # second differences with step 1e-3 are off by about 1e-6, and more by the condition number
    np.testing.assert_allclose(errors.of_rewards(users, features) ** 2, dense, rtol=2e-4)
    mutated = without_basis_term(errors).of_rewards(users, features) ** 2
    assert np.median(mutated / dense) < 0.95
    assert ("shrunken" in errors.note) == (result.ridge > 0)


@pytest.mark.parametrize(("case", "ridge"), [("narrow", 0.0), ("narrow", 2.0), ("wide", 0.0)])
def test_errors_are_those_of_a_dense_numerical_hessian(case, ridge, request):
    random = np.random.default_rng(3)
    example = request.getfixturevalue(case)
    weights = random.integers(1, 4, size=example.prefs.n_total).astype(float)
    weights[example.prefs.offsets[:-1]] = 0.0
    prefs = example.prefs.reweighted(weights)
    base = 0.1 * random.normal(size=(prefs.d1, prefs.d2))
    result = fit(prefs, "share_b", rank=2, ridge=ridge, theta_init=base)
    assert_dense(prefs, result, random)


@pytest.mark.parametrize("ridge", [0.0, 2.0])
def test_they_are_with_more_directions_than_columns(shared, wide, reference, ridge):
    """1 < d2 < k < d1 - 1: sums through matrices of side (d1 - k) d2; at a point of our own."""
    random = np.random.default_rng(4)
    flat = wide.prefs
    prefs = Preferences.from_pairs(flat.users, flat.features[..., :2], flat.labels)
    basis, weights = reference.random_basis(random, 5, 3), 0.3 * random.normal(size=(4, 3, 2))
    zero = np.zeros((5, 2))
    point = at(shared, prefs, basis, weights, reference, ridge=ridge, theta_init=zero, rank=3)
    assert_dense(prefs, point, random)


# ---------------------------------------------------------------- against least squares


def least_squares_errors(design, rows, variance):
    return np.sqrt(variance * np.einsum("ma,ab,mb->m", rows, np.linalg.inv(design), rows))


@pytest.mark.parametrize("estimator", ["full", "oracle", "global"])
def test_regression_has_the_errors_of_ordinary_least_squares(regression, estimator):
    prefs, basis = regression.prefs, regression.world.basis
    result = fit(prefs, estimator, basis=basis if estimator == "oracle" else None)
    errors = standard_errors(result, prefs)
    rows = np.random.default_rng(0).normal(size=(7, 6))
    frame = basis if estimator == "oracle" else np.eye(6)
    size = frame.shape[1] * (1 if estimator == "global" else prefs.n_users)
    residuals = prefs.labels - result.rewards(prefs.users, prefs.features)
    freedom = prefs.n_total - size
    variance = np.sum(residuals**2) / freedom
    quantile = scipy.stats.t.ppf(0.95, freedom)
    for user in range(prefs.n_users):
        mine = slice(None) if estimator == "global" else prefs.user(user)
        z = prefs.features[mine, :, 0] @ frame
        exact = least_squares_errors(z.T @ z, rows @ frame, variance)
        np.testing.assert_allclose(errors.of_rewards(user, rows), exact, rtol=1e-10)
        value, low, high = errors.intervals(user, rows, confidence=0.9)
        np.testing.assert_allclose(value, result.rewards(user, rows))
        np.testing.assert_allclose(high - value, quantile * exact, rtol=1e-10)
        np.testing.assert_allclose(value - low, high - value, rtol=1e-10)
    # the rival divides by the number of pairs
    rival = least_squares_errors(z.T @ z, rows @ frame, np.mean(residuals**2))
    assert (errors.of_rewards(prefs.n_users - 1, rows) > 1.01 * rival).all()


def test_one_matrix_for_all_pays_the_ridge_of_every_user(regression):
    prefs, ridge = regression.prefs, 8.0
    result = fit(prefs, "global", ridge=ridge)
    design = prefs.features[..., 0].T @ prefs.features[..., 0]
    residuals = prefs.labels - result.rewards(prefs.users, prefs.features)
    variance = np.sum(residuals**2) / (prefs.n_total - 6)
    bread = np.linalg.inv(design + 5 * ridge * np.eye(6))
    exact = np.sqrt(variance * np.diagonal(bread @ design @ bread))
    np.testing.assert_allclose(standard_errors(result, prefs).delta[0, :, 0], exact, rtol=1e-9)


# ---------------------------------------------------------------- bootstrap


def test_redrawn_labels_spread_the_refits_as_the_information_says(regression):
    prefs = regression.prefs
    result = fit(prefs, "share_b", rank=2)
    errors = standard_errors(result, prefs)
    redrawn = standard_errors(result, prefs, method="bootstrap", n_bootstrap=150, seed=4)
    assert redrawn.note == ""
    users = np.repeat(np.arange(prefs.n_users), 8)
    rows = np.random.default_rng(1).normal(size=(users.size, 6))
    squares = redrawn.of_rewards(users, rows) ** 2
    # a variance of 150 draws is known to 12 %, the mean of 5 users to about 6 %; n = 40 adds some
    ratio = squares / errors.of_rewards(users, rows) ** 2
    assert 0.8 < ratio.mean() < 1.25
    assert (squares / without_basis_term(errors).of_rewards(users, rows) ** 2).mean() > 1.25


# at d2 = 1; the bilinear classes need more
REDRAWN = set(ESTIMATORS) - {"share_a", "shared_core", "shared_diag", "global_plus_local"}


@pytest.mark.parametrize("estimator", sorted(REDRAWN))
def test_every_estimator_can_be_redrawn(narrow, estimator):
    basis = narrow.world.basis if estimator == "oracle" else None
    penalty = 2.0 if estimator == "nuclear" else None
    result = fit(narrow.prefs, estimator, rank=2, basis=basis, penalty=penalty)
    found = [
        standard_errors(
            result,
            narrow.prefs,
            method="bootstrap",
            n_bootstrap=2,
            seed=seed,
            penalty=2.0 if estimator == "nuclear" else None,
        ).delta
        for seed in (0, 0, 1)
    ]
    assert found[0].shape == result.delta.shape
    assert (found[0] > 0).all()
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def moments(request):
    """Mean of `4 (y - 1/2) x` for every user."""
    prefs = request.source
    signed = 4 * (prefs.labels - 0.5)[:, None, None] * prefs.features
    return np.stack([signed[prefs.user(i)].mean(axis=0) for i in range(prefs.n_users)])


def test_a_function_of_the_users_own_is_redrawn_when_it_is_given(narrow):
    prefs = narrow.prefs
    result = fit(prefs, moments)
    with pytest.raises(InputError, match=r"moments is not worked out.*bootstrap"):
        standard_errors(result, prefs)
    with pytest.raises(InputError, match=r"came from moments.*pass it as estimator="):
        standard_errors(result, prefs, method="bootstrap")
    errors = standard_errors(result, prefs, method="bootstrap", n_bootstrap=100, estimator=moments)
    first = expit(result.rewards(prefs.users, prefs.features))
    spread = (4 * prefs.features[..., 0]) ** 2 * (first * (1 - first))[:, None]
    exact = np.stack([spread[prefs.user(i)].sum(axis=0) / 40**2 for i in range(5)])
    # 30 variances of 100 draws each: 14 % each, about 3 % in the mean
    assert (errors.delta[..., 0] ** 2 / exact).mean() == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("case", ["narrow", "regression"])
def test_a_pair_of_weight_four_is_four_pairs_for_both_methods(case, request):
    example = request.getfixturevalue(case)
    prefs, basis = example.prefs, example.world.basis
    heavy = prefs.reweighted(np.full(prefs.n_total, 4.0))
    once, four = (fit(p, "oracle", basis=basis) for p in (prefs, heavy))
    single, quadruple = standard_errors(once, prefs), standard_errors(four, heavy)
    # 10 parameters cost 800 pairs less than 200 of the residual variance
    noise = 1.0 if case == "narrow" else np.sqrt((1 - 10 / 200) / (1 - 10 / 800))
    np.testing.assert_allclose(quadruple.delta, 0.5 * noise * single.delta, rtol=1e-6)
    redrawn = standard_errors(four, heavy, method="bootstrap", n_bootstrap=200)
    ratio = (redrawn.delta / quadruple.delta) ** 2
    assert 0.8 < ratio.mean() < 1.3  # one draw of weight 4 would give 4


# ---------------------------------------------------------------- invariances


def test_errors_do_not_depend_on_the_frame_or_the_order_of_users(
    narrow, shared, shared_errors, reference
):
    random = np.random.default_rng(0)
    turn = reference.random_basis(random, 2, 2)
    turned = at(
        shared,
        narrow.prefs,
        shared.basis @ turn,
        np.einsum("kj,nkb->njb", turn, shared.factors.weights),
        reference,
    )
    found = standard_errors(turned, narrow.prefs).delta
    np.testing.assert_allclose(found, shared_errors.delta, rtol=1e-9)
    users = random.integers(5, size=40)
    rows = random.normal(size=(40, 6))
    mixed = shared_errors.of_rewards(users, rows)
    each = [shared_errors.of_rewards(u, x[None])[0] for u, x in zip(users, rows, strict=True)]
    np.testing.assert_allclose(mixed, each, rtol=1e-10)
    np.testing.assert_allclose(
        shared_errors.of_rewards(2, np.eye(6)), shared_errors.delta[2, :, 0], rtol=1e-10
    )
    # of another user they are others
    assert np.abs(shared_errors.delta[1] / shared_errors.delta[2] - 1).max() > 0.05


def test_pieces_of_work_add_up(narrow, wide, monkeypatch):
    for case in (narrow, wide):  # d2 < k, d2 >= k
        result = fit(case.prefs, "share_b", rank=2)
        whole = standard_errors(result, case.prefs).delta
        with monkeypatch.context() as patch:
            patch.setattr(fisher, "_BATCH", 1)
            patch.setattr(fisher, "_PIECE", 1)
            np.testing.assert_allclose(standard_errors(result, case.prefs).delta, whole, rtol=1e-9)


def test_a_saved_fit_has_the_same_errors(narrow, shared, shared_errors, tmp_path):
    loaded = load_fit(shared.save(tmp_path / "fit"))
    np.testing.assert_array_equal(standard_errors(loaded, narrow.prefs).delta, shared_errors.delta)
