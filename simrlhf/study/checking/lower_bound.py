"""Park's construction of the lower bound (Theorem 3.3): signs that nobody can tell for sure.

k contexts with two actions; action 0 is worth nothing, action 1 `+-g`, `g = Lambda sqrt(k / n)`.
Action 1 is seen in a share `1 / Lambda^2` of the comparisons, so a context has about
`n / (k Lambda^2)` of them, each with log-odds `+-g`: half a standard error, whatever n is.
"""

from __future__ import annotations

import math

import numpy as np

from simrlhf import policy
from simrlhf.data.preferences import Preferences
from simrlhf.world import DecisionConfig, World, WorldConfig


def lower_bound_config(*, n_pairs: int, rank: int, scale: float, n_users: int = 16) -> WorldConfig:
    """The world for `n_pairs` comparisons: its rewards depend on them.

    Args:
        rank: k, the contexts.
        scale: Lambda, which no best policy's concentrability exceeds.
        n_users: a power of two above k; every context is good for half of them.
    """
    return WorldConfig(
        n_users=n_users,
        d1=rank,
        rank=rank,
        nu=worth(n_pairs=n_pairs, rank=rank, scale=scale) ** 2,
        condition=1.0,
        population="signs",
        features="trajectories",
        decision=DecisionConfig(
            mdp="lower_bound", n_states=rank, behaviour="careful", coverage=1.0 / scale**2
        ),
    )


def worth(*, n_pairs: float, rank: float, scale: float) -> float:
    """`g = Lambda sqrt(k / n)`, which is also what the theorem prints but for its constant."""
    return scale * math.sqrt(rank / n_pairs)


def mean_gap(world: World, delta: np.ndarray) -> float:
    """Mean over the users of what their greedy policies lose."""
    assert world.mdp is not None
    return policy.value_gaps(world.mdp, world.theta, world.theta_init + delta).mean


def largest_concentrability(world: World) -> float:
    """Of the users' best policies, which the theorem has at most Lambda."""
    assert world.mdp is not None
    assert world.behaviours is not None
    best = policy.optimal_policy(world.mdp, world.theta).policy
    return float(policy.concentrability(world.mdp, best, world.behaviours).value.max())


def majorities(world: World, sample: Preferences) -> np.ndarray:
    """`(N, d1, 1)`, greedy on which is the choice by majority of each context's comparisons.

    The posterior log-odds that action 1 is good are g times wins less losses where signs are
    independent and fair: nobody who knows g, and not the signs, loses less on average.
    """
    votes = sample.weights * (2.0 * sample.labels - 1.0)
    return np.add.reduceat(votes[:, None, None] * sample.features, sample.offsets[:-1])
