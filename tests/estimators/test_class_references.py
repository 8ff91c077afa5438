"""Optima of the bilinear and mixture classes, against scipy's from twenty starts of its own.

The reference knows a class as two NumPy functions: parameters to deviations, and the gradient in
the deviations back to the parameters.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from simrlhf.core.checks import InputError
from simrlhf.estimators import fit
from simrlhf.estimators.simplex_lore import lore_recipe

RIDGE, STARTS, K = 1.0, 20, 2
N, D1, D2 = 4, 5, 3


def _split(flat, *shapes):
    sizes = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(flat, sizes), shapes, strict=True)]


def _join(*parts):
    return np.concatenate([part.ravel() for part in parts])


def _softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _share_a():
    shapes = ((N, D1, K), (K, D2))

    def build(flat):
        left, right = _split(flat, *shapes)
        return left @ right

    def pull(flat, slope):
        left, right = _split(flat, *shapes)
        return _join(slope @ right.T, np.einsum("nak,nab->kb", left, slope))

    return build, pull, sum(np.prod(s) for s in shapes)


def _shared_core():
    shapes = ((D1, K), (N, K, K), (D2, K))

    def build(flat):
        left, cores, right = _split(flat, *shapes)
        return left @ cores @ right.T

    def pull(flat, slope):
        left, cores, right = _split(flat, *shapes)
        return _join(
            np.einsum("nab,nkl,bl->ak", slope, cores, right),
            left.T @ slope @ right,
            np.einsum("nab,ak,nkl->bl", slope, left, cores),
        )

    return build, pull, sum(np.prod(s) for s in shapes)


def _shared_diag():
    shapes = ((D1, K), (N, K), (D2, K))

    def build(flat):
        left, weights, right = _split(flat, *shapes)
        return np.einsum("ar,nr,br->nab", left, weights, right)

    def pull(flat, slope):
        left, weights, right = _split(flat, *shapes)
        return _join(
            np.einsum("nab,nr,br->ar", slope, weights, right),
            np.einsum("nab,ar,br->nr", slope, left, right),
            np.einsum("nab,ar,nr->br", slope, left, weights),
        )

    return build, pull, sum(np.prod(s) for s in shapes)


def _shared_rep():
    shapes = ((D1 * D2, K), (N, K))

    def build(flat):
        psi, heads = _split(flat, *shapes)
        return (heads @ psi.T).reshape(N, D1, D2)

    def pull(flat, slope):
        psi, heads = _split(flat, *shapes)
        rows = slope.reshape(N, -1)
        return _join(rows.T @ heads, rows @ psi)

    return build, pull, sum(np.prod(s) for s in shapes)


def _simplex():
    shapes = ((K, D1, D2), (N, K))

    def build(flat):
        vertices, logits = _split(flat, *shapes)
        return np.einsum("nk,kab->nab", _softmax(logits), vertices)

    def pull(flat, slope):
        vertices, logits = _split(flat, *shapes)
        weights = _softmax(logits)
        in_weights = np.einsum("nab,kab->nk", slope, vertices)
        inward = in_weights - np.sum(weights * in_weights, axis=1, keepdims=True)
        return _join(np.einsum("nk,nab->kab", weights, slope), weights * inward)

    return build, pull, sum(np.prod(s) for s in shapes)


CLASSES = {
    "share_a": _share_a, "shared_core": _shared_core, "shared_diag": _shared_diag,
    "shared_rep": _shared_rep, "simplex": _simplex,
}  # fmt: skip


def mean_objective(prefs, build, pull, ridge):
    x = prefs.features.reshape(N, -1, D1, D2)
    y = prefs.labels.reshape(N, -1)

    def value_and_gradient(flat):
        delta = build(flat)
        z = np.einsum("npab,nab->np", x, delta)
        value = np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
        slope = np.einsum("np,npab->nab", expit(z) - y, x) + ridge * delta
        return (value + ridge / 2 * np.sum(delta**2)) / y.size, pull(flat, slope) / y.size

    return value_and_gradient


@pytest.fixture(scope="module", params=list(CLASSES))
def restarts(request, wide):
    """scipy's endings from random starts, and the objective that led there."""
    build, pull, size = CLASSES[request.param]()
    objective = mean_objective(wide.prefs, build, pull, RIDGE)
    random = np.random.default_rng(0)
    options = {"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-9}
    found = [
        scipy.optimize.minimize(
            objective, random.normal(size=size), jac=True, method="L-BFGS-B", options=options
        )
        for _ in range(STARTS)
    ]
    return SimpleNamespace(name=request.param, best=min(f.fun for f in found), found=found)


def test_the_optimum_is_that_of_the_best_of_twenty_restarts(restarts, wide, reference):
    result = fit(wide.prefs, restarts.name, rank=K, ridge=RIDGE)
    ours = reference.penalised(wide.prefs, result)
    assert ours <= restarts.best + 1e-6
    assert ours >= restarts.best - 1e-6  # nor below: it would not be the same objective


@pytest.mark.parametrize("name", ["share_a", "shared_core", "shared_diag"])
def test_at_an_active_bound_the_optimality_conditions_hold_in_numpy(wide, reference, name):
    """Stationary in every parameter with the multipliers; without them it is not."""
    result = fit(wide.prefs, name, rank=K, norm_bound=1.2, tol=1e-10)
    _, pull, _ = CLASSES[name]()
    parts = vars(result.factors).values()
    flat = _join(*parts)
    slope = reference.score(wide.prefs, result.delta)
    held = slope + result.multipliers[:, None, None] * result.delta
    total = wide.prefs.n_total
    norms = np.linalg.norm(result.delta, axis=(1, 2))
    np.testing.assert_array_equal(result.multipliers > 0, norms > 1.2 * (1 - 1e-9))
    assert (result.multipliers > 0).any()
    assert (norms <= 1.2 * (1 + 1e-9)).all()
    # 1e-10 is the residual in orthonormal bases; the parameters here have sizes of order one
    assert np.abs(pull(flat, held)).max() / total < 1e-8
    assert np.abs(pull(flat, slope)).max() / total > 1e-4


def test_free_parts_on_a_common_one_are_multi_task_learning_with_a_ridge(narrow, reference):
    """Evgeniou and Pontil: logistic regression on (x, e_i x x) with the common part unpenalised."""
    prefs, ridge, small = narrow.prefs, 2.0, 1e-4
    result = fit(prefs, "global_plus_local", rank=1, ridge=ridge, tol=1e-10)
    x = prefs.features[:, :, 0]
    own = np.zeros((prefs.n_total, 5, 6))
    own[np.arange(prefs.n_total), prefs.users] = x
    # sklearn has one ridge: the common part's columns are enlarged until theirs is nothing
    design = np.hstack([x / np.sqrt(small), own.reshape(prefs.n_total, -1)])
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-12, max_iter=10_000)
    coefficients = model.fit(design, prefs.labels).coef_[0]
    common, deviations = coefficients[:6] / np.sqrt(small), coefficients[6:].reshape(5, 6)
    np.testing.assert_allclose(result.factors.common[:, 0], common, rtol=0, atol=2e-3)
    np.testing.assert_allclose(result.factors.deviations[:, :, 0], deviations, rtol=0, atol=2e-3)
    # at the optimum the deviations balance: ridge sum_i L_i = 0
    assert np.abs(result.factors.deviations.sum(axis=0)).max() < 1e-6
    assert reference.loss(prefs, result.delta) == pytest.approx(result.neg_log_likelihood)


