"""Pairs per user for a wanted mean value gap: Remark 3, and what Corollary 4.1 makes of it."""

from __future__ import annotations

from collections.abc import Callable

from simrlhf.core import checks
from simrlhf.theory.bracketing import log_bracketing_number
from simrlhf.theory.sample_size import (
    LARGEST_SAMPLE,
    falling_samples,
    limit_sample_size,
    smallest_sample,
)
from simrlhf.theory.statement import ingredient
from simrlhf.theory.value_gaps import corollary_4_1

READINGS = ("printed", "corollary")
REMARK_3_CLASSES = ("share_b", "full", "park")


def pairs_needed(
    target: float,
    *,
    n_users: int,
    d1: int,
    d2: int,
    rank: int,
    nu: float,
    tail_energy: float,
    delta: float,
    reading: str = "printed",
    model_class: str = "share_b",
    constant: float = 1.0,
) -> int | None:
    """Pairs per user at which the mean value gap is promised to be at most `target` (Remark 3).

    * `printed`: smallest n with `(Sigma_tail / N)^{1/4} + c D log(N / delta) / (N n) <= target`,
      which grows as `1 / eps`;
    * `corollary`: smallest n with `corollary_4_1(n) <= target`, which grows as `1 / (nu eps^2)`.

    `eps` is the target less the bias that no n removes: `(Sigma_tail / N)^{1/4}` as printed, in
    squares `(1 / nu) sqrt(Sigma_tail / N)` by the corollary. Remark 3 follows from the corollary
    only if a root and `1 / nu` are dropped.

    | class   | printed D     | by the corollary                                                  |
    | share_b | k (d1 + N d2) | Proposition 1 in Corollary 4.1                                    |
    | park    | k (d1 + N)    | the same; d2 = 1 and no tail; their own theorem has k for `1 / nu` |
    | full    | N d1 d2       | k = d1, where no subspace is left to find:                        |
    |         |               | `c sqrt((d1 d2 + log(N / delta)) / n)`, no bias and no `1 / nu`   |

    Args:
        target: mean value gap wanted, bias included.
        n_users, d1, d2, rank, nu, tail_energy, delta: as in `corollary_4_1`; those that a reading
            or a class does not use are ignored, so that one set serves all.
        reading, model_class: rows of the tables.
        constant: c of the printed `O(.)`, where it multiplies n, or `c_3` of the corollary, where
            its square does.

    Returns:
        n, or `None` where the bias alone is at least the target, or n would exceed `2^53`.

    Raises:
        InputError: unknown reading or class, a target that is not positive, impossible sizes, or
            `park` with `d2 > 1` or a tail.
    """
    checks.choice("reading", reading, READINGS)
    checks.choice("model_class", model_class, REMARK_3_CLASSES)
    target = checks.real("target", target, above=0.0)
    tail_energy = ingredient("tail_energy", tail_energy)
    if model_class == "park":
        checks.require(
            d2 == 1 and tail_energy == 0.0,
            f"class 'park' has d2 = 1 and no tail, got d2 = {d2} and tail_energy = {tail_energy}; "
            "take 'share_b'",
        )
    logarithm = log_bracketing_number(
        n_users=n_users,
        n_pairs=1.0,  # log(N n / delta) is then the logarithm of Remark 3
        d1=d1,
        d2=d2,
        rank=rank,
        delta=delta,
        model_class="full" if model_class == "full" else "share_b",
        constant=constant,
    )
    if reading == "printed":
        bias = 0.0 if model_class == "full" else (tail_energy / n_users) ** 0.25
        if bias >= target:
            return None
        return smallest_sample(
            lambda n: logarithm.value / (n_users * n), target - bias, range(1, LARGEST_SAMPLE + 1)
        )
    if model_class == "full":
        entries = d1 * d2 + logarithm.terms["log_factor"]
        return limit_sample_size(constant * constant * entries, target)
    promised = _mean_gap(
        n_users=n_users,
        d1=d1,
        d2=d2,
        rank=rank,
        nu=nu,
        tail_energy=tail_energy,
        delta=delta,
        constant=constant,
    )
    return smallest_sample(promised, target, falling_samples(n_users=n_users, delta=delta))


def _mean_gap(
    *,
    n_users: int,
    d1: int,
    d2: int,
    rank: int,
    nu: float,
    tail_energy: float,
    delta: float,
    constant: float,
) -> Callable[[int], float]:
    """Corollary 4.1 with Proposition 1 in it, as a function of n."""

    def promised(n_pairs: int) -> float:
        size = log_bracketing_number(
            n_users=n_users, n_pairs=n_pairs, d1=d1, d2=d2, rank=rank, delta=delta
        )
        return corollary_4_1(
            log_bracketing=size.value,
            n_users=n_users,
            n_pairs=n_pairs,
            nu=nu,
            tail_energy=tail_energy,
            rank=rank,
            d2=d2,
            delta=delta,
            constant=constant,
        ).value

    return promised
