"""Covers and brackets of the model classes with explicit constants (Proposition 1, Definition 4.2).

A member is a tuple of deviations with `||Delta_i||_F <= R`; two members are `rho` apart when
`max_i ||Delta_i - Delta'_i||_F = rho`.

Cover, proof. A maximal eps-separated set of a ball of radius r in a norm on R^D is a cover inside
the ball of at most `(1 + 2 r / eps)^D` points (compare volumes). `full` needs one such cover for
each user. In `share_b`, `Delta_i = B W_i` with `B'B = I`, so `||W_i||_F <= R` (a rank above d1
counts as d1, which the bound only passes). Cover the operator
ball of B at `rho / (2 R)` and the ball of each `W_i` at `rho / 2`; then

    ||B W - B' W'||_F <= ||B - B'||_op ||W||_F + ||B'||_op ||W - W'||_F <= rho,

and `B' W'` is again a member. `local` does so for every user. `park` (orthonormal representation of
shape (k, d) and heads of norm at most R) is `share_b` at `d2 = 1`.

Brackets, proof. With `X` a bound of `||x||_F`, `|Phi(z) - Phi(z')| <= C_R |z - z'| <= C_R X rho`.
Take `rho = epsilon / (4 N C_R X)`: every member lies within `eta = epsilon / (4 N)` of a point of
the cover, in the probability of either label, for every user and every pair of trajectories. So
`f -+ eta` around the points f of the cover are brackets that hold every member. Their L1 size sums
`2 eta` over N users and two labels: `4 N eta = epsilon`.
"""

from __future__ import annotations

import math

from simrlhf.core import checks
from simrlhf.theory.bracketing import class_dimension
from simrlhf.theory.statement import Bound, ingredient, make_bound, ratio


def log_cover_number(
    model_class: str = "share_b",
    *,
    n_users: int,
    d1: int,
    d2: int,
    rank: int,
    norm_bound: float,
    resolution: float,
) -> Bound:
    """Log of the size of a cover of a model class by members of it (S4).

        log |cover| <= dimension * log(1 + c R / rho),   c = 4, or 2 for `full`

    Args:
        model_class: one of `MODEL_CLASSES`; the dimensions are those of `class_dimension`.
        n_users, d1, d2, rank: sizes of the class; `full` ignores the rank.
        norm_bound: `R`, the bound of every user's Frobenius norm.
        resolution: `rho`, the largest distance of a member from the cover in any user's norm.

    Returns:
        A `Bound` with terms `dimension` and `log_factor`; it has no ceiling. VACUOUS when `rho` is
        0 or `R` infinite.

    Raises:
        InputError: as `class_dimension`; negative numbers.
    """
    dimension = class_dimension(model_class, n_users=n_users, d1=d1, d2=d2, rank=rank)
    norm_bound = ingredient("norm_bound", norm_bound)
    resolution = ingredient("resolution", resolution)
    per_radius = 2.0 if model_class == "full" else 4.0
    steps = ratio(per_radius * norm_bound, resolution)
    log_factor = math.log1p(steps)
    return make_bound(
        dimension * log_factor,
        terms={"dimension": dimension, "log_factor": log_factor},
        ceiling=math.inf,
        statement="S4 (cover)",
    )


def log_bracketing_bound(
    model_class: str = "share_b",
    *,
    n_users: int,
    n_pairs: float,
    d1: int,
    d2: int,
    rank: int,
    norm_bound: float,
    feature_norm: float,
    lipschitz_mean: float,
    delta: float = 1.0,
    size: float | None = None,
) -> Bound:
    """Log of the bracketing number over the failure probability, with constants (Proposition 1).

        log(N_br(epsilon) / delta) <= dimension * log(1 + 4 c N C_R X R / epsilon) + log(1 / delta)

    with c of `log_cover_number`; `share_b` at the printed size `epsilon = 1 / (N n)` has
    `k (d1 + N d2) log(1 + 16 N^2 n C_R X R)`.

    Departure from the printed form: `N^2 n` stands where it has `N n` (one N more from the L1 norm
    over all users), the scale `C_R X R` is there, and `log(1 / delta)` is added once instead of
    multiplied by the dimension.

    Args:
        model_class, n_users, d1, d2, rank, norm_bound: as in `log_cover_number`.
        n_pairs: pairs of each user (the mean where users differ).
        feature_norm: `X`, a bound of `||phi(tau_0) - phi(tau_1)||_F` over all trajectories.
        lipschitz_mean: `C_R`, from `link_constants`.
        delta: failure probability, in (0, 1]; 1 gives `log N_br` itself.
        size: `epsilon`, the L1 size of a bracket over all users and labels; `1 / (N n)` by default.

    Returns:
        A `Bound` with terms `dimension`, `log_factor`, `log_inverse_delta`, `resolution` (rho) and
        `size` (epsilon); it has no ceiling.
    """
    n_pairs = checks.real("n_pairs", n_pairs, low=1.0)
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    checks.integer("n_users", n_users, low=1)
    size = 1.0 / (n_users * n_pairs) if size is None else checks.real("size", size, above=0.0)
    steepness = ingredient("lipschitz_mean", lipschitz_mean) * ingredient(
        "feature_norm", feature_norm
    )
    checks.require(steepness != 0.0, "feature_norm and lipschitz_mean must be above 0")
    resolution = size / (4.0 * n_users * steepness)
    cover = log_cover_number(
        model_class,
        n_users=n_users,
        d1=d1,
        d2=d2,
        rank=rank,
        norm_bound=norm_bound,
        resolution=resolution,
    )
    extra = {"log_inverse_delta": math.log(1.0 / delta), "resolution": resolution, "size": size}
    return make_bound(
        cover.value + math.log(1.0 / delta),
        terms=cover.terms | extra,
        ceiling=math.inf,
        statement="Proposition 1 (explicit)",
    )
