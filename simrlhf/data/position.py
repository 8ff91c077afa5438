"""Position bias: how often the item that stands first is preferred."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from simrlhf.core import statistics
from simrlhf.core.statistics import Interval
from simrlhf.data import quality
from simrlhf.data.quality import Questions

# upper end of a 95 % interval
_UPPER = 0.975
# leads in all whose law is computed exactly: a tenth of a second
_MOST_EXACT = 20_000


class Position(NamedTuple):
    """How often the item that stands first is preferred.

    Attributes:
        answers, first: `(N,)` strict answers, and those for the first.
        pairs, pairs_first: `(N,)` pairs to which the user's answers lean, first or second in sum,
            and those to which they lean first.
        p_values: `(N,)` two-sided exact binomial test of one half over these pairs; 1 without any.
        adjusted: `(N,)` after Benjamini and Hochberg.
        n_pairs: pairs with strict answers of anyone.
        share: of the first among all strict answers, with a 95 % interval.
        p_value: two-sided test of one half for `share`.
        n_both: pairs answered in both orders.
        both: over these, the mean share of the first, each order counting one half, with a 95 %
            interval: free of which item is better, so 1/2 without position bias. `None` where
            there are fewer than two.
    """

    answers: np.ndarray
    first: np.ndarray
    pairs: np.ndarray
    pairs_first: np.ndarray
    p_values: np.ndarray
    adjusted: np.ndarray
    n_pairs: int
    share: Interval
    p_value: float
    n_both: int
    both: Interval | None


def find_position(
    user: np.ndarray, asked: Questions, side: np.ndarray, *, n_users: int
) -> Position | None:
    """Share of the first-standing item among strict answers, in all, by user and in both orders.

    All but the both-order share take the order of every pair as drawn at random; otherwise a share
    off one half may mean that the better item stands first more often. Answers to one pair lean
    alike, so the pair is the unit: what counts in a test is a pair's lead, its answers for the
    first minus those for the second. A user's test is a sign test of the user's leads other than
    zero; for the tests and the interval of all answers see `_test_signs` and `_share_of_first`.

    Returns:
        `None` without strict answers.
    """
    strict = side != 0
    if not strict.any():
        return None
    # an item beside itself: nothing makes two such answers alike
    unit = np.where(asked.pair < 0, asked.pair.size + np.arange(asked.pair.size), asked.pair)
    unit = np.unique(unit[strict], return_inverse=True)[1]
    owner, question = quality.by_user(user[strict], unit)
    lead = np.bincount(question, side[strict])
    pairs = np.bincount(owner[lead != 0], minlength=n_users)
    pairs_first = np.bincount(owner[lead > 0], minlength=n_users)
    smaller = np.minimum(pairs_first, pairs - pairs_first)
    p_values = np.minimum(1.0, 2.0 * scipy.stats.binom.cdf(smaller, pairs, 0.5))
    adjusted, some = np.ones(n_users), pairs > 0
    adjusted[some] = scipy.stats.false_discovery_control(p_values[some])
    answers, leads = np.bincount(unit), np.bincount(unit, side[strict]).astype(int)
    n_both, both = _both_orders(asked, side)
    return Position(
        answers=np.bincount(user[strict], minlength=n_users),
        first=np.bincount(user[side > 0], minlength=n_users),
        pairs=pairs,
        pairs_first=pairs_first,
        p_values=p_values,
        adjusted=adjusted,
        n_pairs=answers.size,
        share=_share_of_first(answers, leads),
        p_value=_test_signs(leads),
        n_both=n_both,
        both=both,
    )


def _share_of_first(answers: np.ndarray, leads: np.ndarray) -> Interval:
    """Share of the first, and a Clopper-Pearson interval for the effective number of answers.

    With `n_q` answers to pair `q`, `f_q` of them for the first, the share is
    `s = sum f_q / sum n_q`, and `k = (sum n_q)^2 / sum n_q^2` pairs of equal size would tell as
    much as these. The variance of `s` is `v = k / (k - 1) sum (f_q - s n_q)^2 / (sum n_q)^2`, and

        n = s (1 - s) / v (z / t_{k - 1})^2

    the effective number, at most that of the answers; where `v = 0`, `k`. (E. L. Korn and
    B. I. Graubard, Survey Methodology 24, 1998, with `k` for the number of pairs, since few of them
    may hold most answers.) Covers too little where few pairs are nearly all of one mind: with share
    .9, 10 pairs of 20 answers and pairs' own shares Beta(.9, .1) in .88 of draws, with 20 in .93.
    From one pair nothing follows: [0, 1].
    """
    total, net = answers.sum(), leads.sum()
    share = float(0.5 + 0.5 * net / total)
    if answers.size == 1:
        return Interval(share, 0.0, 1.0)
    equal = total**2 / (answers @ answers)
    rest = (leads * total - net * answers) / (2.0 * total**2)  # whole numbers: exact where it is 0
    variance = equal / (equal - 1) * (rest @ rest)
    effective = equal
    if variance > 0:
        wider = scipy.stats.t.ppf(_UPPER, equal - 1) / scipy.stats.norm.ppf(_UPPER)
        effective = min(share * (1 - share) / variance / wider**2, total)
    first, second = effective * share, effective * (1 - share)
    low = scipy.stats.beta.ppf(1 - _UPPER, first, second + 1) if first > 0 else 0.0
    high = scipy.stats.beta.ppf(_UPPER, first + 1, second) if second > 0 else 1.0
    return Interval(share, float(low), float(high))


def _test_signs(leads: np.ndarray) -> float:
    """Two-sided p-value of `|sum_q leads_q|` where every lead has either sign with chance one half.

    Exact for leads up to 20,000 in all; beyond, the normal limit.
    """
    sizes, counts = np.unique(np.abs(leads[leads != 0]), return_counts=True)
    total, net = int(sizes @ counts), abs(int(leads.sum()))
    if total > _MOST_EXACT:
        spread = float(np.sqrt(sizes**2 @ counts))
        return min(1.0, 2.0 * float(scipy.stats.norm.sf(net / spread)))
    # law of what lies on one side, of `total`
    law = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        of_size = np.zeros(size * count + 1)
        of_size[::size] = scipy.stats.binom.pmf(np.arange(count + 1), count, 0.5)
        law = np.convolve(law, of_size)
    return min(1.0, 2.0 * float(law[: (total - net) // 2 + 1].sum()))


def _both_orders(asked: Questions, side: np.ndarray) -> tuple[int, Interval | None]:
    """Pairs answered in both orders, and their mean share of the first.

    A Student-t interval after adding one pair always answered first and one always second, so that
    it has a width where all pairs agree (as A. Agresti and Y. Min, Statistics in Medicine 24, 2005,
    do with half of that for matched pairs).
    """
    real = asked.pair >= 0
    size = int(asked.pair.max(initial=-1)) + 1
    tally = quality.tally_answers(asked.pair[real], asked.swapped[real], side[real], size)
    shown = tally.sum(axis=2)
    both = (shown > 0).all(axis=1)
    # in the swapped order the first-standing item is the pair's other one
    won = np.stack([tally[both, 0, 1], tally[both, 1, 0]], axis=1)
    shares = (won / shown[both]).mean(axis=1)
    if shares.size < 2:
        return shares.size, None
    found = statistics.mean_interval(np.append(shares, [0.0, 1.0]))
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    return shares.size, Interval(float(shares.mean()), low, high)
