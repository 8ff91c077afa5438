"""The two policies whose trajectories users compare, and knobs that make their coverage bad."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks
from simrlhf.world.mdp import MDP

BEHAVIOURS = ("uniform", "contrast", "careful", "expert")
# those that set actions against each other
TWO_SIDED = ("contrast", "careful")


@dataclass(frozen=True, eq=False)
class Behaviours:
    """Where comparisons come from: `tau_0 ~ mu_0`, `tau_1 ~ mu_1`, independent but for the start.

    Attributes:
        first, second: `mu_0, mu_1 (H, S, A)`.
        shared_start: whether both trajectories of a pair begin in one state, as two responses to
            one prompt do; otherwise their first states are independent.
    """

    first: np.ndarray
    second: np.ndarray
    shared_start: bool = True

    def require_of(self, mdp: MDP) -> None:
        """Refuse what are no policies of an MDP, each one for all users.

        Raises:
            InputError: another shape, or rows that are no probabilities.
        """
        shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
        for name, policy in (("first", self.first), ("second", self.second)):
            found = mdp.require_policy(name, policy)
            checks.shape(name, found, shape, remedy="one policy for all users")


def make_behaviours(
    mdp: MDP,
    kind: str,
    *,
    coverage: float,
    shared_start: bool,
    base: np.ndarray | None = None,
) -> Behaviours:
    """Behaviour policies that compare all actions, or hardly any.

    * `uniform`: both policies `coverage / A` everywhere, and the rest on action 0;
    * `contrast`: the first policy as `uniform` but over the upper half of the actions, the second
      over the lower half: no comparison of an action with itself;
    * `careful`: the second policy always takes action 0; the first leaves it, for any other action,
      with probability `coverage`;
    * `expert`: both as `uniform`, with the action of the largest base reward in the place of action
      0: data of a model that is good for most already, as those of RLHF are.

    Args:
        base: `theta_init (d1, d2)`, for `expert`; not zero.
        coverage: in [0, 1]. At 0 only action 0 is seen, and concentrability is infinite but where
            other trajectories have the same features.
    """
    checks.choice("behaviour", kind, BEHAVIOURS)
    checks.real("coverage", coverage, low=0.0, high=1.0)
    n_actions = mdp.n_actions
    checks.require(
        kind not in TWO_SIDED or n_actions > 1, f"behaviour = {kind!r} needs two actions or more"
    )
    safe = np.eye(n_actions)[0]
    if kind == "careful":
        others = (1.0 - safe) / (n_actions - 1)
        laws = (1.0 - coverage) * safe + coverage * others, safe
    elif kind == "contrast":
        upper = np.arange(n_actions) >= n_actions // 2
        laws = tuple(
            (1.0 - coverage) * safe + coverage * half / half.sum() for half in (upper, ~upper)
        )
    else:
        if kind == "expert":
            checks.require(
                base is not None and bool(np.any(base)),
                "behaviour = 'expert' takes the best action under the base reward, and there is "
                "none; set base_norm above 0",
            )
            rewards = np.tensordot(mdp.features, np.asarray(base), axes=2)
            safe = np.eye(n_actions)[rewards.argmax(axis=-1)]
        law = (1.0 - coverage) * safe + coverage / n_actions
        laws = law, law
    shape = (mdp.horizon, mdp.n_states, n_actions)
    first, second = (np.broadcast_to(law, shape).copy() for law in laws)
    return Behaviours(first, second, shared_start)
