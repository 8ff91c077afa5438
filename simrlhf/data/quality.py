"""What raw comparisons hold: questions asked again, and agreement between users.

Counts are of rows: a pair of weight 2 counts once here. An answer has a side: +1 where the first
item is preferred (a choice above 1/2), -1 where the second is, 0 for a tie; ties answer nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

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
    owner, question = by_user(user[real], asked.pair[real])
    rows = np.bincount(question, minlength=owner.size)
    tally = tally_answers(question, asked.swapped[real], side[real], owner.size)
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
    owner, question = by_user(user[real], asked.pair[real])
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


def by_user(user: np.ndarray, pair: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Questions, a pair put to a user: the user of each, and the question of each row."""
    n_pairs = np.int64(pair.max(initial=-1) + 1)
    found, question = np.unique(user.astype(np.int64) * n_pairs + pair, return_inverse=True)
    return found // max(n_pairs, 1), question


def tally_answers(
    index: np.ndarray, swapped: np.ndarray, side: np.ndarray, size: int
) -> np.ndarray:
    """`(size, 2, 2)` strict answers by order shown and by whether the pair's lower item won."""
    won = (side > 0) != swapped
    cell = 4 * index + 2 * swapped + won
    return np.bincount(cell[side != 0], minlength=4 * size).reshape(size, 2, 2)


def _couples(count: np.ndarray) -> np.ndarray:
    return count * (count - 1) // 2


def _sum_by(owner: np.ndarray, counts: np.ndarray, n_users: int) -> np.ndarray:
    columns = [np.bincount(owner, column, n_users) for column in counts.T]
    return np.stack(columns, axis=1).astype(int)
