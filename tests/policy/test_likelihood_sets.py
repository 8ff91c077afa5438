"""Likelihood-ratio sets: pessimism over them against a convex solver, and what they hold."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

import simrlhf as sim
from simrlhf import policy
from simrlhf.core.checks import InputError
from simrlhf.policy import LikelihoodSets, PlanStatus
from simrlhf.world import MDP

BOUND = 3.0


def drawn(seed: int, *, n_pairs: int = 40, n_users: int = 4, basis: bool = True, d2: int = 2):
    """Fits on a known basis, or on all directions, with a base reward, and their pairs."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.normal(size=(2, 1)))[0] if basis else np.eye(2)
    base = rng.normal(size=(2, d2))
    theta = base + frame @ rng.normal(size=(n_users, frame.shape[1], d2))
    features = rng.normal(size=(n_users, n_pairs, 2, d2))
    chance = 1.0 / (1.0 + np.exp(-np.einsum("njab,nab->nj", features, theta)))
    prefs = sim.Preferences(features=features, labels=rng.binomial(1, chance))
    how = {"estimator": "oracle", "basis": frame} if basis else {"estimator": "full"}
    result = sim.fit(prefs, norm_bound=BOUND, theta_init=base, **how)
    return prefs, result, frame


def set_of(prefs, result, frame, radius) -> LikelihoodSets:
    return policy.likelihood_set(
        result.theta_init + result.delta,
        prefs,
        radius,
        norm_bound=BOUND,
        basis=frame,
        theta_init=result.theta_init,
    )


def by_convex_solver(mdp: MDP, prefs, result, frame, radius: float, user: int, reference) -> float:
    """The least value that dynamic programming can be held to, over rewards of the set.

    min over rewards and values V of the start's mean value less the reference's, V above every
    action's: minimum and maximum the other way round than the search has them.
    """
    mine = prefs.user(user)
    x, labels = prefs.features[mine], prefs.labels[mine]
    base, hat = result.theta_init, frame.T @ result.delta[user]
    factor = cvxpy.Variable(hat.shape)
    theta = base + frame @ factor

    def loss(z):
        return cvxpy.sum(cvxpy.logistic(z)) - labels @ z

    flat = x.reshape(len(x), -1)
    z_hat = flat @ (base + frame @ hat).ravel()
    level = float(np.sum(np.logaddexp(0.0, z_hat)) - labels @ z_hat) + 0.5 * radius**2
    rewards = cvxpy.vec(theta, order="C")
    limits = [loss(flat @ rewards) <= level, cvxpy.norm(factor, "fro") <= BOUND]
    values = [cvxpy.Variable(mdp.n_states) for _ in range(mdp.horizon)]
    for h in range(mdp.horizon):
        for a in range(mdp.n_actions):
            now = mdp.flat_features[h, :, a] @ rewards
            later = mdp.kernels[h, :, a] @ values[h + 1] if h + 1 < mdp.horizon else 0.0
            limits.append(values[h] >= now + later)
    mean = policy.feature_expectations(mdp, reference).ravel()
    problem = cvxpy.Problem(cvxpy.Minimize(mdp.initial @ values[0] - mean @ rewards), limits)
    return float(problem.solve(solver=cvxpy.CLARABEL))


@pytest.mark.slow
@pytest.mark.parametrize("basis", [True, False])
def test_pessimism_over_likelihoods_has_the_convex_solvers_optimum(small, basis):
    off = []
    for seed in range(5):
        mdp = small.mdp(seed, states=4, actions=3, horizon=2)
        reference = small.policy(mdp, 50 + seed)
        # few pairs separate some users, and the bound is active for them
        prefs, result, frame = drawn(seed, n_pairs=5 if seed % 2 else 40, basis=basis)
        radii = np.array([0.3, 1.0, 2.0, 4.0])
        sets = set_of(prefs, result, frame, radii)
        plan = policy.pessimistic_policy(mdp, sets, reference=reference)
        assert set(plan.status) == {PlanStatus.CONVERGED}
        assert plan.certificate.min() > -1e-9
        assert sets.holds(plan.worst).all()
        for user, radius in enumerate(radii):
            best = by_convex_solver(mdp, prefs, result, frame, radius, user, reference)
            off.append((best - plan.value[user]) / plan.scale[user])
    # as for ellipsoids; Clarabel's exponential cones are good to 1e-7 or so
    assert np.abs(off).max() < 2e-6


