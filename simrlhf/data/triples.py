"""Intransitive answers: triples of items compared all three ways, and those that are cyclic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

# coin flips make a triple cyclic with this probability
CHANCE = 0.25
# two-paths held at once, and walked in all before the count is given up (about a minute)
_TWO_PATHS_AT_ONCE = 20_000_000
_MOST_TWO_PATHS = 1_000_000_000


class Triples(NamedTuple):
    """Triples of items that one owner compared all three ways, and how many of them are cyclic.

    Attributes:
        compared, cyclic: `(n_owners,)`.
    """

    compared: np.ndarray
    cyclic: np.ndarray


class _Edges(NamedTuple):
    """Strict majorities: `winner` beats `loser`, both numbered apart for every owner."""

    winner: np.ndarray
    loser: np.ndarray
    node_owner: np.ndarray


def chance_error(n_triples: int) -> float:
    """Standard deviation of the share of cyclic triples among coin flips."""
    return (CHANCE * (1 - CHANCE) / n_triples) ** 0.5


def count_triples(
    owner: np.ndarray, pairs: np.ndarray, side: np.ndarray, *, n_owners: int
) -> Triples | None:
    """Count the triples that each owner compared all three ways, and the cyclic ones.

    The answers of an owner to a pair count as their majority, and a tie as no comparison. If the
    three answers of a triple are coin flips, it is cyclic with probability 1/4, and the
    indicators of different triples (of one owner or of several) are uncorrelated, so that their
    number has variance `3/16` for each triple.

    Every triple is walked once, from its item of smallest degree to that of largest (at most
    `m sqrt(2 m)` steps for `m` compared pairs).

    Args:
        owner: `(P,)` in `0 .. n_owners - 1`; all zero pools the answers.
        pairs: `(P, 2)` items.
        side: `(P,)` of the answers: +1 for the first item, -1 for the second, 0 for a tie.

    Returns:
        The counts, or `None` where they take more than 1e9 steps.
    """
    edges = _majorities(owner, pairs, side)
    n_nodes = edges.node_owner.size
    if n_nodes == 0:
        return Triples(*np.zeros((2, n_owners), np.int64))
    # an edge goes up from the node of smaller degree
    degree = np.bincount(np.concatenate([edges.winner, edges.loser]), minlength=n_nodes)
    order = np.argsort(degree, kind="stable")
    place = np.empty(n_nodes, np.int64)
    place[order] = np.arange(n_nodes)
    winner, loser = place[edges.winner], place[edges.loser]
    upper_wins = winner > loser
    won = _matrix(winner[~upper_wins], loser[~upper_wins], n_nodes)
    lost = _matrix(loser[upper_wins], winner[upper_wins], n_nodes)
    both = won + lost
    steps = both @ np.diff(both.indptr)
    if steps.sum() > _MOST_TWO_PATHS:
        return None
    counts = np.zeros((2, n_nodes), np.int64)
    cuts = np.flatnonzero(np.diff(np.cumsum(steps) // _TWO_PATHS_AT_ONCE)) + 1
    for low, high in zip([0, *cuts], [*cuts, n_nodes], strict=True):
        block = slice(low, high)
        counts[0, block] = _closed(both, both, block)
        # a cycle wins (or loses) both steps up and loses (or wins) the long way
        counts[1, block] = _closed(won, lost, block) + _closed(lost, won, block)
    of_node = edges.node_owner[order]
    return Triples(*(np.bincount(of_node, c, n_owners).astype(np.int64) for c in counts))


def _majorities(owner: np.ndarray, pairs: np.ndarray, side: np.ndarray) -> _Edges:
    n_items = int(pairs.max(initial=0)) + 1
    toward_low = np.where(pairs[:, 0] > pairs[:, 1], -side, side)
    low, high = np.sort(pairs.astype(np.int64), axis=1).T
    keep = low < high
    key = ((owner.astype(np.int64) * n_items + low) * n_items + high)[keep]
    edge, index = np.unique(key, return_inverse=True)
    majority = np.bincount(index, toward_low[keep], edge.size)
    edge, majority = edge[majority != 0], majority[majority != 0]
    rest, high = np.divmod(edge, n_items)
    of_owner, low = np.divmod(rest, n_items)
    ends = of_owner * n_items + np.stack([low, high])
    nodes, ends = np.unique(ends, return_inverse=True)
    low, high = ends.reshape(2, -1)
    low_wins = majority > 0
    return _Edges(np.where(low_wins, low, high), np.where(low_wins, high, low), nodes // n_items)


def _matrix(rows: np.ndarray, columns: np.ndarray, size: int) -> scipy.sparse.csr_array:
    ones = np.ones(rows.size, np.int64)
    return scipy.sparse.csr_array((ones, (rows, columns)), shape=(size, size))


def _closed(step: scipy.sparse.csr_array, closing: scipy.sparse.csr_array, block: slice):
    """Two-paths of `step` from each row of the block whose ends are joined in `closing`."""
    return np.asarray((step[block] @ step).multiply(closing[block]).sum(axis=1)).ravel()
