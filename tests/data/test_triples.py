"""Triples: counted as by enumeration, and cyclic by chance as often as coin flips say."""

from itertools import combinations, product

import numpy as np
import pytest

from simrlhf.data import triples
from simrlhf.data.triples import count_triples


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def by_enumeration(owner, pairs, side, n_owners):
    compared, cyclic = np.zeros(n_owners, int), np.zeros(n_owners, int)
    for o in range(n_owners):
        votes: dict = {}
        for (a, b), s in zip(pairs[owner == o].tolist(), side[owner == o].tolist(), strict=True):
            votes[a, b] = votes.get((a, b), 0) + s
            votes[b, a] = votes.get((b, a), 0) - s
        for a, b, c in combinations(range(int(pairs.max()) + 1), 3):
            around = [votes.get(edge, 0) for edge in ((a, b), (b, c), (c, a))]
            compared[o] += all(around)
            cyclic[o] += all(v > 0 for v in around) or all(v < 0 for v in around)
    return compared, cyclic


@pytest.mark.parametrize("at_once", [5, 20_000_000])
def test_triples_are_counted_as_by_enumeration(rng, monkeypatch, at_once):
    monkeypatch.setattr(triples, "_TWO_PATHS_AT_ONCE", at_once)
    for n_rows in (5, 40, 150):
        owner = rng.integers(0, 3, n_rows)
        pairs = rng.integers(0, 9, (n_rows, 2))
        side = rng.choice([-1, 0, 1], n_rows)
        for whose, n_owners in ((owner, 4), (np.zeros_like(owner), 1)):
            found = count_triples(whose, pairs, side, n_owners=n_owners)
            compared, cyclic = by_enumeration(whose, pairs, side, n_owners)
            np.testing.assert_array_equal(found.compared, compared)
            np.testing.assert_array_equal(found.cyclic, cyclic)
    assert 0 < cyclic.sum() < compared.sum()


def test_neither_the_order_of_a_pair_nor_the_names_of_items_matter(rng):
    owner, pairs = rng.integers(0, 3, 200), rng.integers(0, 9, (200, 2))
    side = rng.choice([-1, 1], 200)
    expected = count_triples(owner, pairs, side, n_owners=3)
    flip = rng.random(200) < 0.5
    name = rng.permutation(50)[:9]
    turned = np.where(flip[:, None], pairs[:, ::-1], pairs)
    found = count_triples(owner, name[turned], np.where(flip, -side, side), n_owners=3)
    np.testing.assert_array_equal(found, expected)
    # control: a pair turned without its answer is another answer
    wrong = count_triples(owner, turned, side, n_owners=3)
    assert (wrong.cyclic != expected.cyclic).any()


def test_a_ranking_has_no_cycle_and_a_circle_is_one(rng):
    pairs = np.array(list(combinations(range(12), 2)))
    worth = rng.normal(size=12)
    side = np.where(worth[pairs[:, 0]] > worth[pairs[:, 1]], 1, -1)
    found = count_triples(np.zeros(len(pairs), int), pairs, side, n_owners=1)
    assert (found.compared[0], found.cyclic[0]) == (220, 0)
    circle = np.array([[0, 1], [1, 2], [2, 0]])
    one = count_triples(np.zeros(3, int), circle, np.ones(3, int), n_owners=1)
    assert (one.compared[0], one.cyclic[0]) == (1, 1)


def test_coin_flips_make_a_quarter_cyclic_with_the_variance_of_uncorrelated_triples():
    pairs = np.array(list(combinations(range(5), 2)))
    # all 1024 outcomes of ten coins, as so many owners of one tournament each
    flips = np.array(list(product([-1, 1], repeat=len(pairs))))
    owner = np.repeat(np.arange(len(flips)), len(pairs))
    tiled = np.tile(pairs, (len(flips), 1))
    found = count_triples(owner, tiled, flips.ravel(), n_owners=len(flips))
    share = found.cyclic / found.compared
    assert share.mean() == triples.CHANCE
    assert share.std() == pytest.approx(triples.chance_error(10))
    # rival: triples that share pairs taken as one draw, or as five
    assert abs(share.std() - triples.chance_error(5)) > 0.03


def test_majorities_of_users_who_rank_can_be_cyclic():
    # Condorcet: three users, each with a ranking of his own
    pairs = np.tile([[0, 1], [1, 2], [2, 0]], (3, 1))
    side = np.array([1, 1, -1, -1, 1, 1, 1, -1, 1])
    owner = np.repeat(np.arange(3), 3)
    own = count_triples(owner, pairs, side, n_owners=3)
    np.testing.assert_array_equal(own.cyclic, [0, 0, 0])
    assert count_triples(owner * 0, pairs, side, n_owners=1).cyclic[0] == 1


def test_a_star_of_ten_thousand_items_is_walked_from_its_leaves(rng):
    # a walk from the hub would take 1e8 steps; from the leaves there is nothing to walk
    hub = np.column_stack([np.zeros(10_000, int), np.arange(1, 10_001)])
    closing = np.array([[1, 2], [3, 4]])
    pairs = np.vstack([hub, closing])
    side = np.ones(len(pairs), int)
    found = count_triples(np.zeros(len(pairs), int), pairs, side, n_owners=1)
    assert (found.compared[0], found.cyclic[0]) == (2, 0)


def test_a_count_beyond_the_limit_is_given_up(monkeypatch):
    monkeypatch.setattr(triples, "_MOST_TWO_PATHS", 0)
    pairs = np.array(list(combinations(range(5), 2)))
    owner, side = np.zeros(10, int), np.ones(10, int)
    assert count_triples(owner, pairs, side, n_owners=1) is None
    none = count_triples(owner, pairs, 0 * side, n_owners=1)
    assert none.compared.sum() == 0
