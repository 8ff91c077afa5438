"""Repeats, agreement and position bias equal slow counts; the tests on them keep their level."""

from itertools import combinations, product

import numpy as np
import pytest

from simrlhf.data import PairTable, quality
from simrlhf.data.quality import Questions

# of `random_table`
N_USERS, N_ITEMS = 5, 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def winners(pairs, side):
    """The item that each row prefers, `None` for a tie."""
    return [
        None if s == 0 else int(p[0] if s > 0 else p[1]) for p, s in zip(pairs, side, strict=True)
    ]


# ---------------------------------------------------------------- questions


def test_a_pair_has_one_number_in_both_orders_and_differences_know_it_by_their_sign(
    rng, random_table
):
    table, pairs, _ = random_table(rng)
    asked = quality.questions(table)
    for i, j in combinations(range(40), 2):
        same = set(pairs[i]) == set(pairs[j]) and pairs[i][0] != pairs[i][1]
        assert same == (asked.pair[i] == asked.pair[j] >= 0)
        if same:
            assert (asked.swapped[i] == asked.swapped[j]) == (pairs[i][0] == pairs[j][0])
    np.testing.assert_array_equal(asked.pair < 0, pairs[:, 0] == pairs[:, 1])
    unnamed = quality.questions(random_table(np.random.default_rng(0), differences=True)[0])
    number = dict(zip(unnamed.pair.tolist(), asked.pair.tolist(), strict=True))
    np.testing.assert_array_equal([number[p] for p in unnamed.pair.tolist()], asked.pair)
    assert len(set(number.values())) == len(number)


def test_equal_differences_under_two_pair_ids_are_two_pairs():
    x = np.array([[1.0, -0.0], [-1.0, 0.0], [1.0, 0.0]])[:, :, None]
    table = PairTable(user_ids=np.zeros(3), choice=np.ones(3), differences=x)
    asked = quality.questions(table)
    np.testing.assert_array_equal(asked.pair, [0, 0, 0])
    np.testing.assert_array_equal(asked.swapped, [False, True, False])
    named = PairTable(
        user_ids=np.zeros(3), choice=np.ones(3), differences=x, pair_ids=np.array(["p", "p", "q"])
    )
    pair = quality.questions(named).pair
    assert pair[0] == pair[1] != pair[2]


# ---------------------------------------------------------------- repeats and agreement


@pytest.mark.parametrize("differences", [False, True])
def test_repeats_are_counted_as_by_hand(rng, differences, random_table):
    table, pairs, side = random_table(rng, differences=differences)
    found = quality.find_repeats(table.user_ids, quality.questions(table), side, n_users=N_USERS)
    won = winners(pairs, side)
    couples, agreeing = np.zeros((N_USERS, 2), int), np.zeros((N_USERS, 2), int)
    seen, again = set(), np.zeros(N_USERS, int)
    for i, user in enumerate(table.user_ids.tolist()):
        key = (user, *sorted(pairs[i].tolist()))
        if pairs[i][0] != pairs[i][1]:
            again[user] += key in seen
            seen.add(key)
        for j in range(i):
            other = (int(table.user_ids[j]), *sorted(pairs[j].tolist()))
            if other != key or pairs[i][0] == pairs[i][1]:
                continue
            if won[i] is not None and won[j] is not None:
                order = int(pairs[i][0] != pairs[j][0])
                couples[user, order] += 1
                agreeing[user, order] += won[i] == won[j]
    assert couples.min() > 0
    np.testing.assert_array_equal(found.rows, again)
    np.testing.assert_array_equal(found.couples, couples)
    np.testing.assert_array_equal(found.agreeing, agreeing)
    # control: reading a swapped answer by its side, not by its item, gives other numbers
    blind = Questions(quality.questions(table).pair, np.zeros(len(side), bool))
    other = quality.find_repeats(table.user_ids, blind, side, n_users=N_USERS)
    assert (other.agreeing.sum(axis=1) != agreeing.sum(axis=1)).any()


def test_copies_are_rows_equal_in_user_pair_order_and_choice(rng, random_table):
    table, pairs, _ = random_table(rng)
    rows = [
        (u, *p.tolist(), c)
        for u, p, c in zip(table.user_ids, pairs, table.choice, strict=True)
        if p[0] != p[1]
    ]
    found = quality.count_copies(table.user_ids, quality.questions(table), table.choice)
    assert found == len(rows) - len(set(rows)) > 0
    # control: answers of 0 and .2 are on one side but no copies
    sides = [(*row[:3], row[3] > 0.5) for row in rows]
    assert found < len(sides) - len(set(sides))


