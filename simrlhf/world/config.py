"""`WorldConfig`: the settings of a synthetic world, checked when they are written down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simrlhf.core import checks, links
from simrlhf.world.decision_config import DecisionConfig

TAIL_SHAPES = ("flat", "power")
USER_NORMS = ("random", "equal", "lognormal")
POPULATIONS = ("haar", "core", "clusters", "mixture", "minority", "signs")
# those with E[vec x vec x'] = I, and the others
ISOTROPIC_LAWS = ("gaussian", "sphere", "bounded")
FEATURE_LAWS = (*ISOTROPIC_LAWS, "anisotropic", "degenerate")
# differences of trajectories, whose law is the decision problem's
TRAJECTORIES = "trajectories"
# a factor exp(5 z) spans ten orders of magnitude over a hundred users
_WIDEST_SPREAD = 5.0
MINORITY_SHARE = 0.1
# the largest tail singular value stays this far below sigma_k, relatively: B^<> is the top-k space
# of Delta*, and recovering it to 1e-10 in float64 needs a gap
EIGENGAP = 1e-3


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world is: sizes, the exact spectrum of `Delta*`, feature law and link.

    `Delta* = [Delta_1 ... Delta_N]` in `R^{d1 x N d2}` has exactly the singular values asked for:
    the top `k` fall geometrically from `sigma_1 = condition sigma_k` to `sigma_k = sqrt(N nu)`
    (Definition 4.1), the others have energy `Sigma_tail = N tail^2`. What a population decides is
    the law of the right directions `V (N d2, k)`, who shares what with whom.

    Attributes:
        n_users, d1, d2: `N` and the shape of each `Delta_i`.
        rank: `k`.
        nu: `sigma_k^2 / N`, positive; with a deficiency that of the smallest positive value.
        condition: `sigma_1 / sigma_k`, at least 1 (and 1 when `k = 1`, which has one value only).
        deficiency: how many of the top `k` singular values are zero, the last ones. Definition
            4.1's `nu` is then 0 (`sigma_k`), and the truth has rank `k - deficiency`.
        tail: `sqrt(Sigma_tail / N)`.
        tail_shape: `"flat"` (equal values) or `"power"` (`sigma_{k+j}` proportional to
            `j^-tail_decay`).
        tail_decay: exponent of the power law.
        population: `"haar"`, directions uniform and users exchangeable; `"core"`, the `W_i` share a
            right space of dimension k too, `Delta_i = U C_i V'`; `"clusters"`, the users of
            a group share one Delta; `"mixture"`, `Delta_i = sum_j a_ij C_j` with rows
            `a_i ~ Dirichlet(concentration)`; `"minority"`, the last of the directions is carried by
            `minority_share` of the users alone; `"signs"`, every coordinate of a user in `B^<>` is
            `+-sqrt(nu)`, in patterns of a Hadamard matrix. The tail deviates from all of these.
        n_groups: `K` of clusters and mixture; `rank` by default.
        concentration: parameter of the Dirichlet law, for each of the `K` components.
        minority_share: share of the users that carries the last direction, 0.1 by default; of
            clusters the share of the smallest group. The (other) groups are as equal as possible.
        norm_bound: `R`: every `||Delta_i||_F <= R`; `None` for no bound.
        user_norms: `"random"` (as the directions fall, lowered to `R` where needed), `"equal"`
            (every `||Delta_i||_F` the same) or `"lognormal"`: directions `orth(D G)`, D diagonal
            and G Gaussian, so that norms follow D about, and the spectrum exactly what is asked.
        norm_spread: standard deviation of `log D_ii` for lognormal norms.
        count_spread: standard deviation of the log of the users' numbers of pairs; their mean is
            the number asked for (`World.counts`). 0 for equal numbers.
        base_norm: Frobenius norm of `theta_init`; 0 gives no base model.
        features: law of the feature difference `x`: `"gaussian"` `N(0, I)`; `"sphere"`, uniform
            with `||x||_F^2 = d1 d2`; `"bounded"`, independent entries uniform on `+-sqrt 3`; these
            have `E[vec x vec x'] = I`. `"anisotropic"`: Gaussian, `E[vec x vec x'] = S (x) I` with
            Haar directions and geometric eigenvalues of S, its trace d1. `"degenerate"`: Gaussian,
            without the component along one direction of R^d1, at 45 degrees to `B^<>`.
            `"trajectories"`: differences of two trajectories of the decision problem's behaviours.
        feature_condition: largest over smallest eigenvalue of the anisotropic S.
        link: `"logistic"`, `"probit"`, `"laplace"`, `"label_flip"` (`"label_flip:0.2"` for a rate
            of 0.2) or `"identity"`.
        noise: standard deviation of the labels under the identity link.
        decision: the decision problem in which values are measured, or `None` for none.
    """

    n_users: int = 32
    d1: int = 64
    d2: int = 1
    rank: int = 4
    nu: float = 1.0
    condition: float = 2.0
    deficiency: int = 0
    tail: float = 0.0
    tail_shape: str = "flat"
    tail_decay: float = 1.0
    population: str = "haar"
    n_groups: int | None = None
    concentration: float = 1.0
    minority_share: float | None = None
    norm_bound: float | None = None
    user_norms: str = "random"
    norm_spread: float = 1.0
    count_spread: float = 0.0
    base_norm: float = 0.0
    features: str = "gaussian"
    feature_condition: float = 10.0
    link: str = "logistic"
    noise: float = 1.0
    decision: DecisionConfig | None = None

    def __post_init__(self) -> None:
        for name in ("n_users", "d1", "d2"):
            checks.integer(name, getattr(self, name), low=1)
        checks.integer(
            "rank",
            self.rank,
            low=1,
            high=self.largest_rank,
            remedy=f"the limit is min(d1, N d2) = min({self.d1}, {self.n_users * self.d2})",
        )
        checks.real("nu", self.nu, above=0.0, remedy="nu = sigma_k^2 / N is the size of the model")
        checks.real("condition", self.condition, low=1.0, remedy="it is sigma_1 / sigma_k")
        checks.real("tail", self.tail, low=0.0, remedy="it is sqrt(Sigma_tail / N)")
        checks.real("tail_decay", self.tail_decay, low=0.0)
        checks.real("base_norm", self.base_norm, low=0.0)
        checks.real("noise", self.noise, above=0.0)
        checks.choice("tail_shape", self.tail_shape, TAIL_SHAPES)
        links.get_link(self.link)
        if self.norm_bound is not None:
            checks.real("norm_bound", self.norm_bound, above=0.0, remedy="or None for no bound")
        checks.integer(
            "deficiency", self.deficiency, low=0, high=self.rank - 1, remedy="rank - 1 at most"
        )
        checks.require(
            self.deficiency == 0 or self.tail == 0.0,
            f"tail = {self.tail:g} must be 0 with deficiency = {self.deficiency}: it would take "
            "the place of the directions that are missing; lower rank instead of the deficiency",
        )
        self._check_features()
        self._check_population()
        self._check_decision()

    def _check_features(self) -> None:
        checks.choice("features", self.features, (*FEATURE_LAWS, TRAJECTORIES))
        checks.real(
            "feature_condition", self.feature_condition, low=1.0, remedy="1 is the gaussian law"
        )
        checks.real("count_spread", self.count_spread, low=0.0, high=_WIDEST_SPREAD)
        checks.require(
            self.features != "degenerate" or self.true_rank < self.d1,
            f"degenerate features need a direction outside B^<>, and its rank {self.true_rank} = "
            "d1; lower rank",
        )

    def _check_decision(self) -> None:
        """What a construction of decisions asks of the users."""
        checks.require(
            self.decision is None or isinstance(self.decision, DecisionConfig),
            f"decision must be a DecisionConfig or None, got {type(self.decision).__name__}",
        )
        checks.require(
            self.features != TRAJECTORIES or self.decision is not None,
            "features = 'trajectories' needs a decision problem; give decision = DecisionConfig()",
        )
        if self.decision is None:
            return
        mdp, n_states = self.decision.mdp, self.decision.n_states
        checks.require(
            mdp != "margin" or (n_states % self.n_users == 0 and self.d1 * self.d2 > 1),
            f"mdp = 'margin' needs d1 d2 > 1 and n_states = {n_states} to be a multiple of N = "
            f"{self.n_users}: every user has contexts of his own",
        )
        checks.require(
            mdp != "lower_bound" or (n_states == self.true_rank and self.d2 == 1),
            f"mdp = 'lower_bound' has one context for each of k = {self.true_rank} directions and "
            f"needs d2 = 1, got n_states = {n_states} and d2 = {self.d2}",
        )
        checks.require(
            mdp != "texts" or self.d2 == 1,
            f"mdp = 'texts' has features of d2 = 1, got d2 = {self.d2}",
        )
        checks.require(
            self.decision.behaviour != "expert" or self.base_norm > 0.0,
            "behaviour = 'expert' takes the best action under the base reward; set base_norm above "
            "0",
        )

    def _check_population(self) -> None:
        checks.choice("population", self.population, POPULATIONS)
        checks.choice("user_norms", self.user_norms, USER_NORMS)
        checks.real("norm_spread", self.norm_spread, low=0.0, high=_WIDEST_SPREAD)
        checks.real("concentration", self.concentration, above=0.0)
        if self.n_groups is not None:
            checks.integer("n_groups", self.n_groups, low=1, remedy="or None for the rank")
        if self.minority_share is not None:
            checks.real("minority_share", self.minority_share, above=0.0, high=1.0)
        if self.population == "haar":
            return
        for name, value, usual in (
            ("norm_bound", self.norm_bound, None),
            ("user_norms", self.user_norms, "random"),
        ):
            checks.require(
                value == usual,
                f"{name} = {value!r} needs population = 'haar', got {self.population!r}: norms are "
                "set user by user, which would undo who shares what with whom; set "
                f"{name} = {usual!r}",
            )
        if self.population == "signs":
            checks.require(
                self.n_users & (self.n_users - 1) == 0 and self.rank <= self.n_users,
                f"population = 'signs' needs N a power of two and at least k = {self.rank}, got "
                f"{self.n_users}: rows of a Hadamard matrix are orthogonal",
            )
            for name, value, wanted in (
                ("d2", self.d2, 1),
                ("condition", self.condition, 1.0),
                ("tail", self.tail, 0.0),
                ("deficiency", self.deficiency, 0),
            ):
                checks.require(
                    value == wanted,
                    f"population = 'signs' needs {name} = {wanted:g}, got {value:g}: all its "
                    "singular values are equal",
                )
        elif self.population == "minority":
            checks.require(
                self.minority_size >= 1,
                f"minority_share = {self.minority_share or MINORITY_SHARE:g} of N = {self.n_users} "
                f"is nobody; raise it to at least {1 / self.n_users:.4g}",
            )
        elif self.population == "core":
            checks.require(
                self.rank < self.d2,
                f"population = 'core' needs rank < d2, got {self.rank} and {self.d2}: every "
                "right space has dimension d2 at most; raise d2 or lower rank",
            )
        else:
            self._check_groups()

    def _check_groups(self) -> None:
        groups, least = self.groups, -(-self.true_rank // self.d2)
        checks.require(
            least <= groups <= self.n_users,
            f"{self.population} with n_groups = {groups} (the rank by default) must have at least "
            f"rank / d2 = {least} groups and at most N = {self.n_users}; change n_groups",
        )
        if self.population != "clusters" or self.minority_share is None:
            return
        checks.require(
            1 <= self.minority_size <= self.n_users // groups,
            f"minority_share = {self.minority_share:g} makes {self.minority_size} of N = "
            f"{self.n_users} users the smallest of {groups} groups: it must be 1 to "
            f"{self.n_users // groups}; change minority_share or n_groups",
        )

    @property
    def largest_rank(self) -> int:
        """`min(d1, N d2)`, the rank of an unrestricted `Delta`."""
        return min(self.d1, self.n_users * self.d2)

    @property
    def sigma_k(self) -> float:
        """Definition 4.1's `sigma_k(Delta*)`: `sqrt(N nu)`, or 0 with a deficiency."""
        return 0.0 if self.deficiency else self.smallest_value

    @property
    def smallest_value(self) -> float:
        """`sqrt(N nu)`: the smallest positive one of the top `k` singular values."""
        return math.sqrt(self.n_users * self.nu)

    @property
    def true_rank(self) -> int:
        """`k - deficiency`: the columns of `B^<>`."""
        return self.rank - self.deficiency

    @property
    def groups(self) -> int:
        """`K` of clusters and mixture."""
        return self.rank if self.n_groups is None else self.n_groups

    @property
    def minority_size(self) -> int:
        """Users of the minority, or of the smallest cluster where its share is given."""
        share = MINORITY_SHARE if self.minority_share is None else self.minority_share
        return round(share * self.n_users)
