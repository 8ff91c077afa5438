"""Pessimistic policies against a convex solver, and their certificates."""

from __future__ import annotations

import cvxpy
import numpy as np
import pytest

from simrlhf import policy
from simrlhf.core.checks import InputError
from simrlhf.policy import PlanStatus, confidence_sets
from simrlhf.world import MDP


def by_convex_solver(
    mdp: MDP,
    centre: np.ndarray,
    root: np.ndarray,
    radius: float,
    reference: np.ndarray,
    temperature: float = 0.0,
) -> float:
    """The same optimum over occupancies, as CVXPY and Clarabel have it."""
    flow = [cvxpy.Variable((mdp.n_states, mdp.n_actions), nonneg=True) for _ in range(mdp.horizon)]
    limits = [cvxpy.sum(flow[0], axis=1) == mdp.initial]
    for h, kernel in enumerate(mdp.kernels):
        arrived = [cvxpy.sum(cvxpy.multiply(flow[h], kernel[:, :, t])) for t in range(mdp.n_states)]
        limits.append(cvxpy.sum(flow[h + 1], axis=1) == cvxpy.hstack(arrived))
    phi = mdp.flat_features
    base = policy.feature_expectations(mdp, reference).ravel()
    gap = -base + sum(
        phi[h].reshape(-1, phi.shape[-1]).T @ cvxpy.vec(flow[h], order="C")
        for h in range(mdp.horizon)
    )
    value = centre.ravel() @ gap - radius * cvxpy.norm(root.T @ gap)
    if temperature > 0.0:
        for h in range(mdp.horizon):
            state = cvxpy.sum(flow[h], axis=1, keepdims=True) @ np.ones((1, mdp.n_actions))
            known = cvxpy.multiply(state, reference[h])
            value = value - temperature * cvxpy.sum(cvxpy.rel_entr(flow[h], known))
    problem = cvxpy.Problem(cvxpy.Maximize(value), limits)
    return float(problem.solve(solver=cvxpy.CLARABEL))


def drawn_sets(mdp: MDP, n_users: int, seed: int) -> confidence_sets.Ellipsoids:
    """Ellipsoids of all sizes, some without width in a direction, some a point."""
    rng = np.random.default_rng(seed)
    size = mdp.flat_features.shape[-1]
    root = rng.normal(size=(n_users, size, size - seed % 2))
    radius = rng.choice([0.0, 0.1, 0.5, 2.0, 10.0], size=n_users)
    return confidence_sets.Ellipsoids(rng.normal(size=(n_users, *mdp.reward_shape)), root, radius)


def worst_values(mdp, sets, laws, reference) -> np.ndarray:
    """Least value of each policy over its set, in closed form."""
    gap = policy.feature_expectations(mdp, laws) - policy.feature_expectations(mdp, reference)
    gap = gap.reshape(len(laws), -1)
    width = np.linalg.norm(np.einsum("npq,np->nq", sets.root, gap), axis=1)
    return np.sum(sets.flat_centre * gap, axis=1) - sets.radius * width


@pytest.mark.slow
def test_two_hundred_problems_have_the_convex_solvers_optimum(small):
    off, certificates = [], []
    for seed in range(20):
        mdp = small.mdp(seed, states=4, actions=3, horizon=3)
        reference, sets = small.policy(mdp, 50 + seed), drawn_sets(mdp, 10, seed)
        plan = policy.pessimistic_policy(mdp, sets, reference=reference)
        assert set(plan.status) == {PlanStatus.CONVERGED}
        np.testing.assert_allclose(
            worst_values(mdp, sets, plan.policy, reference), plan.value, atol=1e-8
        )
        for user in range(10):
            best = by_convex_solver(
                mdp, sets.centre[user], sets.root[user], sets.radius[user], reference
            )
            off.append((best - plan.value[user]) / plan.scale[user])
        certificates.append(plan.certificate / plan.scale)
    # the accuracy; Clarabel's own is 1e-8
    assert np.abs(off).max() < 1e-6
    assert np.min(certificates) > -1e-12
    assert np.max(certificates) <= 1e-6


@pytest.mark.slow
def test_the_regularised_problem_has_the_convex_solvers_optimum_too(small):
    for seed in range(4):
        mdp = small.mdp(seed, states=3, actions=2, horizon=2)
        reference, sets = small.policy(mdp, 50 + seed), drawn_sets(mdp, 5, seed)
        plan = policy.pessimistic_policy(mdp, sets, reference=reference, temperature=0.3)
        for user in range(5):
            best = by_convex_solver(
                mdp, sets.centre[user], sets.root[user], sets.radius[user], reference, 0.3
            )
            # exponential cones are solved to 1e-6 or so
            assert plan.value[user] == pytest.approx(best, abs=1e-5 * plan.scale[user])
            assert plan.certificate[user] <= 1e-6 * plan.scale[user]


