"""`WorldConfig`: the settings of a synthetic world, checked when they are written down."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simrlhf.core import checks, links

TAIL_SHAPES = ("flat", "power")
USER_NORMS = ("random", "equal")
FEATURE_LAWS = ("gaussian", "sphere")
# the largest tail singular value stays this far below sigma_k, relatively: B^<> is the top-k space
# of Delta*, and recovering it to 1e-10 in float64 needs a gap
EIGENGAP = 1e-3


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """What a world is: sizes, the exact spectrum of `Delta*`, feature law and link.

    `Delta* = [Delta_1 ... Delta_N]` in `R^{d1 x N d2}` has exactly the singular values asked for:
    the top `k` fall geometrically from `sigma_1 = condition sigma_k` to `sigma_k = sqrt(N nu)`
    (Definition 4.1), the others have energy `Sigma_tail = N tail^2`.

    Attributes:
        n_users, d1, d2: `N` and the shape of each `Delta_i`.
        rank: `k`.
        nu: `sigma_k^2 / N`, positive.
        condition: `sigma_1 / sigma_k`, at least 1 (and 1 when `k = 1`, which has one value only).
        tail: `sqrt(Sigma_tail / N)`.
        tail_shape: `"flat"` (equal values) or `"power"` (`sigma_{k+j}` proportional to
            `j^-tail_decay`).
        tail_decay: exponent of the power law.
        norm_bound: `R`: every `||Delta_i||_F <= R`; `None` for no bound.
        user_norms: `"random"` (as the directions fall, lowered to `R` where needed) or `"equal"`
            (every `||Delta_i||_F` the same).
        base_norm: Frobenius norm of `theta_init`; 0 gives no base model.
        features: law of the feature difference `x`: `"gaussian"` `N(0, I)`, or `"sphere"`, uniform
            with `||x||_F^2 = d1 d2`; both have `E[vec x vec x'] = I`.
        link: `"logistic"` or `"identity"`.
        noise: standard deviation of the labels under the identity link.
    """

    n_users: int = 32
    d1: int = 64
    d2: int = 1
    rank: int = 4
    nu: float = 1.0
    condition: float = 2.0
    tail: float = 0.0
    tail_shape: str = "flat"
    tail_decay: float = 1.0
    norm_bound: float | None = None
    user_norms: str = "random"
    base_norm: float = 0.0
    features: str = "gaussian"
    link: str = "logistic"
    noise: float = 1.0

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
        checks.choice("user_norms", self.user_norms, USER_NORMS)
        checks.choice("features", self.features, FEATURE_LAWS)
        links.get_link(self.link)
        if self.norm_bound is not None:
            checks.real("norm_bound", self.norm_bound, above=0.0, remedy="or None for no bound")

    @property
    def largest_rank(self) -> int:
        """`min(d1, N d2)`, the rank of an unrestricted `Delta`."""
        return min(self.d1, self.n_users * self.d2)

    @property
    def sigma_k(self) -> float:
        """`sqrt(N nu)`."""
        return math.sqrt(self.n_users * self.nu)
