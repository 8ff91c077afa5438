"""The nuclear norm penalty: CVXPY's optimum, the duality gap, and what the penalty means."""

from __future__ import annotations

import cvxpy as cp
import jax.numpy as jnp
import numpy as np
import pytest

from simrlhf.core import numerics
from simrlhf.core.links import LOGISTIC
from simrlhf.estimators import FitStatus, fit, nuclear_solver
from simrlhf.estimators.problem import load_problem

PENALTY = 4.0


def cvxpy_optimum(prefs, penalty, base=0.0):
    """Objective per pair, and the deviations as `(d1, N d2)`."""
    n, d1, d2 = prefs.n_users, prefs.d1, prefs.d2
    unknown, loss = cp.Variable((d1, n * d2)), 0
    for i in range(n):
        x, y = prefs.features[prefs.user(i)], prefs.labels[prefs.user(i)]
        mine = unknown[:, i * d2 : (i + 1) * d2]
        z = x.reshape(len(x), -1) @ cp.reshape(mine, (d1 * d2,), order="C")
        z = z + np.einsum("nab,ab->n", x, np.broadcast_to(base, (d1, d2)))
        if prefs.link == "identity":
            loss += cp.sum_squares(z - y) / 2
        else:
            loss += cp.sum(cp.logistic(z) - cp.multiply(y, z))
    problem = cp.Problem(cp.Minimize(loss + penalty * cp.normNuc(unknown)))
    problem.solve(solver="CLARABEL")
    return problem.value / prefs.n_total, unknown.value


def aggregate(delta):
    return np.hstack(list(delta))


@pytest.mark.parametrize(("case", "with_base"), [("wide", True), ("regression", False)])
def test_the_optimum_is_clarabels(request, reference, case, with_base):
    prefs = request.getfixturevalue(case).prefs
    base = 0.3 * np.ones((prefs.d1, prefs.d2)) if with_base else None
    result = fit(prefs, "nuclear", penalty=PENALTY, theta_init=base)
    value, unknown = cvxpy_optimum(prefs, PENALTY, 0.3 if with_base else 0.0)
    norm = np.linalg.norm(aggregate(result.delta), "nuc")
    ours = reference.loss(prefs, result.delta, result.theta_init) + PENALTY * norm / prefs.n_total
    # Clarabel's own tolerance is 1e-8
    assert ours == pytest.approx(value, abs=1e-7)
    # a gap of 1e-8 over a curvature of some 1e-2 leaves the root of 1e-6
    np.testing.assert_allclose(aggregate(result.delta), unknown, rtol=0, atol=2e-3)
    assert result.status is FitStatus.CONVERGED
    assert result.gradient_norm <= 1e-8


def test_the_gap_bounds_the_distance_to_the_optimum_wherever_it_is_asked(wide, reference):
    """Along a line to the optimum; a dual point that is not scaled into the ball fails."""
    prefs = wide.prefs
    value, unknown = cvxpy_optimum(prefs, PENALTY)
    optimum = np.stack(np.split(unknown, prefs.n_users, axis=1))
    weight, total = PENALTY / prefs.n_total, float(prefs.n_total)
    broken = 0
    for share in (0.0, 0.3, 0.9, 1.0, 1.2):
        delta = share * optimum
        with numerics.float64_scope():
            objective, loss, gap = nuclear_solver._certify(
                load_problem(prefs), jnp.asarray(delta), jnp.asarray(weight),
                link=LOGISTIC, total=jnp.asarray(total),
            )  # fmt: skip
        norm = np.linalg.norm(aggregate(delta), "nuc")
        assert float(loss) == pytest.approx(reference.loss(prefs, delta), rel=1e-12)
        assert float(objective) == pytest.approx(float(loss) + weight * norm, rel=1e-12)
        assert float(objective) - value <= float(gap) + 1e-8
        # the rival: conjugates at the slopes themselves, whether they are feasible or not
        z, y = reference.rewards(prefs, delta), prefs.labels
        slopes = 1 / (1 + np.exp(-z)) - y
        losses = np.logaddexp(0, z) - y * z
        rival = float(objective) + np.mean(z * slopes - losses)
        broken += rival < float(objective) - value - 1e-6
    assert broken >= 2


def test_above_the_norm_of_the_score_nothing_is_left_and_with_none_it_is_full(wide, reference):
    prefs = wide.prefs
    score = aggregate(reference.score(prefs, np.zeros((4, 5, 3))))
    edge = np.linalg.norm(score, 2)
    assert not fit(prefs, "nuclear", penalty=1.001 * edge).delta.any()
    assert fit(prefs, "nuclear", penalty=0.99 * edge).delta.any()
    nearly, full = fit(prefs, "nuclear", penalty=1e-6, max_iterations=2000), fit(prefs, "full")
    # the penalty moves the optimum by its size over the curvature of a user's summed loss
    np.testing.assert_allclose(nearly.delta, full.delta, rtol=0, atol=1e-3)


def test_the_chosen_penalty_is_the_noise_of_labels_without_signal(wide):
    """With labels of no signal the fit is zero in about 95 % of draws, and the truth's is not."""
    prefs = wide.prefs
    chosen = fit(prefs, "nuclear")
    assert "95 % quantile of the noise" in chosen.message
    assert np.linalg.matrix_rank(aggregate(chosen.delta), tol=1e-6) >= 1
    penalty = float(chosen.message.split("lambda = ")[1].split(" ")[0])
    random = np.random.default_rng(0)
    x = prefs.features.reshape(4, 100, 5, 3)
    norms = []
    for _ in range(400):
        signs = random.choice([-0.5, 0.5], size=(4, 100))
        norms.append(np.linalg.norm(aggregate(np.einsum("np,npab->nab", signs, x)), 2))
    # 40 draws put their own 95 % quantile between the 80 % and the 99.9 % quantiles
    assert 0.8 < np.mean(np.asarray(norms) < penalty) < 0.999


def test_soft_labels_have_their_own_least_loss(wide):
    """Without the labels' entropy in the bound the gap would never close."""
    result = fit(wide.soft, "nuclear", penalty=PENALTY)
    assert result.status is FitStatus.CONVERGED
    assert result.neg_log_likelihood > 0.1
