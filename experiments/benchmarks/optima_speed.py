"""How long exact optima, value gaps and concentrability of many users take.

Run: python experiments/benchmarks/optima_speed.py

Prints the first call, compilation included, and the warm median of each; and plain NumPy's backward
induction, user by user, alternating with the optima in this process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

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
    parser.add_argument("--calls", type=int, default=7)
    given = parser.parse_args()
    numerics.configure(cache=False)
    world = sim.make_world(
        sim.WorldConfig(
            n_users=given.users,
            d1=given.d1,
            rank=4,
            features="trajectories",
            decision=sim.DecisionConfig(
                mdp="garnet",
                n_states=given.states,
                n_actions=given.actions,
                horizon=given.horizon,
            ),
        )
    )
    mdp = world.mdp
    print(f"device {jax.devices()[0].device_kind}, jax {jax.__version__}, float64")
    print(f"Garnet {vars(given)}")
    guess = world.theta + 0.1 * np.random.default_rng(0).normal(size=world.theta.shape)
    plan = _timed("optima of all users", lambda: policy.optimal_policy(mdp, world.theta), given)
    _timed("value gaps of all users", lambda: policy.value_gaps(mdp, world.theta, guess), given)
    _timed(
        "KL-regularised optima",
        lambda: policy.optimal_policy(mdp, world.theta, temperature=0.1),
        given,
    )
    _timed("values of given policies", lambda: policy.value(mdp, plan.policy, world.theta), given)
    _timed("the design of the pairs", lambda: policy.pair_moments(mdp, world.behaviours), given)
    _timed(
        "concentrability of all users",
        lambda: policy.concentrability(mdp, plan.policy, world.behaviours),
        given,
    )
    ours, theirs = [], []
    for _ in range(3):
        started = time.perf_counter()
        plan = policy.optimal_policy(mdp, world.theta)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        values = _by_numpy(mdp, world.theta)
        theirs.append(time.perf_counter() - started)
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"NumPy, user by user: median {statistics.median(theirs):.2f} s, {ratio:.1f} times ours; "
        f"largest difference {np.abs(values - plan.value).max():.1e}"
    )


def _timed(name: str, call: Callable, given: argparse.Namespace):
    started = time.perf_counter()
    found = call()
    first, times = time.perf_counter() - started, []
    for _ in range(given.calls):
        started = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - started)
    print(
        f"{name:30} first {first:.2f} s, warm median {statistics.median(times):.3f} s "
        f"({min(times):.3f} to {max(times):.3f})"
    )
    return found


def _by_numpy(mdp: sim.MDP, theta: np.ndarray) -> np.ndarray:
    values = np.zeros((len(theta), mdp.n_states))
    for user, reward in enumerate(theta):
        after = np.zeros(mdp.n_states)
        for step in reversed(range(mdp.horizon)):
            q = mdp.flat_features[step] @ reward.ravel()
            if step + 1 < mdp.horizon:
                q = q + mdp.kernels[step] @ after
            after = q.max(axis=-1)
        values[user] = after
    return values @ mdp.initial


if __name__ == "__main__":
    main()
