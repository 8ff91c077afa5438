"""How long exact pessimistic policies take, and a convex solver on the same problem.

Run: python experiments/benchmarks/pessimism_speed.py

Prints, for several radii, the first call (compilation included), the warm one, policies asked of
the oracle and the largest certificate; then ours and CVXPY with Clarabel, alternating in this
process, on a problem small enough for both.
"""

from __future__ import annotations

import argparse
import statistics
import time

import cvxpy
import jax
import numpy as np

import simrlhf as sim
from simrlhf import policy
from simrlhf.core import numerics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--actions", type=int, default=20)
    parser.add_argument("--horizon", type=int, default=20)
    parser.add_argument("--d1", type=int, default=64)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--radii", type=float, nargs="+", default=[0.1, 0.3, 1.0, 2.0])
    given = parser.parse_args()
    numerics.configure(cache=False)
    print(f"device {jax.devices()[0].device_kind}, jax {jax.__version__}, float64")
    print(f"Garnet {vars(given)}, design ellipsoids, tol 1e-6")
    world = _world(given.states, given.actions, given.horizon, given.d1, given.users)
    sigma = policy.pair_moments(world.mdp, world.behaviours)
    for radius in given.radii:
        sets = policy.design_ellipsoid(world.theta, sigma, radius)
        times = []
        for _ in range(2):
            started = time.perf_counter()
            plan = _plan(world, sets)
            times.append(time.perf_counter() - started)
        print(
            f"radius {radius:g}: first {times[0]:.1f} s, warm {times[1]:.1f} s; policies median "
            f"{np.median(plan.iterations):.0f}, max {plan.iterations.max()}; largest certificate "
            f"{(plan.certificate / np.maximum(plan.scale, 1e-300)).max():.1e} of the range; "
            f"{sum(one is policy.PlanStatus.CONVERGED for one in plan.status)} of "
            f"{len(plan.status)} converged"
        )
    _beside_a_convex_solver()


def _world(states: int, actions: int, horizon: int, d1: int, users: int) -> sim.World:
    decision = sim.DecisionConfig(mdp="garnet", n_states=states, n_actions=actions, horizon=horizon)
    return sim.make_world(
        sim.WorldConfig(n_users=users, d1=d1, rank=4, features="trajectories", decision=decision)
    )


def _plan(world: sim.World, sets: policy.Ellipsoids) -> policy.PessimisticPlan:
    return policy.pessimistic_policy(world.mdp, sets, reference=world.behaviours.second)


def _beside_a_convex_solver(users: int = 10, calls: int = 3) -> None:
    world = _world(20, 5, 6, 12, users)
    sigma = policy.pair_moments(world.mdp, world.behaviours)
    sets = policy.design_ellipsoid(world.theta, sigma, 1.0)
    plan = _plan(world, sets)
    ours, theirs, off = [], [], []
    for _ in range(calls):
        started = time.perf_counter()
        plan = _plan(world, sets)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        values = [_by_cvxpy(world, sets, user) for user in range(users)]
        theirs.append(time.perf_counter() - started)
        off.append(np.abs(np.array(values) - plan.value).max())
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"S = 20, A = 5, H = 6, d1 = 12, {users} users: ours median {statistics.median(ours):.3f} "
        f"s, CVXPY with Clarabel {statistics.median(theirs):.2f} s, {ratio:.0f} times ours; "
        f"largest difference {max(off):.1e}"
    )


def _by_cvxpy(world: sim.World, sets: policy.Ellipsoids, user: int) -> float:
    mdp = world.mdp
    flow = [cvxpy.Variable((mdp.n_states, mdp.n_actions), nonneg=True) for _ in range(mdp.horizon)]
    limits = [cvxpy.sum(flow[0], axis=1) == mdp.initial]
    for step, kernel in enumerate(mdp.kernels):
        arrived = kernel.reshape(-1, mdp.n_states).T @ cvxpy.vec(flow[step], order="C")
        limits.append(cvxpy.sum(flow[step + 1], axis=1) == arrived)
    base = policy.feature_expectations(mdp, world.behaviours.second).ravel()
    gap = -base
    for step, phi in enumerate(mdp.flat_features):
        gap = gap + phi.reshape(-1, phi.shape[-1]).T @ cvxpy.vec(flow[step], order="C")
    root = sets.root[min(user, len(sets.root) - 1)]
    value = sets.flat_centre[user] @ gap - sets.radius[user] * cvxpy.norm(root.T @ gap)
    problem = cvxpy.Problem(cvxpy.Maximize(value), limits)
    return float(problem.solve(solver=cvxpy.CLARABEL))


if __name__ == "__main__":
    main()
