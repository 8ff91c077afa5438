"""The spectrum and its nulls: exact on small data, right in size, and able to find a rank."""

from itertools import combinations, product

import numpy as np
import pytest
import scipy.linalg
from scipy.special import expit

from simrlhf.core.checks import InputError
from simrlhf.core.statistics import clopper_pearson
from simrlhf.data import Preferences
from simrlhf.study import spectrum_null
from simrlhf.study.spectrum_null import LEVEL, spectrum_against_null

N_SETS = 40


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def fit_pooled(preferences):
    """Newton's method for one reward, in place of the estimator under test elsewhere."""
    x = preferences.features.reshape(preferences.n_total, -1)
    theta = np.zeros(x.shape[1])
    for _ in range(25):
        p = expit(x @ theta)
        slope = x.T @ (preferences.weights * (preferences.labels - p))
        theta += np.linalg.solve((x * (preferences.weights * p * (1 - p))[:, None]).T @ x, slope)
    return theta.reshape(preferences.d1, preferences.d2)


def votes(rng, user, x, theta, **extra):
    """Logistic answers of users with rewards `theta` `(N, d1, d2)`."""
    labels = (rng.random(user.size) < expit(np.einsum("pab,pab->p", x, theta[user]))) * 1.0
    return Preferences.from_pairs(user, x, labels, **extra)


def alike(rng, *, n_users=16, n_pairs=30, d1=4, d2=1):
    """Users of one reward."""
    user = np.repeat(np.arange(n_users), n_pairs)
    x = rng.normal(size=(user.size, d1, d2))
    return votes(rng, user, x, np.tile(rng.normal(size=(1, d1, d2)), (n_users, 1, 1)))


def different(rng, *, rank, strength=1.0, n_users=30, n_pairs=60, d1=6, d2=1):
    """Users whose rewards vary along `rank` left directions."""
    user = np.repeat(np.arange(n_users), n_pairs)
    basis = np.linalg.qr(rng.normal(size=(d1, rank)))[0]
    theta = strength * np.einsum("ak,ukb->uab", basis, rng.normal(size=(n_users, rank, d2)))
    return votes(rng, user, rng.normal(size=(user.size, d1, d2)), theta)


class Slow:
    """The scores by the module's formulas, one row at a time."""

    def __init__(self, preferences, pooled):
        p = np.array([expit(np.sum(pooled * row)) for row in preferences.features])
        self.c, e = p * (1 - p), p - preferences.labels
        x = list(preferences.features)
        left = inverse_root(sum(c * row @ row.T for c, row in zip(self.c, x, strict=True)))
        right = inverse_root(sum(c * row.T @ row for c, row in zip(self.c, x, strict=True)))
        x = np.array([left @ row @ right for row in x])
        trace = sum(c * np.sum(row**2) for c, row in zip(self.c, x, strict=True))
        self.x = x * np.sqrt(x[0].size / trace)
        self.flat = self.x.reshape(len(x), -1)
        inverse = np.linalg.inv((self.flat * self.c[:, None]).T @ self.flat)
        self.hat = self.c[:, None] * self.flat @ inverse @ self.flat.T
        e = self.without_pooled(e)
        self.e = e / np.sqrt((e**2).sum() / self.c.sum())
        self.leverage = np.diag(self.hat)

    def without_pooled(self, e):
        return e - self.hat @ e

    def stack(self, user, e):
        scores = np.zeros((user.max() + 1, *self.x[0].shape))
        np.add.at(scores, user, e[:, None, None] * self.x)
        return np.hstack(list(scores))


def inverse_root(moment):
    return np.linalg.inv(scipy.linalg.sqrtm(moment))


# ---------------------------------------------------------------- the scores