def test_a_low_rank_part_of_ones_own_is_the_best_of_twenty_restarts(wide, reference):
    k = 1
    shapes = ((D1, D2), (N, D1, k), (N, k, D2))
    x, y = wide.prefs.features.reshape(N, -1, D1, D2), wide.prefs.labels.reshape(N, -1)

    def objective(flat):
        common, left, right = _split(flat, *shapes)
        own = left @ right
        z = np.einsum("npab,nab->np", x, common + own)
        value = np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
        slope = np.einsum("np,npab->nab", expit(z) - y, x)
        held = slope + RIDGE * own
        gradient = _join(
            slope.sum(axis=0), held @ np.swapaxes(right, 1, 2), np.swapaxes(left, 1, 2) @ held
        )
        return (value + RIDGE / 2 * np.sum(own**2)) / y.size, gradient / y.size

    random = np.random.default_rng(0)
    size = sum(np.prod(s) for s in shapes)
    best = min(
        scipy.optimize.minimize(
            objective, random.normal(size=size), jac=True, method="L-BFGS-B",
            options={"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-9},
        ).fun
        for _ in range(STARTS)
    )  # fmt: skip
    result = fit(wide.prefs, "global_plus_local", rank=k, ridge=RIDGE)
    penalty = RIDGE / 2 * np.sum(result.factors.deviations**2) / wide.prefs.n_total
    ours = result.neg_log_likelihood + penalty
    assert best - 1e-6 <= ours <= best + 1e-6


def test_cluster_is_the_best_of_all_partitions(wide, reference):
    """Seven ways to split four users in two, each half fitted by scikit-learn."""
    prefs = wide.prefs
    x = prefs.features.reshape(N, -1, D1 * D2)
    y = prefs.labels.reshape(N, -1)

    def of_group(users):
        model = LogisticRegression(
            C=1 / (RIDGE * len(users)), fit_intercept=False, tol=1e-12, max_iter=10_000
        )
        theta = model.fit(np.concatenate(x[users]), np.concatenate(y[users])).coef_[0]
        z = x[users] @ theta
        loss = np.sum(np.logaddexp(0, z) - y[users] * z)
        return loss + RIDGE / 2 * len(users) * np.sum(theta**2)

    losses = {}
    for size in (1, 2):
        for group in itertools.combinations(range(N), size):
            rest = [i for i in range(N) if i not in group]
            losses[group] = (of_group(list(group)) + of_group(rest)) / prefs.n_total
    result = fit(prefs, "cluster", rank=2, ridge=RIDGE)
    ours = reference.penalised(prefs, result)
    assert ours == pytest.approx(min(losses.values()), abs=1e-8)
    # the rival: any other partition
    assert sorted(losses.values())[2] > ours + 1e-5


def test_one_cluster_is_global_and_as_many_as_users_are_full(wide):
    one, whole = fit(wide.prefs, "cluster", rank=1), fit(wide.prefs, "global", rank=3)
    np.testing.assert_allclose(one.delta, whole.delta, rtol=0, atol=1e-6)
    each, full = fit(wide.prefs, "cluster", rank=4), fit(wide.prefs, "full")
    np.testing.assert_allclose(each.delta, full.delta, rtol=0, atol=1e-5)


def test_lores_recipe_stops_above_the_optimum_of_its_class(wide, reference):
    optimum = fit(wide.prefs, "simplex", rank=K)
    recipe = fit(wide.prefs, lore_recipe(), rank=K)
    assert recipe.neg_log_likelihood == pytest.approx(
        reference.loss(wide.prefs, recipe.delta), rel=1e-10
    )
    # vertices of size 1/100 that move by half of that in each of a thousand steps overshoot
    assert recipe.neg_log_likelihood > optimum.neg_log_likelihood + 1e-6
    assert recipe.gradient_norm > 1e-6 > optimum.gradient_norm
    np.testing.assert_allclose(recipe.factors.weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_vertices_are_drawn_around_the_users_and_are_not_determined(wide):
    """Weights on the simplex give every reward back; so do those of twice as large a simplex."""
    result = fit(wide.prefs, "simplex", rank=3, ridge=RIDGE)
    weights, vertices = result.factors.weights, result.factors.vertices
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        np.einsum("nk,kab->nab", weights, vertices), result.delta, rtol=0, atol=1e-12
    )
    assert weights.min() < 1e-12  # as small a simplex as holds all users
    middle = vertices.mean(axis=0)
    wider, inner = middle + 2 * (vertices - middle), 1 / 3 + (weights - 1 / 3) / 2
    assert (inner >= 0).all()
    np.testing.assert_allclose(
        np.einsum("nk,kab->nab", inner, wider), result.delta, rtol=0, atol=1e-12
    )
    # an affine space of dimension 2 is all that users share: a third direction is missing
    spread = (result.delta - result.delta.mean(axis=0)).reshape(4, -1)
    assert np.linalg.matrix_rank(spread, tol=1e-9) == 2


@pytest.mark.parametrize(
    ("case", "estimator", "rank", "message"),
    [
        ("narrow", "share_a", 1, r"rank 1 >= d2 = 1 .* it is the full model; ask for full"),
        ("wide", "share_a", 3, r"rank 3 >= d2 = 3 .* give a rank below 3"),
        ("wide", "shared_core", 3, r"shared_core with rank 3 .* ask for share_b"),
        ("narrow", "shared_diag", 1, r"it is share_b .* ask for that"),
        ("narrow", "global_plus_local", 1, r"neither ridge nor norm_bound.*give ridge"),
        ("narrow", "cluster", 6, r"rank = 6 must be at most 5"),
        ("wide", "shared_rep", 5, r"rank = 5 must be at most 4"),
        ("wide", "simplex", 5, r"rank = 5 must be at most 4"),
    ],
)
def test_degenerate_shapes_are_refused_with_the_reason(request, case, estimator, rank, message):
    prefs = request.getfixturevalue(case).prefs
    with pytest.raises(InputError, match=message):
        fit(prefs, estimator, rank=rank)
