"""`DecisionConfig`: the decision problem of a world, checked when it is written down."""

from __future__ import annotations

from dataclasses import dataclass

from simrlhf.core import checks
from simrlhf.world.behaviours import BEHAVIOURS, TWO_SIDED

MDPS = ("garnet", "chain", "grid", "bandit", "margin", "lower_bound", "texts", "given")
# numbers in the dense kernels of a problem; making them takes three times as many
MOST_IN_KERNELS = 2**27
# those with one step
BANDITS = ("bandit", "margin", "lower_bound", "texts")


@dataclass(frozen=True, kw_only=True)
class DecisionConfig:
    """What users' policies decide: an MDP, and the two policies whose trajectories are compared.

    Attributes:
        mdp: `"garnet"`, random kernels with `branching` successors each; `"chain"`, a line of
            states with actions left and right; `"grid"`, a square of states with four moves;
            `"bandit"`, contexts with Gaussian features; `"margin"`, two actions, every user with
            contexts of his own, whose margins have `P(|m| <= t) = (t / margin_scale)^alpha`;
            `"lower_bound"`, after Park's Theorem 3.3; `"texts"`, prompts and responses of a shipped
            data set (`prompt_bandit`); `"given"`, your own (the last two: `make_world(..., mdp=)`).
        n_states, n_actions, horizon: S, A, H. The chain has 2 actions, the grid 4.
        branching: successors of each state and action of a Garnet.
        slip: probability of a random neighbour in the chain and the grid.
        margin_exponent, margin_scale: alpha and the largest margin.
        behaviour, coverage, shared_start: as in `make_behaviours`.
    """

    mdp: str = "bandit"
    n_states: int = 100
    n_actions: int = 2
    horizon: int = 1
    branching: int = 5
    slip: float = 0.1
    margin_exponent: float = 1.0
    margin_scale: float = 1.0
    behaviour: str = "uniform"
    coverage: float = 1.0
    shared_start: bool = True

    def __post_init__(self) -> None:
        checks.choice("mdp", self.mdp, MDPS)
        for name in ("n_states", "n_actions", "horizon", "branching"):
            checks.integer(name, getattr(self, name), low=1)
        checks.real("slip", self.slip, low=0.0, high=1.0)
        checks.real("margin_exponent", self.margin_exponent, above=0.0)
        checks.real("margin_scale", self.margin_scale, above=0.0)
        checks.choice("behaviour", self.behaviour, BEHAVIOURS)
        checks.require(
            self.behaviour not in TWO_SIDED or self.n_actions > 1 or self.mdp == "given",
            f"behaviour = {self.behaviour!r} needs two actions or more, got n_actions = "
            f"{self.n_actions}",
        )
        checks.real("coverage", self.coverage, low=0.0, high=1.0)
        checks.require(
            isinstance(self.shared_start, bool),
            f"shared_start must be true or false, got {self.shared_start!r}",
        )
        checks.require(
            self.mdp not in BANDITS or self.horizon == 1,
            f"mdp = {self.mdp!r} has one step, got horizon = {self.horizon}; set horizon = 1, or "
            "choose garnet, chain or grid",
        )
        actions = {"chain": 2, "grid": 4, "margin": 2, "lower_bound": 2}.get(self.mdp)
        checks.require(
            actions in (None, self.n_actions),
            f"mdp = {self.mdp!r} has {actions} actions, got n_actions = {self.n_actions}",
        )
        checks.require(
            self.mdp != "garnet" or self.branching <= self.n_states,
            f"branching = {self.branching} must be at most n_states = {self.n_states}",
        )
        numbers = (self.horizon - 1) * self.n_states**2 * self.n_actions
        checks.require(
            numbers <= MOST_IN_KERNELS,
            f"kernels of horizon = {self.horizon}, n_states = {self.n_states} and n_actions = "
            f"{self.n_actions} take {numbers:,} numbers, above the limit {MOST_IN_KERNELS:,} (1 "
            "GB); lower one of them",
        )
        side = round(self.n_states**0.5)
        checks.require(
            self.mdp != "grid" or side**2 == self.n_states,
            f"n_states = {self.n_states} of a grid must be a square, as {side} x {side}",
        )
        steps = {"chain": self.n_states, "grid": 2 * side - 1}.get(self.mdp, 1)
        checks.require(
            self.horizon >= steps,
            f"mdp = {self.mdp!r} with n_states = {self.n_states} needs horizon = {steps} at least, "
            f"got {self.horizon}: its last state cannot be reached otherwise",
        )
