"""The other estimators against independent solvers: scikit-learn, SciPy, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from simrlhf.estimators import fit

RIDGE = 2.0


def logistic_regression(x, y, ridge):
    model = LogisticRegression(
        C=1 / ridge, fit_intercept=False, tol=1e-12, max_iter=200, solver="newton-cholesky"
    )
    return model.fit(x, y).coef_.ravel()


@pytest.mark.parametrize("case", ["narrow", "wide"])
def test_full_equals_scikit_learns_logistic_regression_of_every_user(request, case):
    prefs = request.getfixturevalue(case).prefs
    result = fit(prefs, "full", ridge=RIDGE)
    for i in range(prefs.n_users):
        x = prefs.features[prefs.user(i)].reshape(-1, prefs.d1 * prefs.d2)
        expected = logistic_regression(x, prefs.labels[prefs.user(i)], RIDGE)
        np.testing.assert_allclose(result.delta[i].ravel(), expected, rtol=0, atol=1e-6)


def test_full_with_more_parameters_than_pairs_equals_scikit_learn(wide):
    prefs = wide.prefs.first(8)  # 8 pairs, 15 parameters: solved in the span of the features
    result = fit(prefs, "full", ridge=RIDGE)
    for i in range(prefs.n_users):
        x, y = prefs.features[prefs.user(i)].reshape(8, -1), prefs.labels[prefs.user(i)]
        expected = logistic_regression(x, y, RIDGE)
        np.testing.assert_allclose(result.delta[i].ravel(), expected, rtol=0, atol=1e-6)


def test_oracle_equals_scikit_learn_on_the_projected_features(narrow):
    prefs, basis = narrow.prefs, narrow.world.basis
    result = fit(prefs, "oracle", basis=basis, ridge=RIDGE)
    for i in range(prefs.n_users):
        z = prefs.features[prefs.user(i)][:, :, 0] @ basis
        expected = basis @ logistic_regression(z, prefs.labels[prefs.user(i)], RIDGE)
        np.testing.assert_allclose(result.delta[i, :, 0], expected, rtol=0, atol=1e-6)
    wrong = fit(prefs, "oracle", basis=np.roll(basis, 1, axis=0), ridge=RIDGE)
    assert np.abs(wrong.delta - result.delta).max() > 0.1


def test_global_equals_scikit_learn_on_the_pooled_pairs(narrow):
    prefs = narrow.prefs
    result = fit(prefs, "global", ridge=RIDGE)
    # the penalty counts once for each user
    expected = logistic_regression(prefs.features[:, :, 0], prefs.labels, RIDGE * prefs.n_users)
    for delta in result.delta:
        np.testing.assert_allclose(delta[:, 0], expected, rtol=0, atol=1e-6)


def test_full_with_a_bound_equals_scipys_constrained_solver(narrow):
    prefs, bound = narrow.prefs, 1.2
    result = fit(prefs, "full", norm_bound=bound)
    active = 0
    for i in range(prefs.n_users):
        x, y = prefs.features[prefs.user(i)][:, :, 0], prefs.labels[prefs.user(i)]

        def objective(v, x=x, y=y):
            z = x @ v
            value = np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
            return value, x.T @ (expit(z) - y)

        ball = {
            "type": "ineq", "fun": lambda v: bound**2 - v @ v, "jac": lambda v: -2 * v
        }  # fmt: skip
        answer = scipy.optimize.minimize(
            objective, np.zeros(6), jac=True, method="SLSQP", constraints=ball,
            options={"maxiter": 300, "ftol": 1e-14},
        )  # fmt: skip
        # SLSQP's accuracy in the point: the root of its accuracy in the value
        np.testing.assert_allclose(result.delta[i, :, 0], answer.x, rtol=0, atol=1e-5)
        active += np.linalg.norm(answer.x) > bound * (1 - 1e-6)
    assert 0 < active < prefs.n_users
    assert np.sum(result.multipliers > 0) == active


def test_local_is_not_above_scipys_restarts_of_any_user(wide, reference):
    prefs = wide.prefs
    result = fit(prefs, "local", rank=1, ridge=RIDGE)
    random = np.random.default_rng(0)
    best = 0.0
    for i in range(prefs.n_users):
        mine = slice(prefs.user(i).start, prefs.user(i).stop)
        x, y = prefs.features[mine], prefs.labels[mine]

        def objective(flat, x=x, y=y):
            b, w = flat[:5, None], flat[None, 5:]
            z = np.einsum("nab,ab->n", x, b @ w)
            slope = np.einsum("n,nab->ab", expit(z) - y, x) + RIDGE * b @ w
            value = np.sum(y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))
            value += RIDGE / 2 * np.sum((b @ w) ** 2)
            return value, np.concatenate([(slope @ w.T).ravel(), (b.T @ slope).ravel()])

        best += min(
            scipy.optimize.minimize(
                objective,
                random.normal(size=8),
                jac=True,
                method="L-BFGS-B",
                options={"ftol": 1e-15, "gtol": 1e-9},
            ).fun
            for _ in range(10)
        )
    assert reference.penalised(prefs, result) <= best / prefs.n_total + 1e-6
    assert all(np.linalg.matrix_rank(delta, tol=1e-10) == 1 for delta in result.delta)


@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_under_the_identity_link_full_is_ridge_regression(regression, ridge):
    prefs = regression.prefs
    result = fit(prefs, "full", ridge=ridge)
    for i in range(prefs.n_users):
        x, y = prefs.features[prefs.user(i)][:, :, 0], prefs.labels[prefs.user(i)]
        expected = np.linalg.solve(x.T @ x + ridge * np.eye(6), x.T @ y)
        np.testing.assert_allclose(result.delta[i, :, 0], expected, rtol=0, atol=1e-8)
        if ridge == 0:
            least = np.linalg.lstsq(x, y, rcond=None)[0]
            np.testing.assert_allclose(result.delta[i, :, 0], least, rtol=0, atol=1e-8)
    assert result.neg_log_likelihood == pytest.approx(
        np.mean((prefs.labels - np.einsum("nab,nab->n", prefs.features, result.delta[prefs.users]))
                ** 2) / 2, rel=1e-12)  # fmt: skip