@pytest.mark.parametrize("d2", [1, 2])
def test_singular_values_are_those_of_whitened_scores_computed_row_by_row(rng, d2):
    data = alike(rng, n_users=5, d1=3, d2=d2)
    pooled = 0.8 * fit_pooled(data)  # short of the maximum, as with a ridge
    slow = Slow(data, pooled)
    expected = np.linalg.svd(slow.stack(data.users, slow.e), compute_uv=False)
    found = spectrum_against_null(data, pooled, permutations=19).singular_values
    np.testing.assert_allclose(found, expected, atol=1e-9)
    # rival: scores of the features as they are
    e = expit(np.einsum("pab,ab->p", data.features, pooled)) - data.labels
    raw = [np.einsum("p,pab->ab", e[m], data.features[m]) for m in map(data.user, range(5))]
    raw = np.linalg.svd(np.hstack(raw), compute_uv=False)
    assert np.abs(raw / raw[0] - expected / expected[0]).max() > 0.01


def test_units_and_names_of_features_and_the_order_of_a_pair_change_nothing(rng):
    data = different(rng, rank=1, strength=0.5)
    mixing = rng.normal(size=(6, 6))
    x = np.einsum("ab,pbc->pac", mixing, data.features)
    flip = rng.random(data.n_total) < 0.5
    turned = Preferences.from_pairs(
        data.users,
        np.where(flip[:, None, None], -x, x),
        np.where(flip, 1 - data.labels, data.labels),
    )
    one, other = (spectrum_against_null(p, fit_pooled(p), permutations=39) for p in (data, turned))
    np.testing.assert_allclose(one.singular_values, other.singular_values, atol=1e-8)
    np.testing.assert_allclose(one.thresholds, other.thresholds, atol=1e-8)
    np.testing.assert_array_equal(one.p_values_each, other.p_values_each)


def test_without_structure_the_singular_values_are_around_one(rng):
    values = spectrum_against_null(
        data := alike(rng, n_users=200, n_pairs=20, d1=5), fit_pooled(data), permutations=19
    ).singular_values
    # 200 users, 5 directions: a Wishart matrix with edges 1 +- (5 / 200)^{1/2}
    assert np.abs(values - 1).max() < 0.25


# ---------------------------------------------------------------- the nulls


USER = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
# rows that trade places: all, those of a group, those of a pair and the rest
STRATA = {
    "all": [[0, 1, 2, 3, 4, 5, 6, 7, 8]],
    "group": [[0, 1, 4, 5], [2, 3, 6, 7, 8]],
    "pair": [[0, 4], [1, 5], [2, 6], [3, 7, 8]],
}


def deals(strata):
    """The users of all rows, in every way to deal each stratum's rows out among its users."""
    ways = [combinations(rows, int((USER[rows] == 0).sum())) for rows in strata]
    for chosen in product(*ways):
        dealt = np.ones(9, int)
        dealt[[row for rows in chosen for row in rows]] = 0
        yield dealt


@pytest.mark.parametrize("kind", ["all", "group", "pair"])
def test_both_nulls_are_those_of_all_deals_and_all_signs(rng, kind):
    x = rng.normal(size=(9, 2, 1))
    x[STRATA["group"][0]] *= 3
    labels = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0.3])
    group = np.array(list("aabbaabbb")) if kind == "group" else None
    pair = np.array([0, 1, 2, 3, 0, 1, 2, 4, 5]) if kind == "pair" else np.arange(9)
    data = Preferences.from_pairs(USER, x, labels, groups=group)
    found = spectrum_against_null(data, pooled := fit_pooled(data), pair=pair, permutations=999)
    traded = {"all": (0, 0, 9), "group": (0, 9, 0), "pair": (6, 0, 3)}
    assert found.n_traded == traded[kind]
    slow = Slow(data, pooled)
    top = np.linalg.norm(slow.stack(USER, slow.e), 2) * (1 - 1e-9)

    def dealt(strata):
        return np.mean([np.linalg.norm(slow.stack(d, slow.e), 2) >= top for d in deals(strata)])

    def signed(unit, e):
        signs = np.array(list(product([-1, 1], repeat=unit.max() + 1)))[:, unit]
        flipped = [slow.stack(USER, slow.without_pooled(s * e)) for s in signs]
        return np.mean([np.linalg.norm(g, 2) >= top for g in flipped])

    cautious = slow.e / (1 - slow.leverage)
    exact = np.array([dealt(STRATA[kind]), signed(pair, cautious)])
    margin = 4 * np.sqrt(exact * (1 - exact) / 999) + 1 / 1000
    assert (np.abs(found.p_values_each[0] - exact) < margin).all()
    # rivals: rows dealt out among others; signs without the leverages, or of rows and not of pairs
    other = "group" if kind == "all" else "all"
    row_signs = signed(np.arange(9), cautious if kind == "pair" else slow.e)
    rival = np.array([dealt(STRATA[other]), row_signs])
    assert (np.abs(found.p_values_each[0] - rival) > margin).all()


