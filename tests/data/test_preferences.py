"""Laws of `Preferences`: nothing is lost, moved or changed on the way into storage and tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simrlhf.core.checks import InputError
from simrlhf.data.preferences import Preferences
from simrlhf.data.tiles import _TILE_HEIGHTS


def random_pairs(counts, *, d1=3, d2=2, seed=0):
    """Shuffled rows of users with these counts: user, features, labels, weights, groups."""
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    n = user.size
    return (
        user,
        rng.normal(size=(n, d1, d2)),
        rng.random(n),
        rng.random(n) + 0.1,
        rng.integers(0, 4, n),
    )


def test_dense_and_flat_storage_agree():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(4, 5, 3, 2)), rng.integers(0, 2, (4, 5)).astype(float)
    dense = Preferences(features=features, labels=labels)
    flat = Preferences.from_pairs(
        np.repeat(np.arange(4), 5), features.reshape(20, 3, 2), labels.ravel()
    )
    for name in ("features", "labels", "weights", "offsets", "user_ids", "users"):
        np.testing.assert_array_equal(getattr(dense, name), getattr(flat, name))


def test_vector_features_are_matrices_with_one_column():
    x = np.arange(12.0).reshape(2, 2, 3)
    made = Preferences(features=x, labels=np.ones((2, 2)))
    assert (made.d1, made.d2) == (3, 1)
    np.testing.assert_array_equal(made.features[:, :, 0], x.reshape(4, 3))


def test_mask_leaves_exactly_the_kept_pairs():
    rng = np.random.default_rng(2)
    features, labels = rng.normal(size=(3, 4, 2)), rng.random((3, 4))
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], bool)
    made = Preferences(features=features, labels=labels, mask=mask)
    np.testing.assert_array_equal(made.counts, [3, 1, 4])
    np.testing.assert_array_equal(made.labels, labels[mask])
    np.testing.assert_array_equal(made.features[..., 0], features[mask])


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 10),
)
@settings(max_examples=40, deadline=None)
def test_every_pair_keeps_its_user_label_weight_and_group(counts, seed):
    user, x, y, w, g = random_pairs(counts, seed=seed)
    made = Preferences.from_pairs(user, x, y, w, groups=g)
    assert made.n_total == user.size
    np.testing.assert_array_equal(made.counts, counts)
    for i in range(len(counts)):
        mine, rows = user == i, made.user(i)
        # stable: a user's pairs keep the order in which they came
        np.testing.assert_array_equal(made.features[rows], x[mine])
        np.testing.assert_array_equal(made.labels[rows], y[mine])
        np.testing.assert_array_equal(made.weights[rows], w[mine])
        np.testing.assert_array_equal(np.asarray(made.groups)[rows], g[mine])


@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_tiles_hold_every_pair_once_with_its_user_and_only_padding_besides(counts, seed):
    user, x, y, w, _ = random_pairs(counts, seed=seed)
    made = Preferences.from_pairs(user, x, y, w)
    (tiles,) = made.chunks()
    real = tiles.weights > 0
    np.testing.assert_array_equal(np.repeat(tiles.users, real.sum(axis=1)), made.users)
    np.testing.assert_array_equal(tiles.features[real], made.features)
    np.testing.assert_array_equal(tiles.labels[real], made.labels)
    np.testing.assert_array_equal(tiles.weights[real], made.weights)
    assert not tiles.features[~real].any()
    assert not tiles.labels[~real].any()
    assert (np.diff(tiles.users) >= 0).all()


def test_tiles_of_very_unequal_users_pad_little():
    # the shape of the shipped data: padding to the longest user would be five times the data
    counts = np.r_[200:320:8, 350:500:30, 700, 900, 1200, 2763, 3339]
    made = Preferences.from_pairs(
        np.repeat(np.arange(counts.size), counts), np.ones((counts.sum(), 1)), np.ones(counts.sum())
    )
    (tiles,) = made.chunks()
    assert tiles.labels.shape[1] in _TILE_HEIGHTS
    assert tiles.labels.size <= 1.15 * made.n_total
    assert counts.size * counts.max() > 4 * made.n_total  # the rival layout


def test_tiles_of_equal_users_are_not_padded_and_do_not_copy():
    made = Preferences(features=np.ones((5, 37, 4)), labels=np.zeros((5, 37)))
    (tiles,) = made.chunks()
    assert tiles.labels.shape == (5, 37)
    assert np.shares_memory(tiles.features, made.features)


def test_items_and_pairs_give_their_differences():
    rng = np.random.default_rng(3)
    items, pairs = rng.normal(size=(6, 3)), rng.integers(0, 6, (10, 2))
    made = Preferences.from_pairs(np.zeros(10, int), labels=np.ones(10), items=items, pairs=pairs)
    np.testing.assert_array_equal(made.features[..., 0], items[pairs[:, 0]] - items[pairs[:, 1]])


def test_first_is_nested_and_equals_the_first_pairs_of_each_user():
    user, x, y, *_ = random_pairs([7, 9, 12])
    made = Preferences.from_pairs(user, x, y)
    five, three = made.first(5), made.first(3)
    np.testing.assert_array_equal(five.counts, [5, 5, 5])
    np.testing.assert_array_equal(five.first(3).features, three.features)
    np.testing.assert_array_equal(five.features[five.user(1)], x[user == 1][:5])
    with pytest.raises(InputError, match="n_pairs = 8 must be at most 7"):
        made.first(8)


def test_users_may_keep_different_numbers_of_pairs_by_weight():
    user, x, y, *_ = random_pairs([7, 9, 12])
    made = Preferences.from_pairs(user, x, y)
    switched = made.switched_to_first(np.array([7, 1, 5]))
    assert switched.features.shape == made.features.shape
    for i, kept in enumerate((7, 1, 5)):
        np.testing.assert_array_equal(
            switched.weights[switched.user(i)], np.arange(made.counts[i]) < kept
        )


def test_select_keeps_users_ids_and_groups():
    user, x, y, w, g = random_pairs([6, 8])
    made = Preferences.from_pairs(np.array(["zoe", "ann"])[user], x, y, w, groups=g)
    keep = np.arange(made.n_total) % 2 == 0
    half = made.select(keep)
    np.testing.assert_array_equal(half.user_ids, ["ann", "zoe"])
    np.testing.assert_array_equal(half.groups, np.asarray(made.groups)[keep])
    np.testing.assert_array_equal(half.weights, made.weights[keep])
    with pytest.raises(InputError, match="1 of 2 users have no pairs"):
        made.select(made.users == 0)


def test_some_users_keep_all_that_is_theirs():
    rng = np.random.default_rng(4)
    user = np.array(["eve", "ann", "zoe", "ann", "eve", "ann"])
    features, weights = rng.normal(size=(6, 2)), np.array([1.0, 2.0, 1.0, 0.5, 3.0, 1.0])
    prefs = Preferences.from_pairs(user, features, [1, 0, 1, 1, 0, 0], weights, groups=user)
    some = prefs.of_users(np.array([True, False, True]))  # ann and zoe
    assert some.user_ids.tolist() == ["ann", "zoe"]
    assert some.counts.tolist() == [3, 1]
    np.testing.assert_array_equal(some.features[:, :, 0], features[[1, 3, 5, 2]])
    assert some.labels.tolist() == [0, 1, 0, 1]
    assert some.weights.tolist() == [2.0, 0.5, 1.0, 1.0]
    assert some.groups.tolist() == ["ann"] * 3 + ["zoe"]
    with pytest.raises(InputError, match=r"wanted has shape \(2,\), expected \(3\)"):
        prefs.of_users(np.array([True, False]))
    with pytest.raises(InputError, match="no pairs"):
        prefs.of_users(np.zeros(3))


def test_reweighting_keeps_the_shapes_that_kernels_see():
    user, x, y, *_ = random_pairs([20, 33])
    made = Preferences.from_pairs(user, x, y)
    other = made.reweighted(np.arange(made.n_total) % 3.0)
    (a,), (b,) = made.chunks(), other.chunks()
    assert [p.shape for p in a] == [p.shape for p in b]
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(other.weights, np.arange(made.n_total) % 3.0)
    with pytest.raises(InputError, match="users have no pairs"):
        made.reweighted((made.users == 1).astype(float))


def test_relabelling_changes_the_labels_alone():
    user, x, y, *_ = random_pairs([3, 2])
    weights = np.array([1.0, 2.0, 0.0, 1.0, 3.0])
    made = Preferences.from_pairs(user, x, y, weights)
    other = made.relabelled(1.0 - made.labels)
    np.testing.assert_array_equal(other.labels, 1.0 - made.labels)
    np.testing.assert_array_equal(other.weights, made.weights)
    assert other.features is made.features
    with pytest.raises(InputError, match=r"labels has shape \(4,\), expected \(5\)"):
        made.relabelled(np.ones(4))
    with pytest.raises(InputError, match=r"label 2 lies outside \[0, 1\]"):
        made.relabelled(np.full(5, 2.0))


def test_users_may_be_ordered_by_the_caller():
    made = Preferences.from_pairs(["b", "a", "b"], np.eye(3), np.array([1, 0, 1]), users=["b", "a"])
    np.testing.assert_array_equal(made.user_ids, ["b", "a"])
    np.testing.assert_array_equal(made.counts, [2, 1])
    np.testing.assert_array_equal(made.features[2, :, 0], [0, 1, 0])


def test_stored_arrays_cannot_be_written_to():
    made = Preferences(features=np.ones((2, 2, 2)), labels=np.ones((2, 2)))
    for name in ("features", "labels", "weights", "offsets"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(made, name)[0] = 0


def test_the_callers_array_stays_writable():
    x = np.ones((4, 2))
    Preferences.from_pairs([0, 0, 1, 1], x, np.ones(4))
    x[0] = 5.0  # must not raise


GOOD = {"user": [0, 0, 1], "features": np.eye(3), "labels": [1.0, 0.0, 1.0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1.0, 0.0]}, r"labels has shape \(2,\), expected \(3\)"),
        ({"labels": [1.0, 0.0, 1.5]}, r"label 1.5 lies outside \[0, 1\].*recode the labels"),
        ({"labels": [1.0, 0.0, -0.5]}, r"label -0.5 lies outside \[0, 1\]"),
        (
            {"labels": [1.0, np.nan, 1.0]},
            r"labels holds 1 values that are not finite.*index \(1,\)",
        ),
        ({"labels": ["a", "b", "c"]}, "labels must be a rectangular array of real numbers"),
        ({"labels": None}, "labels are missing"),
        ({"features": np.full((3, 3), np.inf)}, "features holds 9 values that are not finite"),
        ({"features": np.eye(2)}, r"features has shape \(2, 2, 1\)"),
        ({"features": np.zeros((3, 0))}, "d1 = 0, d2 = 1; both must be at least 1"),
        ({"features": None}, "give features, or both items and pairs"),
        ({"items": np.eye(3)}, "give features, or items and pairs, not both"),
        ({"weights": [2.0, -1.0, 1.0]}, "weights must not be negative, got -1"),
        ({"weights": [1.0, 1.0, 0.0]}, "1 of 2 users have no pairs .the first is 1."),
        ({"user": []}, "expected one entry for each pair"),
        ({"users": [0]}, "pairs of a user who is not in users: 1"),
        ({"users": [0, 1, 2]}, "1 of 3 users have no pairs .the first is 2."),
        ({"groups": [1, 2]}, r"groups has shape \(2,\)"),
        ({"link": "logit"}, "unknown link 'logit'.*did you mean 'logistic'"),
    ],
)
def test_bad_input_is_one_line_that_says_what_and_where(change, message):
    with pytest.raises(InputError, match=message) as caught:
        Preferences.from_pairs(**{**GOOD, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([[0, 3]], "pairs names item 3, but items are numbered 0 to 2"),
        ([[-1, 0]], "pairs names item -1"),
        ([[0.0, 1.0]], "pairs must hold integers"),
        ([[0, 1, 2]], "pairs has shape"),
    ],
)
def test_bad_item_indices_are_refused(pairs, message):
    with pytest.raises(InputError, match=message):
        Preferences.from_pairs([0], labels=np.ones(1), items=np.eye(3), pairs=np.array(pairs))


def test_real_labels_are_for_the_identity_link_only():
    made = Preferences.from_pairs([0], np.ones((1, 2)), np.array([-3.5]), link="identity")
    assert made.labels[0] == -3.5


def test_dense_input_with_a_wrong_rank_names_the_flat_way():
    with pytest.raises(InputError, match=r"use Preferences\.from_pairs for flat data"):
        Preferences(features=np.ones((3, 2)), labels=np.ones(3))
