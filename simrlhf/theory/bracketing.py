"""Size of a class of reward vectors, as the paper counts it."""

from __future__ import annotations

import math

from simrlhf.core import checks
from simrlhf.theory.statement import Bound, make_bound

MODEL_CLASSES = ("share_b", "full", "local", "park")


def class_dimension(model_class: str, *, n_users: int, d1: int, d2: int, rank: int) -> int:
    """Number of free entries of a model class as the paper counts them, scale redundancy included.

    `share_b`: `k (d1 + N d2)`; `full`: `N d1 d2`; `local`, one LoRA per user: `N k (d1 + d2)`;
    `park`, a shared `k x d1` representation with linear heads, for d2 = 1: `k (d1 + N)`.

    Raises:
        InputError: an unknown class, sizes below 1, or `park` with d2 other than 1.
    """
    checks.choice("model_class", model_class, MODEL_CLASSES)
    for name, size in (("n_users", n_users), ("d1", d1), ("d2", d2), ("rank", rank)):
        checks.integer(name, size, low=1)
    if model_class == "park":
        checks.integer("d2", d2, high=1, remedy="class park has vectors; share_b has matrices")
    return {
        "share_b": rank * (d1 + n_users * d2),
        "full": n_users * d1 * d2,
        "local": n_users * rank * (d1 + d2),
        "park": rank * (d1 + n_users),
    }[model_class]


def log_bracketing_number(
    *,
    n_users: int,
    n_pairs: float,
    d1: int,
    d2: int,
    rank: int,
    delta: float,
    model_class: str = "share_b",
    constant: float = 1.0,
) -> Bound:
    """Log of the bracketing number over the failure probability (Proposition 1, as printed).

        log(N_br(1 / (N n)) / delta) <= constant * dimension * log(N n / delta)

    What is printed, and returned, is the log of the *ratio* `N_br / delta`: `log(1 / delta)` is
    inside and must not be added again. The paper gives no constant.

    Args:
        n_users, n_pairs: N users with n pairs each (the mean where users differ).
        d1, d2, rank: shape of a deviation, and k; `full` ignores the rank.
        delta: failure probability, in (0, 1].
        model_class: one of `MODEL_CLASSES`; the dimensions are those of `class_dimension`.
        constant: the constant behind the printed `O(.)`.

    Returns:
        A `Bound` with terms `dimension` and `log_factor`; it has no trivial ceiling.

    Raises:
        InputError: as `class_dimension`; `delta` outside (0, 1].
    """
    dimension = class_dimension(model_class, n_users=n_users, d1=d1, d2=d2, rank=rank)
    n_pairs = checks.real("n_pairs", n_pairs, low=1.0)
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    constant = checks.real("constant", constant, above=0.0)
    log_factor = math.log(n_users * n_pairs / delta)
    return make_bound(
        constant * dimension * log_factor,
        terms={"dimension": dimension, "log_factor": log_factor},
        ceiling=math.inf,
        statement="Proposition 1",
    )