def test_later_values_are_held_against_the_null_without_the_first_directions(rng):
    observed, null = rng.normal(size=(2, 4, 9))
    left, _, right = np.linalg.svd(observed, full_matrices=False)
    kept = spectrum_null._Null(null @ null.T, null @ right.T)
    for rank in range(4):
        u, v = left[:, :rank], right[:rank].T
        rest = (np.eye(4) - u @ u.T) @ null @ (np.eye(9) - v @ v.T)
        top = np.linalg.norm(rest, 2)
        assert spectrum_null._top_without(kept, left, rank) == pytest.approx(top)
        one_sided = np.linalg.norm((np.eye(4) - u @ u.T) @ null, 2)
        assert rank == 0 or one_sided > top + 0.01


def test_draws_are_the_same_kept_or_drawn_again(rng, monkeypatch):
    data = different(rng, rank=2)
    pooled = fit_pooled(data)
    kept = spectrum_against_null(data, pooled, permutations=19)
    monkeypatch.setattr(spectrum_null, "_KEPT_BYTES", 0)
    calls = []
    again = spectrum_against_null(
        data, pooled, permutations=19, progress=lambda done, total: calls.append((done, total))
    )
    np.testing.assert_array_equal(kept.thresholds, again.thresholds)
    np.testing.assert_array_equal(kept.p_values_each, again.p_values_each)
    assert calls == [(i, 19) for i in range(1, 20)] * len(kept.thresholds)
    other = spectrum_against_null(data, pooled, permutations=19, seed=1)
    assert not np.array_equal(kept.thresholds, other.thresholds)


def test_a_value_stands_out_exactly_where_it_exceeds_its_threshold(rng):
    for _ in range(6):
        data = different(rng, rank=1, strength=0.3, n_pairs=30)
        found = spectrum_against_null(data, fit_pooled(data), permutations=59)
        above = found.singular_values[: found.thresholds.size] > found.thresholds
        np.testing.assert_array_equal(above, found.p_values <= LEVEL)
        np.testing.assert_array_equal(above, np.arange(above.size) < found.rank)


def test_the_smallest_p_value_counts_the_data_among_the_draws(rng):
    data = different(rng, rank=1, strength=3.0)
    found = spectrum_against_null(data, fit_pooled(data), permutations=19)
    np.testing.assert_array_equal(found.p_values_each[0], 1 / 20)
    # and a value that no draw stays below has 1, not more
    assert (found.p_values_each <= 1).all()


# ---------------------------------------------------------------- size and power


def rejections(make, rng):
    """Data sets (of `N_SETS`) whose first value exceeds the null: permuted, flipped, both."""
    counts = np.zeros(3, int)
    for seed in range(N_SETS):
        data, pair = make(rng)
        found = spectrum_against_null(data, fit_pooled(data), pair=pair, permutations=19, seed=seed)
        above = found.singular_values[0] > found.thresholds[0]
        assert above == (found.p_values[0] <= LEVEL)
        counts += [*(found.p_values_each[0] <= LEVEL), found.rank > 0]
    return counts


def around(count):
    return clopper_pearson(int(count), N_SETS, confidence=0.999)


def test_users_alike_are_called_different_in_five_percent(rng):
    permuted, flipped, both = rejections(lambda r: (alike(r), None), rng)
    assert around(permuted).low < LEVEL < around(permuted).high
    assert around(flipped).low < LEVEL
    assert around(both).low < LEVEL
    assert both <= min(permuted, flipped)