def test_a_point_is_the_greedy_policy_and_a_large_set_the_reference(small):
    mdp = small.mdp(0)
    rng = np.random.default_rng(0)
    centre, reference = rng.normal(size=(3, 2, 2)), small.policy(mdp, 1)
    point = policy.pessimistic_policy(
        mdp, confidence_sets.frobenius_ball(centre, 0.0), reference=reference
    )
    best = policy.optimal_policy(mdp, centre).value - policy.value(mdp, reference, centre)
    np.testing.assert_allclose(point.value, best, atol=1e-10)
    everything = policy.pessimistic_policy(
        mdp, confidence_sets.frobenius_ball(centre, 1e4), reference=reference
    )
    assert np.all(everything.value >= 0.0)
    assert np.all(everything.value <= 1e-6 * everything.scale)
    means = policy.feature_expectations(mdp, everything.policy)
    np.testing.assert_allclose(
        means, np.broadcast_to(policy.feature_expectations(mdp, reference), means.shape), atol=1e-6
    )


def test_users_are_pessimistic_each_for_himself(small):
    """Alone or beside others, with first states of their own."""
    mdp = small.mdp(3, users=3)
    sets = drawn_sets(mdp, 3, 2)
    reference = small.policy(mdp, 4)
    together = policy.pessimistic_policy(mdp, sets, reference=reference)
    for user in range(3):
        alone = MDP(mdp.initial[user], mdp.kernels, mdp.features)
        one = confidence_sets.Ellipsoids(
            sets.centre[[user]], sets.root[[user]], sets.radius[[user]]
        )
        plan = policy.pessimistic_policy(alone, one, reference=reference)
        assert plan.value[0] == pytest.approx(together.value[user], abs=2e-6 * together.scale[user])


def test_too_few_iterations_are_said(small):
    mdp = small.mdp(1, states=6, actions=4)
    sets = drawn_sets(mdp, 4, 0)
    plan = policy.pessimistic_policy(
        mdp,
        confidence_sets.Ellipsoids(sets.centre, sets.root, np.full(4, 0.5)),
        reference=small.policy(mdp, 0),
        max_iterations=1,
    )
    assert PlanStatus.MAX_ITERATIONS in plan.status
    assert plan.certificate.max() > 1e-6 * plan.scale.max()


def test_sets_hold_what_is_within_their_radius():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(2, 2, 1))
    design = np.array([[4.0, 0.0], [0.0, 0.25]])
    ellipsoid = confidence_sets.design_ellipsoid(centre, design, 1.0)
    near, far = np.array([[0.49], [0.0]]), np.array([[0.51], [0.0]])
    np.testing.assert_array_equal(ellipsoid.holds(centre + near), True)
    np.testing.assert_array_equal(ellipsoid.holds(centre + far), False)
    np.testing.assert_array_equal(ellipsoid.holds(centre + far[::-1]), True)
    ball = confidence_sets.frobenius_ball(centre, np.array([0.5, 0.6]))
    np.testing.assert_array_equal(ball.holds(centre + far), [False, True])
    flat = confidence_sets.fisher_ellipsoid(centre, np.diag([1.0, 0.0])[None].repeat(2, 0), 1.0)
    np.testing.assert_array_equal(flat.holds(centre + near), True)
    np.testing.assert_array_equal(flat.holds(centre + near[::-1]), False)  # no width there


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: confidence_sets.frobenius_ball(c, -0.1),
            r"radius = -0\.1 of user 0 is negative",
        ),
        (
            lambda c: confidence_sets.design_ellipsoid(c, np.diag([1.0, 0.0]), 1.0),
            "the set is unbounded: the design of user 0 has the eigenvalue 0.*give a ridge",
        ),
        (
            lambda c: confidence_sets.Ellipsoids(c, np.ones((3, 2, 2)), np.ones(2)),
            "root has 3 matrices, expected 1 or N = 2",
        ),
        (lambda c: confidence_sets.frobenius_ball(c, np.full(2, np.inf)), "not finite"),
    ],
)
def test_sets_that_cannot_be_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((2, 2, 1)))


def test_sets_of_other_rewards_than_the_mdps_are_refused(small):
    mdp = small.mdp(0)
    sets = confidence_sets.frobenius_ball(np.ones((2, 3, 2)), 1.0)
    with pytest.raises(InputError, match=r"centre has shape \(2, 3, 2\), expected \(any, 2, 2\)"):
        policy.pessimistic_policy(mdp, sets, reference=small.policy(mdp, 0))
    two = confidence_sets.frobenius_ball(np.ones((2, 2, 2)), 1.0)
    with pytest.raises(InputError, match="one policy for all users"):
        policy.pessimistic_policy(mdp, two, reference=small.policy(mdp, 0, users=2))
