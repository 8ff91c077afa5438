"""Pairs per user that a statement asks for: the smallest n at which it falls to a target."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence

from simrlhf.core import checks
from simrlhf.theory.bracketing import log_bracketing_number
from simrlhf.theory.subspaces import distance_ceiling, theorem_4_1

# integers are exact in float64 up to here; a larger sample counts as none
LARGEST_SAMPLE = 2**53


def smallest_sample(
    value: Callable[[int], float],
    target: float,
    candidates: Sequence[int],
    *,
    start: float | None = None,
) -> int | None:
    """First candidate n at which a decreasing `value(n)` is at most `target`.

    The search begins at the first candidate from `start` on; without a start the last candidate is
    tried, and where `n^{-1/2}` through its value meets the target is the start. From there the step
    doubles until the answer is enclosed, and bisection finds it. Fails when `value` is not
    decreasing over the candidates: the answer then meets the target and the candidate before it
    does not, but a smaller one may.

    Args:
        value: called about `2 log2(len(candidates))` times at most, some n twice; NaN counts as
            above any target.
        target: positive.
        candidates: ascending and positive; a `range` takes no memory.
        start: a guess of the answer, which spares the last candidate where that is dear.

    Returns:
        The candidate, or `None` where no candidate meets the target.
    """
    target = checks.real("target", target, above=0.0)
    checks.require(len(candidates) > 0, "candidates is empty; give at least one sample size")

    def meets(n_pairs: int) -> bool:
        return value(n_pairs) <= target

    last = len(candidates) - 1
    if start is None:
        best = value(candidates[last])
        if not best <= target:
            return None
        start = candidates[last] * (best / target) ** 2
    # candidates[high] meets the target; candidates[low] does not, or low is -1
    low = high = bisect.bisect_left(candidates, start, hi=last)
    step = 1
    if meets(candidates[high]):
        while high - step >= 0 and meets(candidates[high - step]):
            high, step = high - step, 2 * step
        low = max(high - step, -1)
    else:
        while low + step < last and not meets(candidates[low + step]):
            low, step = low + step, 2 * step
        high = min(low + step, last)
        if high == last and (low == last or not meets(candidates[last])):
            return None
    return candidates[bisect.bisect_left(candidates, True, low + 1, high, key=meets)]


def limit_sample_size(trace: float, target: float) -> int | None:
    """Pairs per user at which an efficiency limit is `target` (L1, L2).

        smallest n with sqrt(trace / n) <= target,   n = trace / target^2 rounded up

    A limit is exact to first order in `1 / n` only: a fit at this n is somewhat further off.

    Args:
        trace: the limit of `n E[error^2]`: `subspace_limit(...).value`, or the mean over users of
            `tr(Sigma Cov_i)`; infinite where the subspace is not identified.
        target: root mean square error wanted.

    Returns:
        n, or `None` where the trace is infinite or n would exceed `2^53`.

    Raises:
        InputError: a target that is not positive, a trace that is negative or NaN.
    """
    target = checks.real("target", target, above=0.0)
    checks.require(trace >= 0.0, f"trace = {trace} must be at least 0")
    return smallest_sample(lambda n: math.sqrt(trace / n), target, range(1, LARGEST_SAMPLE + 1))


def theorem_4_1_sample_size(
    target: float,
    *,
    n_users: int,
    d1: int,
    d2: int,
    rank: int,
    nu: float,
    tail_energy: float,
    delta: float,
    model_class: str = "share_b",
    constant: float = 1.0,
) -> int | None:
    """Pairs per user at which Theorem 4.1, as printed, falls to `target`.

        smallest n with  c_1^2 [ D log(N n / delta) / (N n nu) + (1 / nu) sqrt(Sigma_tail / N) ]
                         <= target^2,   D the dimension of Proposition 1

    Where `log(N n / delta) / n` still rises n is no candidate (`falling_samples`).

    Args:
        target: subspace distance wanted, below the ceiling `sqrt(min(k, d1 - k))`.
        n_users, d1, d2, rank, nu, tail_energy, constant: as in `theorem_4_1`.
        delta, model_class: as in `log_bracketing_number`. Classes other than `share_b` give what
            the paper compares with (Proposition 1, Remark 3): their count in the same formula.

    Returns:
        n, or `None` where the bias term alone is at least the target, or n would exceed `2^53`.

    Raises:
        InputError: a target outside its range, or sizes that `theorem_4_1` refuses.
    """
    ceiling = distance_ceiling(rank, d1)
    target = checks.real("target", target, above=0.0)
    checks.require(
        target < ceiling,
        f"target = {target:.12g} must be below {ceiling:.12g} = sqrt(min(k, d1 - k)), which no "
        "subspace distance exceeds; lower the target",
    )

    def printed(n_pairs: int) -> float:
        size = log_bracketing_number(
            n_users=n_users,
            n_pairs=n_pairs,
            d1=d1,
            d2=d2,
            rank=rank,
            delta=delta,
            model_class=model_class,
        )
        return theorem_4_1(
            log_bracketing=size.value,
            n_users=n_users,
            n_pairs=n_pairs,
            nu=nu,
            tail_energy=tail_energy,
            rank=rank,
            d1=d1,
            constant=constant,
        ).value

    return smallest_sample(printed, target, falling_samples(n_users=n_users, delta=delta))


def falling_samples(*, n_users: int, delta: float) -> range:
    """Numbers of pairs at which `log(N n / delta) / n` falls.

    `log(c n) / n` falls from `c n = e` on only, `c = N / delta`; below it rises from nonsense (zero
    at `c n = 1`).
    """
    n_users = checks.integer("n_users", n_users, low=1)
    delta = checks.real("delta", delta, above=0.0, high=1.0)
    return range(1 + int(math.e * delta / n_users), LARGEST_SAMPLE + 1)
