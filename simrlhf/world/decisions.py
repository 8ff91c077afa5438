"""Generators of decision problems: every one scaled so that comparisons say about as much.

Features are such that `E||x||^2 = d1 d2` for two independent trajectories of policies that choose
uniformly, as for the isotropic feature laws; where rewards must be exact (`margin`, `lower_bound`)
they are what the construction says.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.world.behaviours import Behaviours, make_behaviours
from simrlhf.world.decision_config import DecisionConfig
from simrlhf.world.mdp import MDP


class Truth(NamedTuple):
    """What a construction may use: `theta (N, d1, d2)`, `base (d1, d2)` and `basis (d1, k)`."""

    theta: np.ndarray
    base: np.ndarray
    basis: np.ndarray


def make_decisions(
    config: DecisionConfig,
    truth: Truth,
    random: np.random.Generator,
    mdp: MDP | None = None,
    behaviours: Behaviours | None = None,
) -> tuple[MDP, Behaviours]:
    """The MDP and the behaviour policies.

    Args:
        mdp: your own, where the config says `given` or `texts`.
        behaviours: your own, in the place of the config's.

    Raises:
        InputError: an MDP that is missing or not asked for, features of another shape than the
            rewards, a construction that these users do not allow.
    """
    outside = config.mdp in ("given", "texts")
    checks.require(
        outside == (mdp is not None),
        f"mdp = {config.mdp!r} needs make_world(config, mdp=...)"
        + (", for instance prompt_bandit(...)" if config.mdp == "texts" else "")
        if outside
        else f"make_world got an mdp, and the config makes its own ({config.mdp!r}); set "
        "decision.mdp = 'given'",
    )
    found = _GENERATORS[config.mdp](config, truth, random) if mdp is None else mdp
    shape = truth.theta.shape[1:]
    checks.require(
        found.reward_shape == shape,
        f"the MDP's features have shape {found.reward_shape}, and the world's rewards {shape}",
    )
    found.initial_of(truth.theta.shape[0])
    if behaviours is not None:
        behaviours.require_of(found)
        return found, behaviours
    made = make_behaviours(
        found,
        config.behaviour,
        coverage=config.coverage,
        shared_start=config.shared_start,
        base=truth.base,
    )
    return found, made


def _garnet(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    """Every `(h, s, a)` leads to `branching` random states, with uniform Dirichlet weights."""
    steps, s, a, b = config.horizon - 1, config.n_states, config.n_actions, config.branching
    kernels = np.zeros((steps, s, a, s))
    next_states = np.argsort(random.random((steps, s, a, s)), axis=-1)[..., :b]
    weights = random.dirichlet(np.ones(b), size=(steps, s, a))
    np.put_along_axis(kernels, next_states, weights, axis=-1)
    return MDP(np.full(s, 1.0 / s), kernels, _gaussian_features(config, truth, random))


def _chain(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    """From the first state: action 1 goes right, action 0 left, either slips to the other side."""
    s = config.n_states
    here = np.arange(s)
    moves = np.stack([np.maximum(here - 1, 0), np.minimum(here + 1, s - 1)], axis=1)
    return MDP(
        np.eye(s)[0],
        _slippery(moves, config),
        _gaussian_features(config, truth, random, fixed=True),
    )


def _grid(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    """From a corner: up, down, left, right; a wall keeps the state."""
    side = round(config.n_states**0.5)
    row, column = np.divmod(np.arange(config.n_states), side)
    steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
    moves = np.stack(
        [
            np.clip(row + down, 0, side - 1) * side + np.clip(column + right, 0, side - 1)
            for down, right in steps
        ],
        axis=1,
    )
    return MDP(
        np.eye(config.n_states)[0],
        _slippery(moves, config),
        _gaussian_features(config, truth, random, fixed=True),
    )


def _slippery(moves: np.ndarray, config: DecisionConfig) -> np.ndarray:
    """Kernels of intended moves `(S, A)`: with probability `slip` one of all moves at random."""
    states, actions = moves.shape
    intended = np.eye(states)[moves]
    kernel = (1.0 - config.slip) * intended + config.slip * intended.mean(axis=1, keepdims=True)
    return np.broadcast_to(kernel, (config.horizon - 1, states, actions, states)).copy()


def _bandit(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    return MDP.bandit(_gaussian_features(config, truth, random)[0])


def _gaussian_features(
    config: DecisionConfig, truth: Truth, random: np.random.Generator, *, fixed: bool = False
) -> np.ndarray:
    """Independent `N(0, 1 / (2 H))` entries; the same at every step if `fixed`."""
    steps = 1 if fixed else config.horizon
    shape = (config.n_states, config.n_actions, *truth.theta.shape[1:])
    drawn = random.standard_normal((steps, *shape)) / np.sqrt(2.0 * config.horizon)
    return np.broadcast_to(drawn, (config.horizon, *shape)).copy()


def _margin(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    """Contexts of each user's own with `v = phi(s, 1) - phi(s, 0) = m Theta / ||Theta||^2 + u`.

    The margin `<Theta, v>` is m, at the quantiles of its law and with random sign; u is standard
    normal across Theta, so that an error of Theta can turn a choice whatever the margin.
    """
    n_users, *shape = truth.theta.shape
    each = config.n_states // n_users
    flat = truth.theta.reshape(n_users, -1)
    squares = np.sum(flat**2, axis=1)
    checks.require(
        bool((squares > 0.0).all()),
        "mdp = 'margin' needs users with margins, and one's whole reward vector is zero",
    )
    quantiles = (np.arange(each) + 0.5) / each
    sizes = config.margin_scale * quantiles ** (1.0 / config.margin_exponent)
    margins = sizes * random.choice([-1.0, 1.0], size=(n_users, each))
    across = random.standard_normal((n_users, each, flat.shape[1]))
    across -= np.einsum("nep,np,nq->neq", across, flat, flat / squares[:, None])
    differences = margins[..., None] * (flat / squares[:, None])[:, None, :] + across
    halves = 0.5 * differences.reshape(-1, *shape)
    own = np.kron(np.eye(n_users), np.full(each, 1.0 / each))
    return MDP.bandit(np.stack([-halves, halves], axis=1), own)


def _lower_bound(config: DecisionConfig, truth: Truth, random: np.random.Generator) -> MDP:
    """k contexts; action 0 is worth nothing, and action 1 of context s `<Theta, b_s> = +-gap`.

    With `behaviour = "careful"` and `coverage = 1 / Lambda^2` concentrability of the best policy is
    at most Lambda, and gaps of the size `Lambda sqrt(k / n)` cannot be told in sign by anyone.
    """
    del config, random
    d1, rank = truth.basis.shape
    features = np.zeros((rank, 2, d1, 1))
    features[:, 1, :, 0] = truth.basis.T
    return MDP.bandit(features)


_GENERATORS = {
    "garnet": _garnet,
    "chain": _chain,
    "grid": _grid,
    "bandit": _bandit,
    "margin": _margin,
    "lower_bound": _lower_bound,
}
