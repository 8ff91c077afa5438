"""What an estimator is: a named way from a checked request to an outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import Link
from simrlhf.estimators.problem import PreferenceSource, Problem, load_problem
from simrlhf.estimators.result import Factors, FitStatus

_LARGEST_BYTES = 2**31


class FittedBase(NamedTuple):
    """How the base reward was found that a fit is to deviate from."""

    status: FitStatus
    data_passes: float


class Request(NamedTuple):
    """A checked call of `fit`, as every estimator receives it.

    Attributes:
        source: the pairs.
        rank: `k`; 0 while `rank="auto"` waits for the choice.
        radius: the norm bound, infinite for none.
        penalty: the weight `lambda` of `nuclear`; `None` lets the estimator choose.
        basis: `(d1, k)` orthonormal, of `oracle` only.
        theta_init: `(d1, d2)`; zero while `waits_for_base`.
        waits_for_base: whether `theta_init` is still to be fitted (`theta_init="global"`).
        fitted_base: how that fit went, once it is done.
        reads_base: false for a class of whole rewards, which starts from nothing.
    """

    source: PreferenceSource
    link: Link
    rank: int
    radius: float
    ridge: float
    penalty: float | None
    init: str | np.ndarray
    basis: np.ndarray | None
    theta_init: np.ndarray
    tolerance: float
    max_iterations: int
    seed: int
    reads_base: bool = True
    waits_for_base: bool = False
    fitted_base: FittedBase | None = None

    @property
    def n_users(self) -> int:
        return self.source.n_users

    @property
    def base(self) -> np.ndarray | None:
        """`theta_init` where it enters the fit: reading the features for it costs a data pass."""
        return self.theta_init if self.reads_base and self.theta_init.any() else None

    @property
    def problem(self) -> Problem:
        """The pairs on the device, the base reward in the offsets."""
        return load_problem(self.source, self.base)


class Tally(NamedTuple):
    """What is counted on the device beside a fit: the pairs' weight, and separated users."""

    total: float
    separated: int


class Outcome(NamedTuple):
    """What every estimator answers.

    Attributes:
        delta: `(N, d1, d2)`.
        basis: `(d1, k)`, or `None` for the top-k left space of `delta`.
        factors: the class's own parameters.
        multipliers: `(N,)` of the norm bound, for the summed loss.
        loss: mean over pairs of the objective that was minimised, penalties included.
        gradient: norm of its KKT residual; NaN where nothing was minimised (UNCERTIFIED).
        stalled: whether it ended at rounding level above the tolerance.
        iterations, data_passes: work done, without the pass for a base reward.
        note: what the user should know of this fit, or nothing.
        tally: `None` where it is still to be counted.
        neg_log_likelihood: mean over pairs; `None` where it is `loss` without the ridge penalty on
            `delta`.
    """

    delta: np.ndarray
    basis: np.ndarray | None
    factors: Factors
    multipliers: np.ndarray
    loss: float
    gradient: float
    stalled: bool
    iterations: int
    data_passes: float
    note: str = ""
    tally: Tally | None = None
    neg_log_likelihood: float | None = None


def full_rank(source: PreferenceSource) -> int:
    """`min(d1, N d2)`, the rank of an aggregate without structure."""
    return min(source.d1, source.n_users * source.d2)


def total_weight(source: PreferenceSource) -> float:
    """Weight of all pairs."""
    return float(sum(chunk.weights.sum() for chunk in source.chunks()))


def require_matrices(name: str, count: int, *, side: int) -> None:
    """Refuse a class that would hold so many square matrices at once in more than 2 GB.

    Raises:
        InputError: it would.
    """
    needed = 8 * count * side**2
    checks.require(
        needed <= _LARGEST_BYTES,
        f"{name} would hold {count:,} matrices of side {side:,} for its users, "
        f"{needed / 1e9:.1f} GB of at most {_LARGEST_BYTES / 1e9:.1f}; reduce the features, for "
        "instance by principal components",
    )


def left_side(d1: int, _: int) -> int:
    return d1


def both_sides(d1: int, d2: int) -> int:
    return d1 * d2


def _any_request(_: Request) -> None:
    return None


@dataclass(frozen=True, repr=False)
class Estimator:
    """An entry of `list_estimators()`: what it is, where it comes from, how it is run.

    Attributes:
        run: any function; where it is a `kernels.Kernel`, `fit_many` can run a batch at once.
        needs_rank: whether the class depends on `rank`, which then must be given.
        rank_limit: the largest `rank` that the class takes.
        accepts: those of `norm_bound`, `ridge` and `penalty` that belong to the class; another is
            refused.
        side: side of the largest dense matrix that it forms, from `d1` and `d2`.
        reads_base: whether `Delta` is a deviation from `theta_init`; false for a class of whole
            rewards, whose `delta` is then what is left of them.
        check: raises `InputError` for a request whose shape the class cannot take.
    """

    name: str
    sentence: str
    reference: str
    run: Callable[[Request], Outcome]
    needs_rank: bool = False
    rank_limit: Callable[[PreferenceSource], int] = full_rank
    accepts: tuple[str, ...] = ("norm_bound", "ridge")
    side: Callable[[int, int], int] = left_side
    reads_base: bool = True
    check: Callable[[Request], None] = _any_request

    def __repr__(self) -> str:
        return f"{self.name}: {self.sentence} [{self.reference}]"
