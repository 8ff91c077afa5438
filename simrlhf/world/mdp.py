"""Tabular finite-horizon Markov decision processes with matrix features, checked when made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks

# probabilities may miss one by so much: sums of float64 over thousands of states are closer
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class MDP:
    """`(S, A, H, P_h)` with features: known dynamics, and linear rewards for whoever brings theta.

    The reward of `(s, a)` at step h is `<Theta, phi_h(s, a)>`, that of a trajectory the sum over
    its steps, `r(tau) = <Theta, phi(tau)>`. A contextual bandit is the case `H = 1`.

    Attributes:
        initial: `(S,)` law of the first state; `(N, S)` where every user asks his own questions.
        kernels: `(H - 1, S, A, S)`, `P_h(s' | s, a)`; empty for a bandit.
        features: `phi (H, S, A, d1, d2)`.

    Raises:
        InputError: shapes that do not agree, a negative probability or one that is not finite,
            probabilities that do not sum to one, a state that no policy of any user ever reaches.
    """

    initial: np.ndarray
    kernels: np.ndarray
    features: np.ndarray

    def __post_init__(self) -> None:
        for name in ("initial", "kernels", "features"):
            array = checks.numbers(name, getattr(self, name))
            checks.finite(name, array)
            object.__setattr__(self, name, array)
        checks.shape("features", self.features, (None,) * 5, remedy="(H, S, A, d1, d2)")
        checks.require(self.features.size > 0, f"features is empty: {self.features.shape}")
        rows = "(S,), or (N, S) where users differ"
        if self.initial.ndim == 2:
            checks.shape("initial", self.initial, (None, self.n_states), remedy=rows)
        else:
            checks.shape("initial", self.initial, (self.n_states,), remedy=rows)
        shape = (self.horizon - 1, self.n_states, self.n_actions, self.n_states)
        checks.shape("kernels", self.kernels, shape, remedy="(H - 1, S, A, S)")
        require_law("initial", self.initial)
        require_law("kernels", self.kernels)
        self._require_reachable()

    @classmethod
    def bandit(cls, features: np.ndarray, contexts: np.ndarray | None = None) -> MDP:
        """A contextual bandit from `features (S, A, d1, d2)`; contexts are uniform by default.

        Args:
            contexts: `(S,)` their law, or `(N, S)` each user's.
        """
        features = checks.numbers("features", features)
        checks.shape("features", features, (None,) * 4, remedy="(S, A, d1, d2)")
        n_states, n_actions = features.shape[:2]
        initial = np.full(n_states, 1.0 / max(n_states, 1)) if contexts is None else contexts
        return cls(initial, np.zeros((0, n_states, n_actions, n_states)), features[None])

    @property
    def horizon(self) -> int:
        return self.features.shape[0]

    @property
    def n_states(self) -> int:
        return self.features.shape[1]

    @property
    def n_actions(self) -> int:
        return self.features.shape[2]

    @property
    def reward_shape(self) -> tuple[int, int]:
        """`(d1, d2)`."""
        return self.features.shape[3], self.features.shape[4]

    @property
    def flat_features(self) -> np.ndarray:
        """`(H, S, A, p)`, `p = d1 d2`: rows `vec phi`, in C order."""
        return self.features.reshape(*self.features.shape[:3], -1)

    def initial_of(self, n_users: int) -> np.ndarray:
        """`(N, S)`: the first state's law of each of `n_users` users."""
        if self.initial.ndim == 1:
            return np.broadcast_to(self.initial, (n_users, self.n_states))
        checks.require(
            self.initial.shape[0] == n_users,
            f"this MDP has first states of {self.initial.shape[0]} users, and there are {n_users}",
        )
        return self.initial

    def require_policy(self, name: str, policy: np.ndarray) -> np.ndarray:
        """A policy `(H, S, A)`, or `(N, H, S, A)` one for each user: float64, laws over actions.

        Raises:
            InputError: another shape, or rows that are no probabilities.
        """
        policy = checks.numbers(name, policy)
        shape = (self.horizon, self.n_states, self.n_actions)
        wanted = (None, *shape) if policy.ndim == 4 else shape
        checks.shape(name, policy, wanted, remedy="(H, S, A), or (N, H, S, A) where users differ")
        checks.finite(name, policy)
        require_law(name, policy)
        return policy

    def _require_reachable(self) -> None:
        """Every state has a step at which some policy is in it."""
        now = (self.initial > 0.0).reshape(-1, self.n_states).any(axis=0)
        seen = now
        for kernel in self.kernels:
            now = (kernel[now] > 0.0).any(axis=(0, 1))
            seen = seen | now
        lost = np.flatnonzero(~seen)
        checks.require(
            lost.size == 0,
            f"{lost.size} of {self.n_states} states (the first is {lost[0] if lost.size else 0}) "
            f"cannot be reached within horizon = {self.horizon} from the first states; drop them, "
            "raise the horizon, or start there too",
        )


def require_law(name: str, array: np.ndarray) -> None:
    """Refuse entries along the last axis that are no probabilities."""
    if array.size == 0:
        return
    least = np.unravel_index(array.argmin(), array.shape)
    checks.require(
        bool(array[least] >= 0.0),
        f"{name}{_place(least)} = {array[least]:.6g} is negative, and it must be a probability",
    )
    sums = array.sum(axis=-1)
    worst = np.unravel_index(np.abs(sums - 1.0).argmax(), sums.shape)
    checks.require(
        bool(abs(sums[worst] - 1.0) <= _ROUNDING),
        f"{name}{_place(worst, more=True)} sums to {sums[worst]:.12g}, and probabilities sum to 1; "
        "divide by the sum",
    )


def _place(index: tuple, *, more: bool = False) -> str:
    inside = [str(int(i)) for i in index] + ([":"] if more else [])
    return f"[{', '.join(inside)}]"
