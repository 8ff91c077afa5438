"""`share_b` against independent solvers: SciPy, pymanopt, reduced-rank regression."""

from __future__ import annotations

import numpy as np
import pymanopt
import pytest
import scipy.optimize
from scipy.special import expit

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit

RIDGE = 2.0
STARTS = 20


def factor_objective(prefs, rank, *, ridge):
    """Mean penalised loss and gradient in the flat `(B, W_1 ... W_N)`, `Delta_i = B W_i`."""
    d1, d2, users = prefs.d1, prefs.d2, prefs.n_users
    total = prefs.weights.sum()
    blocks = [(prefs.features[prefs.user(i)], prefs.labels[prefs.user(i)]) for i in range(users)]

    def split(flat):
        return flat[: d1 * rank].reshape(d1, rank), flat[d1 * rank :].reshape(users, rank, d2)

    def value_and_gradient(flat):
        basis, weights = split(flat)
        value, in_basis, in_weights = 0.0, np.zeros_like(basis), np.zeros_like(weights)
        for i, (x, y) in enumerate(blocks):
            delta = basis @ weights[i]
            z = np.einsum("nab,ab->n", x, delta)
            value += np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
            value += ridge / 2 * np.sum(delta**2)
            slope = np.einsum("n,nab->ab", expit(z) - y, x) + ridge * delta
            in_basis += slope @ weights[i].T
            in_weights[i] = basis.T @ slope
        return value / total, np.concatenate([in_basis.ravel(), in_weights.ravel()]) / total

    return value_and_gradient, split


def starts(prefs, result, reference):
    """Half random, half near the truth of the data: the SVD of the stacked score at zero."""
    random = np.random.default_rng(0)
    score = np.hstack(list(-reference.score(prefs, np.zeros_like(result.delta))))
    left, values, right = np.linalg.svd(score, full_matrices=False)
    k, size = result.rank, 1 / np.sqrt(prefs.weights.sum())
    spectral = (left[:, :k], np.moveaxis((right[:k] * values[:k, None] * size**2).reshape(
        k, prefs.n_users, prefs.d2), 1, 0))  # fmt: skip
    for index in range(STARTS):
        basis = random.normal(size=(prefs.d1, k))
        weights = random.normal(size=(prefs.n_users, k, prefs.d2))
        if index % 2:
            basis, weights = spectral[0] + 0.1 * basis, spectral[1] + 0.1 * weights
        yield np.concatenate([basis.ravel(), weights.ravel()])


@pytest.mark.parametrize("case", ["narrow", "wide"])
@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_share_b_is_not_above_the_best_of_20_lbfgs_restarts(request, reference, case, ridge):
    prefs = request.getfixturevalue(case).prefs
    result = fit(prefs, "share_b", rank=2, ridge=ridge)
    objective, _ = factor_objective(prefs, 2, ridge=ridge)
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9}
    found = [
        scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options).fun
        for start in starts(prefs, result, reference)
    ]
    ours = reference.penalised(prefs, result)
    assert ours <= min(found) + 1e-6
    assert ours >= min(found) - 1e-6  # nor below: it would not be the same objective


def test_share_b_is_not_above_the_best_of_pymanopts_restarts_on_the_grassmannian(narrow, reference):
    prefs, k = narrow.prefs, 2
    objective, _ = factor_objective(prefs, k, ridge=RIDGE)
    manifold = pymanopt.manifolds.Product(
        [
            pymanopt.manifolds.Grassmann(prefs.d1, k),
            pymanopt.manifolds.Euclidean(prefs.n_users, k),
        ]
    )

    def flat(basis, weights):
        return np.concatenate([basis.ravel(), weights.ravel()])

    @pymanopt.function.numpy(manifold)
    def cost(basis, weights):
        return objective(flat(basis, weights))[0]

    @pymanopt.function.numpy(manifold)
    def gradient(basis, weights):
        slope = objective(flat(basis, weights))[1]
        return slope[: basis.size].reshape(basis.shape), slope[basis.size :].reshape(weights.shape)

    solver = pymanopt.optimizers.ConjugateGradient(
        verbosity=0, min_gradient_norm=1e-7, max_iterations=300
    )
    task = pymanopt.Problem(manifold, cost, euclidean_gradient=gradient)
    random = np.random.default_rng(0)
    found = [
        solver.run(
            task,
            initial_point=[
                reference.random_basis(random, prefs.d1, k),
                random.normal(size=(prefs.n_users, k)),
            ],
        ).cost
        for _ in range(5)
    ]
    ours = reference.penalised(prefs, fit(prefs, "share_b", rank=k, ridge=RIDGE))
    assert min(found) - 1e-6 <= ours <= min(found) + 1e-6


def test_share_b_with_an_active_bound_equals_scipys_constrained_solver(narrow, reference):
    prefs, k, bound = narrow.prefs, 2, 1.2
    objective, split = factor_objective(prefs, k, ridge=0.0)

    def room(flat):
        basis, weights = split(flat)
        return bound**2 - np.sum((basis @ weights) ** 2, axis=(1, 2))

    result = fit(prefs, "share_b", rank=k, norm_bound=bound)
    answers = [
        scipy.optimize.minimize(
            objective,
            start,
            jac=True,
            method="SLSQP",
            constraints={"type": "ineq", "fun": room},
            options={"maxiter": 500, "ftol": 1e-12},
        )
        for start in list(starts(prefs, result, reference))[:6]
    ]
    best = min((a for a in answers if room(a.x).min() > -1e-8), key=lambda a: a.fun)
    # SLSQP stops at 1e-12 of the objective and some 1e-9 outside the constraint
    assert reference.loss(prefs, result.delta) == pytest.approx(best.fun, abs=1e-7)
    basis, weights = split(best.x)
    np.testing.assert_allclose(result.delta, basis @ weights, rtol=0, atol=1e-4)
    assert 0 < np.sum(result.multipliers > 0) < prefs.n_users
    np.testing.assert_array_equal(
        result.multipliers > 0, np.linalg.norm(result.delta, axis=(1, 2)) > bound * (1 - 1e-9)
    )


def test_under_the_identity_link_with_one_design_for_all_share_b_is_reduced_rank_regression():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6))
    coefficients = random.normal(size=(6, 2)) @ random.normal(size=(2, 5))
    y = x @ coefficients + 0.5 * random.normal(size=(40, 5))
    prefs = Preferences(features=np.tile(x, (5, 1, 1)), labels=y.T, link="identity")
    result = fit(prefs, "share_b", rank=2)
    # Eckart and Young in the metric of the design: truncate the SVD of the fitted values
    ordinary = np.linalg.lstsq(x, y, rcond=None)[0]
    right = np.linalg.svd(x @ ordinary)[2][:2]
    np.testing.assert_allclose(
        result.delta[:, :, 0].T, ordinary @ right.T @ right, rtol=0, atol=1e-7
    )
