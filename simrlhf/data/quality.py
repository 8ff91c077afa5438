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
        alpha: Krippendorff's, or `None` where there is no couple.
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
        p_values: `(N,)` two-sided exact binomial test of one half; 1 without answers.
        adjusted: `(N,)` after Benjamini and Hochberg.
        share: of the first among all strict answers, with a 95 % interval.
        p_value: two-sided test of one half for `share`.
        n_both: pairs answered in both orders.
        both: over these, the mean share of the first, each order counting one half, with a 95 %
            interval: free of which item is better, so 1/2 without position bias. `None` where
            there are fewer than two.
    """

    answers: np.ndarray
    first: np.ndarray
    p_values: np.ndarray
    adjusted: np.ndarray
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

    Which item of a pair is called the first is arbitrary, so `alpha` is taken with every pair
    entered in both orders (chance agreement is then one half).
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
    return Agreement(
        np.bincount(owner, counts[pair].sum(axis=1) - 1, n_users).astype(int),
        np.bincount(owner, counts[pair, value] - 1, n_users).astype(int),
        int((counts.sum(axis=1) >= 2).sum()),
        krippendorff_alpha(np.concatenate([counts, counts[:, ::-1]])),
    )


def krippendorff_alpha(counts: np.ndarray) -> float | None:
    """Krippendorff's alpha for nominal values.

    With `n_uc` values `c` of unit `u`, `m_u = sum_c n_uc >= 2`, `n = sum m_u`, `n_c = sum_u n_uc`,

        1 - D_o / D_e,   1 - D_o = sum_uc n_uc (n_uc - 1) / (m_u - 1) / n,
                         1 - D_e = sum_c n_c (n_c - 1) / (n (n - 1)).

    Args:
        counts: `(units, values)`; units with fewer than two values are left out.

    Returns:
        `alpha`: 1 for full agreement, 0 for chance; `None` where nothing is compared or all values
        are equal.
    """
    counts = counts[counts.sum(axis=1) >= 2].astype(float)
    if len(counts) == 0:
        return None
    size, total = counts.sum(axis=1), counts.sum()
    observed = 1.0 - float((counts * (counts - 1)).sum(axis=1) @ (1.0 / (size - 1))) / total
    of_value = counts.sum(axis=0)
    expected = 1.0 - float((of_value * (of_value - 1)).sum()) / (total * (total - 1))
    return 1.0 - observed / expected if expected > 0 else None


def find_position(
    user: np.ndarray, asked: Questions, side: np.ndarray, *, n_users: int
) -> Position | None:
    """Share of the first-standing item among strict answers, in all, by user and in both orders.

    All but the both-order share take the order of every pair as drawn at random; otherwise a share
    off one half may mean that the better item stands first more often. Answers to one pair lean
    alike, so in all answers the pair is the unit: with `n_q` strict answers to pair `q`, `f_q` of
    them for the first, the share is `s = sum f_q / sum n_q`, its variance
    `sum (f_q - s n_q)^2 / (sum n_q)^2`, and `sum (f_q - n_q / 2) / (sum (f_q - n_q / 2)^2)^{1/2}`
    is compared with a standard normal (a test by random signs, for many pairs).

    Returns:
        `None` without strict answers.
    """
    strict = side != 0
    if not strict.any():
        return None
    answers = np.bincount(user[strict], minlength=n_users)
    first = np.bincount(user[side > 0], minlength=n_users)
    smaller = np.minimum(first, answers - first)
    p_values = np.minimum(1.0, 2.0 * scipy.stats.binom.cdf(smaller, answers, 0.5))
    adjusted, some = np.ones(n_users), answers > 0
    adjusted[some] = scipy.stats.false_discovery_control(p_values[some])
    share, p_value = _share_of_first(asked, side)
    n_both, both = _both_orders(asked, side)
    return Position(answers, first, p_values, adjusted, share, p_value, n_both, both)


def _share_of_first(asked: Questions, side: np.ndarray) -> tuple[Interval, float]:
    strict = side != 0
    # an item beside itself: nothing makes two such answers alike
    unit = np.where(asked.pair < 0, asked.pair.size + np.arange(asked.pair.size), asked.pair)
    unit = np.unique(unit[strict], return_inverse=True)[1]
    answers = np.bincount(unit)
    lead = np.bincount(unit, 0.5 * side[strict])
    share = float(0.5 + lead.sum() / answers.sum())
    error = np.linalg.norm(lead - (share - 0.5) * answers) / answers.sum()
    half = float(scipy.stats.norm.ppf(0.975) * error)
    spread = np.linalg.norm(lead)
    p_value = 2 * scipy.stats.norm.sf(abs(lead.sum()) / spread) if spread > 0 else 1.0
    return _as_share(Interval(share, share - half, share + half)), float(p_value)


def _both_orders(asked: Questions, side: np.ndarray) -> tuple[int, Interval | None]:
    real = asked.pair >= 0
    size = int(asked.pair.max(initial=-1)) + 1
    tally = _tally(asked.pair[real], asked.swapped[real], side[real], size)
    shown = tally.sum(axis=2)
    both = (shown > 0).all(axis=1)
    # in the swapped order the first-standing item is the pair's other one
    won = np.stack([tally[both, 0, 1], tally[both, 1, 0]], axis=1)
    shares = (won / shown[both]).mean(axis=1)
    return shares.size, _as_share(statistics.mean_interval(shares)) if shares.size >= 2 else None


def _as_share(found: Interval) -> Interval:
    return Interval(found.estimate, max(found.low, 0.0), min(found.high, 1.0))


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