def teams(rng, *, quirk=5.0):
    """Users of one reward in teams of five; each pair of a team has a quirk that all five see."""
    n_teams, n_pairs, d1 = 6, 40, 6
    user = np.repeat(np.arange(5 * n_teams), n_pairs)
    pair = (user // 5) * n_pairs + np.tile(np.arange(n_pairs), 5 * n_teams)
    x = rng.normal(size=(n_teams * n_pairs, d1, 1))[pair]
    z = x[:, :, 0] @ rng.normal(size=d1) + quirk * rng.normal(size=n_teams * n_pairs)[pair]
    labels = (rng.random(user.size) < expit(z)).astype(float)
    return Preferences.from_pairs(user, x, labels), pair


def test_quirks_of_pairs_that_a_team_shares_are_no_structure_among_users(rng):
    both = rejections(teams, rng)[2]
    assert around(both).low < LEVEL
    # rival: the same data without the knowledge which rows ask the same pair
    blind = rejections(lambda r: (teams(r)[0], None), rng)[2]
    assert around(blind).low > LEVEL


def test_users_with_weights_of_their_own_are_no_structure_for_both_nulls(rng):
    def weighted(rng):
        data = alike(rng)
        return data.reweighted(np.where(data.users < 3, 10.0, 1.0)), None

    permuted, _, both = rejections(weighted, rng)
    assert around(both).low < LEVEL
    assert around(permuted).low > LEVEL  # rival: rows permuted alone


@pytest.mark.parametrize(
    ("rank", "shape"),
    [(1, {}), (2, {}), (2, {"d1": 4, "d2": 2}), (2, {"n_users": 5, "d1": 8, "n_pairs": 200})],
)
def test_a_planted_rank_is_found_and_is_gone_with_rows_dealt_out_to_anyone(rng, rank, shape):
    found, mixed = [], []
    for seed in range(9):
        data = different(rng, rank=rank, **shape)
        dealt = Preferences.from_pairs(rng.permutation(data.users), data.features, data.labels)
        for preferences, ranks in ((data, found), (dealt, mixed)):
            pooled = fit_pooled(preferences)
            ranks.append(
                spectrum_against_null(preferences, pooled, permutations=19, seed=seed).rank
            )
    assert found.count(rank) >= 7
    assert min(found) >= rank - 1
    assert mixed.count(0) >= 7


def test_users_who_differ_in_decisiveness_alone_show_the_common_reward(rng):
    user = np.repeat(np.arange(30), 80)
    theta = np.exp(rng.normal(size=30))[:, None, None] * np.array([1.0, -0.5, 0, 0, 0])[:, None]
    data = votes(rng, user, rng.normal(size=(2400, 5, 1)), theta)
    assert spectrum_against_null(data, fit_pooled(data), permutations=39).rank == 1


def test_groups_of_one_user_trade_with_the_rest(rng):
    data = alike(rng, n_users=4)
    own = Preferences.from_pairs(
        data.users, data.features, data.labels, groups=np.maximum(data.users, 1)
    )
    found = spectrum_against_null(own, fit_pooled(own), permutations=19)
    # users 0 and 1 share a group, 2 and 3 have one each
    assert found.n_traded == (0, 60, 60)


# ---------------------------------------------------------------- misuse


def test_what_cannot_be_tested_is_refused(rng):
    data = alike(rng)
    zero = np.zeros((4, 1))
    with pytest.raises(InputError, match="permutations = 18 must be at least 19"):
        spectrum_against_null(data, zero, permutations=18)
    with pytest.raises(InputError, match=r"pooled has shape \(3, 1\), expected \(4, 1\)"):
        spectrum_against_null(data, zero[:3])
    with pytest.raises(InputError, match=r"pair has shape \(2,\), expected \(480\)"):
        spectrum_against_null(data, zero, pair=np.arange(2))
    one = alike(rng, n_users=1)
    with pytest.raises(InputError, match="needs two users, got 1"):
        spectrum_against_null(one, zero)
    few = alike(rng, n_users=7, n_pairs=1)
    with pytest.raises(InputError, match="7 pairs for 4 features"):
        spectrum_against_null(few, zero)
    x, user = data.features, data.users
    ties = Preferences.from_pairs(user, x, np.full(user.size, 0.5))
    with pytest.raises(InputError, match="explains every label"):
        spectrum_against_null(ties, zero)
    nothing = Preferences.from_pairs(user, 0 * x, data.labels)
    with pytest.raises(InputError, match="all features are zero"):
        spectrum_against_null(nothing, zero)
