"""What users lose to policies that are greedy on a fit, in a world with a decision problem."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.estimators import FitResult
from simrlhf.metrics.designs import has_informations, informations
from simrlhf.metrics.efficiency import sees_everything
from simrlhf.policy import feature_expectations, value_gaps
from simrlhf.world import MDP, World

# the covariance of L2 that belongs to an estimator
KINDS = {"share_b": "joint", "oracle": "oracle", "full": "full"}


def decision_gaps(world: World, result: FitResult, *, n_pairs: int) -> dict[str, float]:
    """Value gaps of the greedy policies, exactly.

    Args:
        n_pairs: pairs per user, the number asked for where users differ.

    Returns:
        `value_gap`, `J(pi*_i; r*_i) - J(pi_hat_i; r*_i)` averaged over users; `worst_gap`, its
        maximum; `optimal_value`, `random_value`: averages of `J(pi*_i)` and of the policy that
        chooses uniformly, between which a scale is; `gap_limit`, what the normal limit of the
        estimate lets expect of `value_gap` (L4 in finitely many contexts): for share_b, oracle and
        full, in bandits of two actions and a truth without a tail in the interior of the norm
        bound; NaN otherwise.

    Raises:
        InputError: the world has no decision problem.
    """
    require_decision(world)
    assert world.mdp is not None
    found = value_gaps(world.mdp, world.theta, result.theta_init + result.delta)
    return {
        "value_gap": found.mean,
        "worst_gap": found.worst,
        "optimal_value": float(found.optimal.mean()),
        "random_value": float(random_values(world).mean()),
        "gap_limit": _gap_limit(world, result, n_pairs),
    }


def require_decision(world: World) -> None:
    """Refuse a world without a decision problem."""
    checks.require(
        world.mdp is not None,
        "this world has no decision problem; give WorldConfig a decision = DecisionConfig(...)",
    )


@lru_cache(maxsize=2)
def random_values(world: World) -> np.ndarray:
    """`(N,)`: what every user has of the policy that chooses uniformly."""
    mdp = world.mdp
    assert mdp is not None
    uniform = np.full((mdp.horizon, mdp.n_states, mdp.n_actions), 1.0 / mdp.n_actions)
    mean = feature_expectations(mdp, uniform)
    return np.sum(world.theta * mean, axis=(1, 2))


def _gap_limit(world: World, result: FitResult, n_pairs: int) -> float:
    mdp, kind = world.mdp, KINDS.get(result.estimator)
    assert mdp is not None
    outside = result.norm_bound is not None and (
        np.linalg.norm(world.delta, axis=(1, 2)).max() >= result.norm_bound
    )
    missed = world.config.tail > 0 and kind != "full"
    if kind is None or outside or missed or not has_one_margin(mdp):
        return math.nan
    covariance = _covariances(world, kind)
    return math.nan if covariance is None else expected_gap(world, covariance / n_pairs)


def has_one_margin(mdp: MDP) -> bool:
    """Whether a policy's choices are between two actions, in one step: L4's problem."""
    return mdp.horizon == 1 and mdp.n_actions == 2


def expected_gap(world: World, covariance: np.ndarray, users: slice = slice(None)) -> float:
    """Mean over `users` of the gap that a normal error of the rewards lets expect (L4).

    Args:
        covariance: `Cov(vec E_i) (M, p, p)` of every one of them.

    Returns:
        The gap, in a bandit of two actions (`has_one_margin`).
    """
    mdp = world.mdp
    assert mdp is not None
    assert has_one_margin(mdp)
    differences = mdp.flat_features[0, :, 1] - mdp.flat_features[0, :, 0]
    gaps = theory.normal_value_gap(
        margins=world.theta[users].reshape(len(covariance), -1) @ differences.T,
        variances=np.einsum("sp,npq,sq->ns", differences, covariance, differences, optimize=True),
        weights=mdp.initial_of(world.n_users)[users],
        n_pairs=1,
    )
    return float(gaps.mean())


# three estimators' rows of one world follow one another
@lru_cache(maxsize=6)
def _covariances(world: World, kind: str) -> np.ndarray | None:
    """L2's `Cov_i (N, p, p)` where it is there."""
    if world.config.deficiency or not has_informations(world):
        return None
    found = informations(world)
    if not sees_everything(found):
        return None
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    return theory.reward_covariances(world.basis, factors, found, world.count_factors, kind=kind)