def test_the_least_value_of_a_plane_is_found_from_below_and_attained():
    """Against members of the set on a fine grid."""
    prefs, result, frame = drawn(0, d2=1)
    radius = 1.5
    sets = set_of(prefs, result, frame, radius)
    grid = np.linspace(-BOUND, BOUND, 40_001)
    slope = np.array([[1.0], [-2.0], [0.5], [3.0]])
    found = sets.worst(np.einsum("npq,np->nq", sets.root, slope * frame[:, 0]), np.zeros(4))
    for user in range(4):
        mine = prefs.user(user)
        seen = np.einsum("jab,ak->jkb", prefs.features[mine], frame).ravel()
        z = np.einsum("jab,ab->j", prefs.features[mine], result.theta_init)[:, None]
        z = z + seen[:, None] * grid
        labels = prefs.labels[mine][:, None]
        loss = (np.logaddexp(0.0, z) - labels * z).sum(axis=0)
        inside = loss <= loss.min() + 0.5 * radius**2
        hat = float((frame.T @ result.delta[user])[0, 0])
        least = (slope[user, 0] * (grid[inside] - hat)).min()
        # the grid is within 2e-4 of the end of the interval
        assert least - 1e-3 < found[user] <= least + 1e-9


def test_sets_hold_rewards_up_to_their_likelihood_on_their_basis():
    prefs, result, frame = drawn(1)
    centre = result.theta_init + result.delta
    sets = set_of(prefs, result, frame, 1.0)
    assert sets.holds(centre).all()
    off = np.array([[frame[1, 0]], [-frame[0, 0]]]) * np.ones((1, 2))
    assert not sets.holds(centre + 1e-3 * off).any()
    step = frame @ np.ones((1, 2))
    # along a direction the likelihood falls to the set's level once
    shares = np.array([sets.holds(centre + size * step) for size in np.linspace(0, 5, 200)])
    assert shares[0].all()
    assert not shares[-1].any()
    assert (np.diff(shares.astype(int), axis=0) <= 0).all()
    wider = set_of(prefs, result, frame, 2.0)
    assert (
        np.array([wider.holds(centre + size * step) for size in np.linspace(0, 5, 200)]) >= shares
    ).all()


def test_with_many_pairs_the_set_is_the_fisher_ellipsoid(small):
    prefs, result, frame = drawn(2, n_pairs=4000, n_users=2)
    radius, x = 2.0, prefs.features.reshape(2, 4000, 4)
    centre = result.theta_init + result.delta
    z = np.einsum("njp,np->nj", x, centre.reshape(2, 4))
    chance = 1.0 / (1.0 + np.exp(-z))
    lift = np.kron(frame, np.eye(2))
    information = np.einsum("njp,nj,njq->npq", x @ lift, chance * (1 - chance), x @ lift)
    covariance = lift @ np.linalg.inv(information) @ lift.T
    mdp = small.mdp(0)
    reference = small.policy(mdp, 1)
    plans = [
        policy.pessimistic_policy(mdp, sets, reference=reference).value
        for sets in (
            set_of(prefs, result, frame, radius),
            policy.fisher_ellipsoid(centre, covariance, radius),
        )
    ]
    # the loss is a parabola up to a share of about n^{-1/2}
    np.testing.assert_allclose(plans[0], plans[1], rtol=5e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0.0}, r"radius = 0 of user 0 must be above 0; the estimate alone is frobenius"),
        ({"radius": [1.0, -2.0, 1.0, 1.0]}, r"radius = -2 of user 1 must be above 0"),
        ({"norm_bound": None}, "the set may be unbounded.*give a norm_bound"),
        ({"norm_bound": 1e-3}, "the set misses the estimate.*above norm_bound = 0.001"),
        ({"basis": np.array([[1.0], [0.0]])}, "the set misses the estimate.*lie off the basis"),
        ({"basis": np.array([[1.0], [1.0]])}, "basis must have orthonormal columns"),
    ],
)
def test_sets_that_cannot_be_are_refused(change, message):
    prefs, result, frame = drawn(0)
    given = {"radius": 1.0, "norm_bound": BOUND, "basis": frame, "theta_init": result.theta_init}
    given |= change
    with pytest.raises(InputError, match=message):
        policy.likelihood_set(result.theta_init + result.delta, prefs, given.pop("radius"), **given)


def test_links_without_a_convex_loss_have_no_such_set():
    prefs, result, frame = drawn(0)
    flipped = sim.Preferences.from_pairs(
        prefs.users, prefs.features, prefs.labels, link="label_flip"
    )
    with pytest.raises(InputError, match="the loss of link label_flip is not convex"):
        set_of(flipped, result, frame, 1.0)
