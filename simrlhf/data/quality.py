"""What raw comparisons hold: questions asked again, agreement between users, position bias.

Counts are of rows: a pair of weight 2 counts once here. An answer has a side: +1 where the first
item is preferred (a choice above 1/2), -1 where the second is, 0 for a tie; ties answer nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from simrlhf.core import statistics
from simrlhf.core.statistics import Interval
from simrlhf.data.tables import PairTable

# upper end of a 95 % interval
_UPPER = 0.975
# leads in all whose law is computed exactly: a tenth of a second
_MOST_EXACT = 20_000


class Questions(NamedTuple):
    """What each row asks.

    Attributes:
        pair: `(P,)` number of the pair, the same in both orders; -1 for an item beside itself.
        swapped: `(P,)` true where the pair stands in the other order.
    """

    pair: np.ndarray
    swapped: np.ndarray


class Agreement(NamedTuple):
    """Couples of strict answers to the same pair, and how many of them choose the same item.

    Attributes:
        couples, agreeing: `(N,)` of each user; a couple of two users counts for both.
        n_pairs: pairs with at least one couple.
        alpha: Krippendorff's for a chance agreement of one half, or `None` without a couple.
    """

    couples: np.ndarray
    agreeing: np.ndarray
    n_pairs: int
    alpha: float | None


class Repeats(NamedTuple):
    """Pairs that one user was asked more than once.

    Attributes:
        rows: `(N,)` rows that ask again.
        couples, agreeing: `(N, 2)` couples of strict answers of this user to one pair, and those
            that choose the same item; asked in the same order, and in the swapped one.
    """

    rows: np.ndarray
    couples: np.ndarray
    agreeing: np.ndarray


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


def questions(table: PairTable) -> Questions:
    """Number the pairs: by their two items; differences by their values up to sign and `pair_id`.

    Differences carry no items, so two pairs of different items with equal differences and no
    `pair_id` count as one.
    """
    if table.pairs is not None:
        first, second = table.pairs.astype(np.int64).T
        key = np.minimum(first, second) * table.n_items + np.maximum(first, second)
        swapped, empty = first > second, first == second
    else:
        flat = np.asarray(table.differences, float).reshape(table.n_pairs, -1)
        lead = flat[np.arange(len(flat)), (flat != 0).argmax(axis=1)]
        swapped, empty = lead < 0, lead == 0
        # adding 0 turns -0.0 into 0.0, whose bytes differ
        rows = np.ascontiguousarray(np.where(swapped[:, None], -flat, flat) + 0.0)
        key = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
        if table.pair_ids is not None:
            name = np.unique(table.pair_ids, return_inverse=True)[1]
            key = np.unique(key, return_inverse=True)[1] * np.int64(name.max() + 1) + name
    return Questions(np.where(empty, -1, np.unique(key, return_inverse=True)[1]), swapped)


def find_repeats(user: np.ndarray, asked: Questions, side: np.ndarray, *, n_users: int) -> Repeats:
    """Pairs put to the same user again, and whether the answers agree.

    Args:
        user: `(P,)` in `0 .. n_users - 1`.
        side: `(P,)` of the answers.
    """
    real = asked.pair >= 0
    owner, question = _by_user(user[real], asked.pair[real])
    rows = np.bincount(question, minlength=owner.size)
    tally = _tally(question, asked.swapped[real], side[real], owner.size)
    shown = tally.sum(axis=2)
    couples = np.stack([_couples(shown).sum(axis=1), shown.prod(axis=1)], axis=1)
    agreeing = np.stack([_couples(tally).sum(axis=(1, 2)), tally.prod(axis=1).sum(axis=1)], axis=1)
    return Repeats(
        np.bincount(owner, rows - 1, n_users).astype(int),
        *(_sum_by(owner, counts, n_users) for counts in (couples, agreeing)),
    )


def count_copies(user: np.ndarray, asked: Questions, choice: np.ndarray) -> int:
    """Rows that repeat another one: same user, pair and order, same choice."""
    real = asked.pair >= 0
    rows = np.stack([user, asked.pair, asked.swapped, choice], axis=1)[real]
    return len(rows) - len(np.unique(rows, axis=0))


def find_agreement(
    user: np.ndarray, asked: Questions, side: np.ndarray, *, n_users: int
) -> Agreement:
    """Agreement of users on the same pair; a user's answers to it count as their majority.

    Krippendorff's alpha is `1 - D_o / D_e`. Which item of a pair is called the first is arbitrary,
    so each has half of the answers in expectation and `D_e = 1/2`: alpha is 0 in the mean for coin
    flips. (His own `D_e` draws without replacement from the `n` answers; over every pair in both
    orders, whose `2 n` answers are not free, that would give coin flips `1 / (2 n)`.)
    """
    real = asked.pair >= 0
    chosen = np.where(asked.swapped, -side, side)[real]
    owner, question = _by_user(user[real], asked.pair[real])
    majority = np.sign(np.bincount(question, chosen, owner.size))
    pair = np.zeros(owner.size, np.int64)
    pair[question] = asked.pair[real]
    strict = majority != 0
    owner, pair, value = owner[strict], pair[strict], (majority[strict] > 0).astype(int)
    counts = np.bincount(2 * pair + value, minlength=2 * (int(pair.max(initial=-1)) + 1))
    counts = counts.reshape(-1, 2)
    agreed = observed_agreement(counts)
    return Agreement(
        np.bincount(owner, counts[pair].sum(axis=1) - 1, n_users).astype(int),
        np.bincount(owner, counts[pair, value] - 1, n_users).astype(int),
        int((counts.sum(axis=1) >= 2).sum()),
        None if agreed is None else 2.0 * agreed - 1.0,
    )


def observed_agreement(counts: np.ndarray) -> float | None:
    """Krippendorff's observed agreement for nominal values.

    With `n_uc` values `c` of unit `u`, `m_u = sum_c n_uc >= 2` and `n = sum m_u`,

        1 - D_o = sum_uc n_uc (n_uc - 1) / (m_u - 1) / n

    of `counts` `(units, values)`; units with fewer than two values are left out. `None` where
    nothing is compared.
    """
    counts = counts[counts.sum(axis=1) >= 2].astype(float)
    if len(counts) == 0:
        return None
    agreeing = (counts * (counts - 1)).sum(axis=1) / (counts.sum(axis=1) - 1)
    return float(agreeing.sum() / counts.sum())


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
    owner, question = _by_user(user[strict], unit)
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
    tally = _tally(asked.pair[real], asked.swapped[real], side[real], size)
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


def _by_user(user: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Questions, a pair put to a user: the user of each, and the question of each row."""
    n_pairs = np.int64(pair.max(initial=-1) + 1)
    found, question = np.unique(user.astype(np.int64) * n_pairs + pair, return_inverse=True)
    return found // max(n_pairs, 1), question


def _tally(index: np.ndarray, swapped: np.ndarray, side: np.ndarray, size: int) -> np.ndarray:
    """`(size, 2, 2)` strict answers by order shown and by whether the pair's lower item won."""
    won = (side > 0) != swapped
    cell = 4 * index + 2 * swapped + won
    return np.bincount(cell[side != 0], minlength=4 * size).reshape(size, 2, 2)


def _couples(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) // 2


def _sum_by(owner: np.ndarray, counts: np.ndarray, n_users: int) -> np.ndarray:
    columns = [np.bincount(owner, column, n_users) for column in counts.T]
    return np.stack(columns, axis=1).astype(int)
