"""Files that users bring: the same comparisons from every format, and one clear line otherwise."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data import PairTable, load_preferences, load_table, save_table, text

EXTENSIONS = ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "npz")
ROWS = 6
COMMON = {
    "user_ids": np.array(["7", "ann", "007", "ann", "7", "b,b"]),
    "choice": np.array([1.0, 0.0, 0.25, 1.0, 1 / 3, 0.0]),
    "weights": np.array([1.0, 2.0, 0.1, 1.0, 0.0, 1e-3]),
    "groups": np.array(["t1", "t1", "t 2", "t3", "t3", "t3"]),
    "pair_ids": np.array(["p1", "p1", "p2", "p3", "p4", "p5"]),
}


def make_table(kind):
    rng = np.random.default_rng(0)
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 3]])
    content = {
        "vector differences": {"differences": rng.normal(size=(ROWS, 3, 1))},
        "matrix differences": {"differences": rng.normal(size=(ROWS, 3, 2))},
        "vector items": {"items": rng.normal(size=(4, 2, 1)), "pairs": pairs},
        "matrix items": {"items": rng.normal(size=(4, 1, 2)), "pairs": pairs},
        "texts": {
            "texts": ("plain", 'quo"ted, comma', "two\nlines", "\u00fcber \u2028 1e5"),
            "pairs": pairs,
        },
    }
    return PairTable(**COMMON, **content[kind])


def contents(table):
    """What each row compares, whatever the order of the items."""
    if table.pairs is None:
        return table.differences.tolist()
    items = table.texts if table.texts is not None else table.items.tolist()
    return [[items[a], items[b]] for a, b in table.pairs]


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(
    "kind",
    ["vector differences", "matrix differences", "vector items", "matrix items", "texts"],
)
def test_every_format_gives_back_exactly_what_was_saved(kind, extension, tmp_path):
    table = make_table(kind)
    again = load_table(save_table(table, tmp_path / f"t.{extension}"))
    assert contents(again) == contents(table)  # numbers too: all formats keep 17 digits
    for name in COMMON:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name), err_msg=name)


def test_equal_items_are_recognised_so_that_pairs_share_them(tmp_path):
    again = load_table(save_table(make_table("vector items"), tmp_path / "t.csv"))
    np.testing.assert_array_equal(again.items, make_table("vector items").items)
    np.testing.assert_array_equal(again.pairs, make_table("vector items").pairs)


def test_users_are_names_whatever_type_the_file_gives_them(tmp_path):
    frame = pd.DataFrame({"user_id": [7, 7, 12], "choice": [1, 0, 1], "x0": [1, 2, 3]})
    frame.to_parquet(tmp_path / "int.parquet")
    frame.astype({"user_id": float}).to_parquet(tmp_path / "float.parquet")
    frame.astype({"user_id": "category"}).to_parquet(tmp_path / "category.parquet")
    frame.to_csv(tmp_path / "t.csv")  # with the index, as a column without a name
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    np.savez(tmp_path / "t.npz", **{name: frame[name].to_numpy() for name in frame})
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(
            load_table(path).user_ids, ["7", "7", "12"], err_msg=path.name
        )


def test_true_and_false_are_choices(tmp_path):
    pd.DataFrame({"user_id": ["a", "b"], "choice": [True, False], "x0": [1.0, 2.0]}).to_parquet(
        tmp_path / "t.parquet"
    )
    np.testing.assert_array_equal(load_table(tmp_path / "t.parquet").choice, [1.0, 0.0])


def test_real_responses_need_the_identity_link(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("user_id,choice,x0\na,2.5,1\nb,-1,2\n")
    np.testing.assert_array_equal(load_table(path, link="identity").choice, [2.5, -1.0])
    assert load_preferences(path, link="identity").link == "identity"
    with pytest.raises(InputError, match=r"'choice': 2.5 is outside \[0, 1\].*link='identity'"):
        load_table(path)


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfuser_id,choice,x0\r\n\r\na,1,2\r\n")
    (tmp_path / "t.jsonl").write_bytes(b'\xef\xbb\xbf\n{"user_id":"a","choice":1,"x0":2}\n\n')
    for path in tmp_path.iterdir():
        assert np.asarray(load_table(path).differences).item() == 2.0


def test_numeric_features_reach_preferences_as_they_are(tmp_path):
    table = make_table("matrix differences").select(np.array([0, 1, 2, 3, 5]))
    made = load_preferences(save_table(table, tmp_path / "t.parquet"))
    assert (made.n_users, made.d1, made.d2) == (4, 3, 2)
    np.testing.assert_array_equal(made.user_ids, ["007", "7", "ann", "b,b"])
    np.testing.assert_array_equal(made.features[0], np.asarray(table.differences)[2])
    np.testing.assert_array_equal(np.asarray(made.groups)[:2], ["t 2", "t1"])


def test_texts_get_features_fitted_to_themselves_or_given(tmp_path):
    rng = np.random.default_rng(1)
    words = np.array(["red", "green", "blue", "one", "two", "three", "four"])
    texts = [" ".join(rng.choice(words, 5)) for _ in range(20)]
    frame = pd.DataFrame({"user_id": ["a", "b"] * 5, "choice": [1, 0] * 5})
    frame = frame.assign(text_a=texts[:10], text_b=texts[10:])
    frame.to_csv(tmp_path / "t.csv", index=False)
    own = text.fit(list(dict.fromkeys(texts)), dimensions=3)
    made = load_preferences(tmp_path / "t.csv", dimensions=3)
    expected = text.transform(own, texts)
    np.testing.assert_allclose(made.features[:5, :, 0], (expected[:10] - expected[10:])[::2])
    given = load_preferences(tmp_path / "t.csv", text_features=text.fit(texts[:6], dimensions=2))
    assert given.d1 == 3


# ---------------------------------------------------------------- what is wrong, and where

GOOD = {"user_id": "a", "choice": 1, "x0": 0.5, "x1": 2.0}


def write_rows(path, rows):
    """Write dictionaries as they are (wrong types included) in the format of the extension."""
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def refusal(path, **options):
    with pytest.raises(InputError) as caught:
        load_table(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("choice", 1.5, "1.5 is outside [0, 1]; write 1, 0 or a probability"),
        ("choice", None, "is not"),
        ("choice", float("inf"), "inf is not finite; write 1 where the first was preferred"),
        ("x1", float("nan"), "is not"),
        ("weight", -2.0, "-2.0 is negative; write 0 to leave a pair out"),
        ("user_id", None, "is empty; fill it or drop the row"),
        ("group", None, "is empty; fill it or drop the row"),
    ],
)
def test_a_bad_cell_is_named_by_line_field_value_and_remedy(
    extension, field, value, expected, tmp_path
):
    rows = [{"weight": 1.0, "group": "g", **GOOD} for _ in range(5)]
    rows[3] = {**rows[3], field: value}
    message = refusal(write_rows(tmp_path / f"t.{extension}", rows))
    where = {"csv": "line 5", "jsonl": "line 4", "parquet": "row 4"}[extension]
    assert message.startswith(f", {where}, field '{field}': ")
    assert expected in message


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_a_word_where_a_number_belongs_is_quoted(extension, tmp_path):
    rows = [dict(GOOD), {**GOOD, "choice": "first"}]
    message = refusal(write_rows(tmp_path / f"t.{extension}", rows))
    assert "'choice': 'first' is not a number; write 1 where the first was preferred" in message


def test_types_that_are_no_numbers_are_refused(tmp_path):
    when = pd.Timestamp("2020-01-01")
    frame = pd.DataFrame({"user_id": ["a"], "choice": [1.0], "x0": [when]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert "row 1, field 'x0'" in refusal(tmp_path / "t.parquet")
    rows = [{**GOOD, "x0": [1, 2]}]
    assert "field 'x0': [1, 2] is not a number" in refusal(write_rows(tmp_path / "t.jsonl", rows))
    rows = [{"user_id": "a", "choice": 1, "text_a": "one", "text_b": 5}]
    assert "field 'text_b': 5 is not a text" in refusal(write_rows(tmp_path / "u.jsonl", rows))
    rows = [{**GOOD, "user_id": {"name": "a"}}]
    assert "is not a name" in refusal(write_rows(tmp_path / "v.jsonl", rows))


def test_the_line_is_the_editors_even_after_texts_with_line_breaks(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        'user_id,choice,text_a,text_b\n\nu,1,"two\nlines","x"\nu,0,"a","three\n\nlines"\nu,2,c,d\n'
    )
    assert refusal(path).startswith(", line 8, field 'choice': 2.0")
    assert path.read_text().splitlines()[7] == "u,2,c,d"


def test_a_long_value_is_cut_short(tmp_path):
    message = refusal(write_rows(tmp_path / "t.jsonl", [{**GOOD, "choice": "x" * 500}]))
    assert len(message) < 250


def drop(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (drop("user_id"), " has no field 'user_id': add it; found choice, x0, x1"),
        ({**drop("user_id"), "userid": "a"}, "is it 'userid'? Rename that one"),
        ({**drop("choice"), "choise": 1}, " has no field 'choice': is it 'choise'? Rename"),
        (drop("x0", "x1"), " has no features: give x0, x1, ... (differences), a_0"),
        ({**GOOD, "x3": 1.0}, " misses the field 'x2' among 3 fields x...; number them from 0"),
        ({**drop("x0", "x1"), "x1": 1.0}, " misses the field 'x0'"),
        ({**drop("x0", "x1"), "x00": 1.0, "x01": 2.0}, "without a gap or leading zeros"),
        ({**drop("x1"), "x0_0": 1.0}, " mixes x0 with x0_0; write vectors as x0, x1"),
        ({**drop("x0", "x1"), "x0_0": 1, "x1_1": 1}, " misses the field 'x0_1'"),
        ({**drop("x0", "x1"), "a_0": 1.0}, " misses the field 'b_0'"),
        (
            {**drop("x0", "x1"), "a_0": 1.0, "b_0": 1.0, "b_1": 1.0},
            " holds items of 1 x 1 in a_... but of 2 x 1 in b_...",
        ),
        ({**drop("x0", "x1"), "text_a": "one"}, " has no field 'text_b': add it"),
        ({**GOOD, "text_a": "one", "text_b": "two"}, " holds x0 ... as well as text_a and text_b"),
        ({**GOOD, "wieght": 2.0}, " has an unknown field 'wieght': is it 'weight'? Rename or drop"),
        ({**GOOD, "groups": "g"}, " has an unknown field 'groups': is it 'group'?"),
    ],
)
@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_missing_and_misspelt_fields_are_named(extension, row, expected, tmp_path):
    assert expected in refusal(write_rows(tmp_path / f"t.{extension}", [row, row]))


def test_other_columns_are_ignored(tmp_path):
    rows = [{**GOOD, "comment": "hello", "split": "train"}]
    assert load_table(write_rows(tmp_path / "t.csv", rows)).n_pairs == 1


@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet", "npz"])
def test_files_without_rows_are_refused(extension, tmp_path):
    path = tmp_path / f"t.{extension}"
    path.write_bytes(b"")
    assert " is empty; it needs a header" in refusal(path)
    if extension == "csv":
        path.write_text("user_id,choice,x0\n")
    elif extension == "jsonl":
        path.write_text("\n\n")
    elif extension == "parquet":
        pd.DataFrame([GOOD]).iloc[:0].to_parquet(path)
    else:
        np.savez(path, user_id=np.array([], str), choice=np.array([]), x0=np.array([]))
    assert " holds no rows; it needs one row for each comparison" in refusal(path)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_corrupt_files_are_refused(extension, tmp_path):
    path = tmp_path / f"t.{extension}"
    path.write_bytes(b"\x00\xff\xfe garbage \x9c" * 20)
    assert "cannot be read as" in refusal(path)
    whole = save_table(make_table("vector differences"), tmp_path / f"u.{extension}")
    if extension not in ("csv", "jsonl"):  # half a text file is a text file
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
        assert "check that the file is complete" in refusal(whole)


def test_broken_lines_are_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{'user_id': 'a'}\n")
    assert refusal(path).startswith(", line 2: not valid JSON")
    path.write_text(json.dumps(GOOD) + "\n[1, 2]\n")
    assert refusal(path).startswith(", line 2: expected an object {...}, got list")
    path = tmp_path / "t.csv"
    path.write_text("user_id,choice,x0\na,1,2\na,1,2,3\n")
    assert "cannot be read as comma-separated text (CSV parse error" in refusal(path)
    path.write_text("user_id,choice,x0\na,1\n")
    assert "Expected 3 columns, got 2" in refusal(path)
    path.write_text("user_id,choice,x0,x0\na,1,2,3\n")
    assert refusal(path).startswith(", line 1: column 'x0' appears twice; rename one")
    path.write_text("user_id;choice;x0\na;1;2\n")
    assert "has no field 'user_id'" in refusal(path)
    assert "(separate fields by commas)" in refusal(path)


def test_npz_arrays_must_be_one_dimensional_of_one_length_without_objects(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, user_id=np.array(["a", "b"]), choice=np.ones(2), x0=np.ones((2, 3)))
    assert refusal(path).startswith(", field 'x0' has shape (2, 3); every field is one-dimensional")
    np.savez(path, user_id=np.array(["a", "b"]), choice=np.ones(3), x0=np.ones(2))
    assert ": fields differ in length (user_id 2, choice 3, x0 2)" in refusal(path)
    np.savez(path, user_id=np.array(["a", 1], object), choice=np.ones(2), x0=np.ones(2))
    assert "cannot be read as npz without Python objects" in refusal(path)
    np.save(tmp_path / "lone.npy", np.ones(3))
    (tmp_path / "lone.npy").rename(path)
    assert "cannot be read as npz" in refusal(path)


def test_paths_that_are_no_files_of_a_known_kind_are_refused(tmp_path):
    assert refusal(tmp_path / "none.csv") == ": no such file; check the path"
    assert " is a folder, not a file" in refusal(tmp_path)
    for name in ("t.xlsx", "t", "t.gz", "t.csv.zip"):
        (tmp_path / name).write_text("x")
        message = refusal(tmp_path / name)
        assert "unknown extension" in message
        assert ".parquet, .csv, .csv.gz, .jsonl, .jsonl.gz, .npz" in message
    with pytest.raises(InputError, match=r"unknown extension '\.xlsx'"):
        save_table(make_table("texts"), tmp_path / "u.xlsx")


def test_a_text_under_the_name_of_a_gzip_file_is_refused(tmp_path):
    (tmp_path / "t.csv.gz").write_text("user_id,choice,x0\na,1,2\n")
    assert "cannot be read as comma-separated text" in refusal(tmp_path / "t.csv.gz")
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"user_id,choice,x0\na,1,2\n"))
    assert "cannot be read as comma-separated text" in refusal(tmp_path / "t.csv")