def test_agreement_is_counted_as_by_hand(rng, random_table):
    table, pairs, side = random_table(rng, n_rows=60)
    found = quality.find_agreement(table.user_ids, quality.questions(table), side, n_users=N_USERS)
    # the majority of each user on each pair: sum of +1 for the lower item, -1 for the higher
    votes: dict = {}
    for user, (a, b), s in zip(table.user_ids.tolist(), pairs.tolist(), side.tolist(), strict=True):
        if a != b:
            key = (min(a, b), max(a, b)), user
            votes[key] = votes.get(key, 0) + (s if a < b else -s)
    couples, agreeing, shared = np.zeros(N_USERS, int), np.zeros(N_USERS, int), set()
    for ((p, u), vote), ((q, v), other) in combinations(votes.items(), 2):
        if p == q and u != v and vote and other:
            shared.add(p)
            couples[[u, v]] += 1
            agreeing[[u, v]] += vote * other > 0
    np.testing.assert_array_equal(found.couples, couples)
    np.testing.assert_array_equal(found.agreeing, agreeing)
    assert found.n_pairs == len(shared)
    assert 0 < agreeing.sum() < couples.sum()


def test_agreement_and_alpha_do_not_depend_on_which_item_is_called_the_first(rng, random_table):
    table, pairs, side = random_table(rng)
    flip = rng.random(len(side)) < 0.5
    names = rng.permutation(N_ITEMS)
    other = PairTable(
        user_ids=table.user_ids,
        choice=table.choice,
        items=table.items,
        pairs=names[np.where(flip[:, None], pairs[:, ::-1], pairs)],
    )
    one, turned = (
        quality.find_agreement(t.user_ids, quality.questions(t), s, n_users=N_USERS)
        for t, s in ((table, side), (other, np.where(flip, -side, side)))
    )
    np.testing.assert_array_equal(one.agreeing, turned.agreeing)
    assert one.alpha == pytest.approx(turned.alpha)


def test_alpha_is_zero_for_coin_flips_and_one_for_users_who_agree(rng):
    user, pair = np.repeat(np.arange(4), 2000), np.tile(np.arange(2000), 4)
    asked = Questions(pair, np.zeros(8000, bool))
    flips = rng.choice([-1, 1], 8000)
    # standard error of 2000 pairs with 4 answers each: .013
    assert abs(quality.find_agreement(user, asked, flips, n_users=4).alpha) < 0.05
    alike = rng.choice([-1, 1], 2000)[pair]
    assert quality.find_agreement(user, asked, alike, n_users=4).alpha == 1.0


def test_alpha_of_few_coin_flips_is_zero_in_the_mean():
    # all 16 outcomes of two pairs, each answered by two users
    asked, user = Questions(np.array([0, 0, 1, 1]), np.zeros(4, bool)), np.array([0, 1, 0, 1])
    alphas = [
        quality.find_agreement(user, asked, np.array(flips), n_users=2).alpha
        for flips in product([-1, 1], repeat=4)
    ]
    assert np.mean(alphas) == 0
    # rival: chance drawn without replacement from the table in both orders, 3 of 7: mean 1 / 8
    assert np.mean([1 - (1 - (1 + a) / 2) / (1 - 3 / 7) for a in alphas]) == pytest.approx(1 / 8)
    one = quality.find_agreement(
        user[:2], Questions(*(a[:2] for a in asked)), np.array([1, -1]), n_users=2
    )
    assert one.alpha == -1


def units(*coders):
    """Counts of each value for each unit, from the coders' strings ('.' where one is silent)."""
    values = sorted(set("".join(coders)) - {"."})
    return np.array([[column.count(v) for v in values] for column in zip(*coders, strict=True)])


def test_observed_agreement_gives_the_alpha_of_krippendorffs_examples():
    # K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), examples A and C
    def alpha(counts):
        of_value = counts[counts.sum(axis=1) >= 2].sum(axis=0)
        n = of_value.sum()
        chance = (of_value * (of_value - 1)).sum() / (n * (n - 1))
        return (quality.observed_agreement(counts) - chance) / (1 - chance)

    two = units("0100000010", "1110010000")
    assert alpha(two) == pytest.approx(0.095, abs=5e-4)
    four = units("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
    assert alpha(four) == pytest.approx(0.743, abs=5e-4)
    # rival: couples counted alike, whatever the number of answers to their unit
    couples = (four * (four - 1)).sum() / (four.sum(axis=1) * (four.sum(axis=1) - 1)).sum()
    assert abs(couples - quality.observed_agreement(four)) > 0.005
    assert quality.observed_agreement(np.array([[1, 0], [0, 1]])) is None


# ---------------------------------------------------------------- position
