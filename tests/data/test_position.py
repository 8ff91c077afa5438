"""Position bias equals slow counts; its tests keep their level and its intervals cover."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from simrlhf.core.statistics import Interval, clopper_pearson
from simrlhf.data import position as positions
from simrlhf.data import quality
from simrlhf.data.quality import Questions

# of `random_table`
N_USERS, N_ITEMS = 5, 6


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_shares_of_the_first_are_counted_as_by_hand(rng, random_table):
    table, pairs, side = random_table(rng)
    found = positions.find_position(table.user_ids, quality.questions(table), side, n_users=N_USERS)
    for user in range(N_USERS):
        mine = side[(table.user_ids == user) & (side != 0)]
        assert (found.answers[user], found.first[user]) == (mine.size, (mine > 0).sum())
        leads: dict = {}
        for i in np.flatnonzero(table.user_ids == user):
            a, b = sorted(pairs[i].tolist())
            key = (a, b) if a < b else i  # an item beside itself is a pair of its own
            leads[key] = leads.get(key, 0) + side[i]
        first, second = (sum(sign * v > 0 for v in leads.values()) for sign in (1, -1))
        assert (found.pairs[user], found.pairs_first[user]) == (first + second, first)
        expected = stats.binomtest(first, first + second).pvalue
        assert found.p_values[user] == pytest.approx(expected)
        assert first + second < mine.size
    shares = []
    for a, b in combinations(range(N_ITEMS), 2):
        orders = [side[(pairs == order).all(axis=1) & (side != 0)] for order in ((a, b), (b, a))]
        if all(len(answers) for answers in orders):
            shares.append(np.mean([(answers > 0).mean() for answers in orders]))
    assert found.n_both == len(shares)
    assert found.both.estimate == pytest.approx(np.mean(shares))


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg(rng):
    user = np.repeat(np.arange(4), 30)
    side = np.where(rng.random(120) < np.array([0.5, 0.6, 0.7, 0.9])[user], 1, -1)
    found = positions.find_position(user, Questions(np.arange(120), side > 2), side, n_users=5)
    p = np.sort(found.p_values[:4])
    by_hand = np.minimum.accumulate((p * 4 / np.arange(1, 5))[::-1])[::-1]
    np.testing.assert_allclose(np.sort(found.adjusted[:4]), np.minimum(by_hand, 1))
    assert found.p_values[4] == found.adjusted[4] == 1  # no answers


def shown(rng, *, n_pairs, bias, swap):
    """Pairs of unequal items, each answered by ten users, in an order of the pair or of the row."""
    better = np.repeat(rng.normal(scale=3.0, size=n_pairs), 10)  # log-odds of the lower item
    pair = np.repeat(np.arange(n_pairs), 10)
    swapped = {
        "pair": np.repeat(rng.random(n_pairs) < 0.5, 10), "row": rng.random(pair.size) < 0.5,
        "never": np.zeros(pair.size, bool),
    }[swap]  # fmt: skip
    z = np.where(swapped, -better, better) + bias
    side = np.where(rng.random(pair.size) < 1 / (1 + np.exp(-z)), 1, -1)
    return Questions(pair, swapped), side


def position(side, pair=None, user=None):
    """Position bias of one user who answers every pair once, or as given."""
    pair = np.arange(len(side)) if pair is None else pair
    user = np.zeros(len(side), int) if user is None else user
    asked = Questions(pair, np.zeros(len(side), bool))
    return positions.find_position(user, asked, np.asarray(side), n_users=user.max() + 1)


def test_the_tests_of_position_keep_their_level_where_answers_to_a_pair_lean_alike(rng):
    n_sets, rejected, own, naive = 300, 0, 0, 0
    for _ in range(n_sets):
        asked, side = shown(rng, n_pairs=40, bias=0.0, swap="pair")
        found = positions.find_position(np.zeros(400, int), asked, side, n_users=1)
        rejected += found.p_value < 0.05
        own += found.p_values[0] < 0.05
        naive += stats.binomtest(int(found.first[0]), 400).pvalue < 0.05
    for count in (rejected, own):
        assert clopper_pearson(count, n_sets, confidence=0.999).low < 0.05
        assert clopper_pearson(count, n_sets, confidence=0.999).high > 0.02
    # rival: every answer on its own, as if ten answers to one pair were ten pairs
    assert clopper_pearson(naive, n_sets, confidence=0.999).low > 0.2


def test_a_users_answers_to_one_pair_count_once():
    # five pairs asked four times each, always with the same answer
    side, pair = np.repeat([1, 1, 1, 1, 1], 4), np.repeat(np.arange(5), 4)
    found = position(side, pair)
    assert (found.answers[0], found.pairs[0], found.n_pairs) == (20, 5, 5)
    assert found.p_values[0] == pytest.approx(2 / 2**5)
    # a pair asked in both orders, whose item is chosen both times, leans to neither
    both = Questions(np.array([0, 0, 1]), np.array([False, True, False]))
    found = positions.find_position(np.zeros(3, int), both, np.array([1, -1, 1]), n_users=2)
    np.testing.assert_array_equal(found.pairs, [1, 0])
    np.testing.assert_array_equal(found.p_values, [1, 1])


def test_items_beside_themselves_are_pairs_of_their_own():
    found = position(np.repeat([1, -1], [15, 5]), np.full(20, -1))
    assert (found.n_pairs, found.pairs[0]) == (20, 20)
    expected = stats.binomtest(15, 20).pvalue
    assert found.p_value == pytest.approx(expected)
    assert found.p_values[0] == pytest.approx(expected)


def test_the_p_value_is_that_of_all_signs_and_of_the_normal_law_for_many(rng, monkeypatch):
    signs = np.array(list(product([-1, 1], repeat=8)))
    for _ in range(10):
        side = rng.choice([-1, 1], 40, p=[0.4, 0.6])
        pair = rng.integers(0, 8, 40)
        leads = np.bincount(pair, side, 8)
        exact = (np.abs(signs @ leads) >= abs(leads.sum())).mean()
        assert position(side, pair).p_value == pytest.approx(exact)
    assert position([1] * 5).p_value == pytest.approx(2 / 2**5)  # the normal law: .025
    assert position([1, -1], np.zeros(2, int)).p_value == 1
    many = np.repeat([1, -1], [1060, 940])
    exact = position(many).p_value
    assert exact == pytest.approx(stats.binomtest(1060, 2000).pvalue)
    monkeypatch.setattr(positions, "_MOST_EXACT", 0)
    normal = position(many).p_value
    assert normal != exact
    assert normal == pytest.approx(exact, rel=0.1)


def shares_covered(draw, share, interval, n_sets=250):
    found = [interval(position(*draw())) for _ in range(n_sets)]
    covered = sum(f.low <= share <= f.high for f in found)
    return clopper_pearson(covered, n_sets, confidence=0.999)


@pytest.mark.parametrize("n_pairs", [10, 20])
def test_the_interval_of_the_share_covers_where_pairs_are_few(rng, n_pairs):
    def one_answer_each():
        return (np.where(rng.random(n_pairs) < 0.9, 1, -1),)

    def popular():
        """Two pairs hold most answers, and each pair has a share of its own."""
        size = np.where(np.arange(n_pairs) < 2, 50, 3)
        pair = np.repeat(np.arange(n_pairs), size)
        return np.where(rng.random(pair.size) < rng.random(n_pairs)[pair], 1, -1), pair

    def wald(found):
        half = 1.96 * (found.share.estimate * (1 - found.share.estimate) / n_pairs) ** 0.5
        return Interval(0, found.share.estimate - half, found.share.estimate + half)

    assert shares_covered(one_answer_each, 0.9, lambda f: f.share).high > 0.95
    assert shares_covered(popular, 0.5, lambda f: f.share).high > 0.95
    assert shares_covered(one_answer_each, 0.9, wald).high < 0.95  # rival


def test_the_interval_of_the_share_has_its_ends_at_two_and_a_half_percent():
    # of equal pairs that all agree it is Clopper and Pearson's
    found = position(np.ones(30, int), np.repeat(np.arange(10), 3)).share
    assert found == pytest.approx((1.0, 0.025 ** (1 / 10), 1.0))
    # of many pairs with one answer each it is nearly theirs
    many = position(np.repeat([1, -1], [1400, 600]))
    expected = clopper_pearson(1400, 2000)
    assert many.share.low == pytest.approx(expected.low, abs=1e-4)
    assert many.share.high == pytest.approx(expected.high, abs=1e-4)
    narrow = clopper_pearson(1400, 2000, confidence=0.9)
    assert abs(narrow.low - expected.low) > 0.002  # rival: ends at 5 percent


def test_the_effective_number_of_answers_is_that_of_its_formula():
    # three pairs, 4 of 6, 1 of 2 and 2 of 7 answers for the first
    side, pair = [], []
    for q, (n, f) in enumerate([(6, 4), (2, 1), (7, 2)]):
        side += [1] * f + [-1] * (n - f)
        pair += [q] * n
    k, s = 15**2 / (36 + 4 + 49), 7 / 15
    v = k / (k - 1) * ((4 - 6 * s) ** 2 + (1 - 2 * s) ** 2 + (2 - 7 * s) ** 2) / 15**2
    n = s * (1 - s) / v * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, k - 1)) ** 2
    found = position(side, np.array(pair)).share
    assert found.low == pytest.approx(stats.beta.ppf(0.025, n * s, n - n * s + 1))
    assert found.high == pytest.approx(stats.beta.ppf(0.975, n * s + 1, n - n * s))
    # pairs more alike than coin flips would be: no more than the answers
    even = np.tile([1, -1], 200)
    even[0] = -1
    found = position(even, np.repeat(np.arange(40), 10)).share
    assert found == pytest.approx(clopper_pearson(199, 400))
    # and all alike: the number of pairs
    even = position(np.tile([1, -1, -1], 20), np.repeat(np.arange(20), 3)).share
    low = stats.beta.ppf(0.025, 20 / 3, 40 / 3 + 1)
    assert even.low == pytest.approx(low)


def test_one_pair_gives_no_interval_and_a_share_no_end_beyond_certainty():
    assert position(np.repeat([1, -1], [30, 20]), np.zeros(50, int)).share == (0.6, 0.0, 1.0)
    # one pair holds nearly all answers
    lone = position(np.ones(2001, int), np.repeat([0, 1], [2000, 1])).share
    assert lone.low < 0.05


def test_the_interval_over_both_orders_has_a_width_and_covers(rng):
    def twice(n_pairs, first):
        """Pairs in both orders: the first both times with this probability, or one of the items."""
        side = np.where(rng.random((n_pairs, 1)) < first, 1, [1, -1])
        asked = Questions(np.repeat(np.arange(n_pairs), 2), np.tile([False, True], n_pairs))
        user = np.zeros(2 * n_pairs, int)
        return positions.find_position(user, asked, side.ravel(), n_users=1).both

    found = twice(12, 0.0)
    assert found.estimate == 0.5
    assert 0.3 < found.low < 0.5 < found.high < 0.7
    covered = sum(f.low <= 0.95 <= f.high for f in (twice(12, 0.9) for _ in range(250)))
    assert clopper_pearson(covered, 250, confidence=0.999).high > 0.95


def test_both_orders_tell_bias_from_better_items(rng):
    user = np.zeros(4000, int)
    asked, side = shown(rng, n_pairs=400, bias=0.7, swap="row")
    biased = positions.find_position(user, asked, side, n_users=1)
    assert biased.both.low > 0.5
    asked, side = shown(rng, n_pairs=400, bias=0.0, swap="row")
    fair = positions.find_position(user, asked, side, n_users=1)
    assert fair.both.low < 0.5 < fair.both.high
    # rival: the better item first in every row, and no bias, moves the share of all answers alone
    side = np.where(asked.swapped, -side, side)
    leading = np.repeat(np.where(side.reshape(-1, 10).sum(axis=1) < 0, -1, 1), 10)
    ordered = Questions(asked.pair, leading < 0)
    sorted_ = positions.find_position(user, ordered, side * leading, n_users=1)
    assert sorted_.share.low > 0.7
    assert (sorted_.n_both, sorted_.both) == (0, None)


def test_ties_alone_have_no_position():
    asked = Questions(np.zeros(3, int), np.zeros(3, bool))
    assert positions.find_position(np.zeros(3, int), asked, np.zeros(3, int), n_users=1) is None
    nothing = quality.find_agreement(np.arange(3), asked, np.zeros(3, int), n_users=3)
    assert (nothing.n_pairs, nothing.alpha) == (0, None)
