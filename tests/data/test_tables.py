"""Laws of `PairTable` and of feature scales."""

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data import tables
from simrlhf.data.tables import PairTable


def text_table(**change):
    fields = {
        "user_ids": np.array(["u", "v", "u", "v", "u"]),
        "choice": np.array([1.0, 0.0, 0.5, 1.0, 0.0]),
        "texts": ("one", "two", "three", "four"),
        "pairs": np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]]),
        "groups": np.array(list("aabbc")),
    }
    return PairTable(**{**fields, **change})


def test_select_keeps_rows_together_and_items_whole():
    chosen = text_table().select(np.array([False, True, False, True, False]))
    np.testing.assert_array_equal(chosen.user_ids, ["v", "v"])
    np.testing.assert_array_equal(chosen.pairs, [[1, 2], [3, 0]])
    np.testing.assert_array_equal(chosen.groups, ["a", "b"])
    assert chosen.texts == text_table().texts


def test_users_are_counted_by_strict_pairs_only():
    # u has three pairs, one of them a tie; a count of all pairs would keep u at 3
    table = text_table()
    np.testing.assert_array_equal(table.strict, [True, True, False, True, True])
    assert set(table.with_at_least(2).user_ids) == {"u", "v"}
    with pytest.raises(InputError, match=r"no user has 3 strict pairs .the largest count is 2."):
        table.with_at_least(3)


def test_every_real_response_takes_a_side():
    table = PairTable(
        user_ids=np.array(["u"]), choice=np.array([0.5]), differences=np.ones((1, 1, 1)),
        link="identity",
    )  # fmt: skip
    assert table.strict.all()


def test_used_items_are_those_of_the_named_rows():
    np.testing.assert_array_equal(text_table().used_items(np.array([0, 1])), [0, 1, 2])
    np.testing.assert_array_equal(text_table().used_items(), [0, 1, 2, 3])


def test_preferences_are_differences_of_item_features():
    features = np.random.default_rng(0).normal(size=(4, 3))
    made = text_table().to_preferences(item_features=features)
    assert made.n_users == 2
    np.testing.assert_array_equal(made.features[0, :, 0], features[0] - features[1])
    np.testing.assert_array_equal(made.groups, ["a", "b", "c", "a", "b"])


def test_scales_of_items_are_standard_deviations_over_the_rows_named():
    items = np.random.default_rng(1).normal(size=(4, 2, 2)) * np.array([[1.0, 10.0], [3.0, 0.1]])
    table = text_table(texts=None, items=items)
    rows = np.array([0, 1])  # items 0, 1, 2
    np.testing.assert_allclose(tables.fit_scales(table, rows), items[:3].std(axis=0))
    other = tables.fit_scales(table, np.arange(5))
    assert (
        np.abs(other - items[:3].std(axis=0)).max() > 1e-3
    )  # scales of all rows are another thing


def test_scales_of_differences_do_not_depend_on_which_item_came_first():
    x = np.random.default_rng(2).normal(size=(5, 3, 1)) + 1.0
    flipped = x * np.array([1, -1, 1, -1, -1])[:, None, None]
    a, b = (
        tables.fit_scales(text_table(texts=None, pairs=None, differences=d), np.arange(5))
        for d in (x, flipped)
    )
    np.testing.assert_allclose(a, b)
    assert not np.allclose(x.std(axis=0), flipped.std(axis=0))  # a centred scale would depend on it


def test_constant_features_are_not_blown_up():
    # the mean of 0.1 rounds: its spread is 1e-17, not zero
    items = np.column_stack([np.full(4, 0.1), np.arange(4.0)])[:, :, None]
    table = text_table(texts=None, items=items)
    made = np.asarray(tables.scaled(table, tables.fit_scales(table, np.arange(5))).items)
    np.testing.assert_allclose(made[:, 0], 0.1)
    np.testing.assert_allclose(made[:, 1].std(), 1.0)


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_scales_follow_the_unit_where_squares_would_not(unit):
    x = np.random.default_rng(2).normal(size=(5, 3, 1)) * np.array([1.0, 1.0, 0.0])[:, None]
    for content in ({"differences": x, "pairs": None}, {"items": x[:4]}):
        one, other = (
            tables.fit_scales(text_table(texts=None, **{**content, name: content[name] * u}), rows)
            for name in list(content)[:1]
            for rows in [np.arange(5)]
            for u in (1.0, unit)
        )
        np.testing.assert_allclose(other[:2], one[:2] * unit, rtol=1e-12)
        assert one[2] == other[2] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.array([1, 1, 1, 1, 1e51])}, r"weights reach 1e\+51, above 1e\+50.*rescale"),
        ({"weights": np.full(5, 1e-51)}, "weights reach 1e-51 only, below 1e-50.*rescale"),
        ({"link": "identity", "choice": np.full(5, -1e51)}, r"responses reach 1e\+51, above"),
        ({"link": "identity", "choice": np.full(5, -1e-51)}, "responses reach 1e-51 only"),
    ],
)
def test_weights_and_responses_whose_products_leave_float64_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        text_table(**change)


def test_weights_and_responses_of_any_usual_size_are_kept():
    for size in (1e-50, 0.0, 1e50):
        weights = np.array([1.0, 0.0, 1e-300, size, 1.0])
        table = text_table(weights=weights, choice=np.full(5, size), link="identity")
        np.testing.assert_array_equal(table.weights, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": None}, "a table holds one of differences, items, texts; got none"),
        ({"items": np.ones((4, 1, 1))}, "got items and texts"),
        ({"pairs": None}, "pairs go with items or texts"),
        ({"choice": np.ones(4)}, r"choice has shape \(4,\), expected \(5\)"),
        ({"groups": np.ones(3)}, r"groups has shape \(3,\)"),
        ({"user_ids": np.array([])}, "the table has no pairs"),
        ({"link": "logit"}, "unknown link 'logit'"),
    ],
)
def test_inconsistent_tables_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        text_table(**change)


def test_texts_need_features_of_the_right_number():
    with pytest.raises(InputError, match="texts need item_features"):
        text_table().to_preferences()
    with pytest.raises(InputError, match="item_features has 3 rows for 4 items"):
        text_table().to_preferences(item_features=np.ones((3, 2)))
    with pytest.raises(InputError, match="texts have no numeric features"):
        tables.fit_scales(text_table(), np.arange(5))
