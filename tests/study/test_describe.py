"""`describe`: its numbers are plain counts, it survives poor data, and it says what it found."""

import json
import os
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data import PairTable, load_shipped, save_table, separation
from simrlhf.study import describe, describe_counts, describe_report, describe_rewards
from simrlhf.study.describe import describe_table, run_describe

SECTIONS = (
    *("users_and_pairs", "duplicates", "agreement", "position_bias", "intransitivity"),
    *("features", "separability", "spectrum"),
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def item_table(rng, *, n_users=6, n_rows=360, strength=2.0):
    """Users whose rewards differ along one direction, on twelve items, with groups."""
    user = np.tile(np.arange(n_users), n_rows // n_users)  # of one shape: compiled once
    direction = np.array([0.6, -0.8, 0, 0])
    theta = strength * rng.normal(size=(n_users, 1)) * direction
    items, pairs = rng.normal(size=(12, 4, 1)), rng.integers(0, 12, (n_rows, 2))
    z = np.einsum("pa,pa->p", (items[pairs[:, 0]] - items[pairs[:, 1]])[:, :, 0], theta[user])
    return PairTable(
        user_ids=np.array([f"u{i}" for i in user]),
        choice=(rng.random(n_rows) < 1 / (1 + np.exp(-z))).astype(float),
        items=items,
        pairs=pairs,
        groups=np.array([f"g{i}" for i in rng.integers(0, 3, n_rows)]),
    )


def differences(table, **change):
    """The same table without its items."""
    x = table.items[table.pairs[:, 0]] - table.items[table.pairs[:, 1]]
    return replace(table, items=None, pairs=None, differences=x, **change)


def quick(table, **settings):
    return describe_table(table, permutations=19, **settings)


def said(found):
    lines = [
        line if isinstance(line, str) else ""
        for name, numbers in found.overall.items()
        for line in describe_report.tell(name, numbers, found.users)
    ]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    out = tmp_path_factory.mktemp("ukp") / "new"
    return run_describe("ukpconvarg1", permutations=19, out=out), out


# ---------------------------------------------------------------- numbers


def test_the_shipped_votes_are_counted_as_pandas_counts_them(shipped):
    found, _ = shipped
    table = load_shipped("ukpconvarg1")
    rows = pd.DataFrame(
        {"user": table.user_ids, "choice": table.choice, "group": table.groups,
         "pair": [f"{min(p)} {max(p)}" for p in table.pairs.tolist()]}
    )  # fmt: skip
    by_user = rows.groupby("user")
    users = found.users.set_index("user_id")
    np.testing.assert_array_equal(users["n_rows"], by_user.size())
    np.testing.assert_array_equal(users["n_groups"], by_user["group"].nunique())
    np.testing.assert_array_equal(users["first"], by_user["choice"].sum())
    counts = found.overall["users_and_pairs"]
    assert (counts["n_users"], counts["n_rows"]) == (41, 27_853)
    assert counts["n_pairs"] == rows["pair"].nunique()
    assert counts["n_items"] == np.unique(table.pairs).size
    assert counts["rows_per_user"]["median"] == by_user.size().median()
    assert found.overall["duplicates"]["n_again"] == rows.duplicated(["user", "pair"]).sum() == 0
    votes = rows.groupby("pair")["user"].nunique()
    assert found.overall["agreement"]["n_pairs"] == (votes >= 2).sum()
    assert found.overall["position_bias"]["share"]["estimate"] == pytest.approx(table.choice.mean())


def test_the_shipped_votes_disagree_more_than_by_chance_and_in_every_user_overlap(shipped):
    found, _ = shipped
    assert found.overall["separability"]["users"]["overlap"] == 41
    assert found.overall["spectrum"]["rank"] >= 4
    permuted = found.overall["spectrum"]["rows_permuted"]
    assert permuted["within_pairs"] > permuted["within_groups"] > permuted["among_all"] == 0


def test_the_order_of_rows_and_rows_of_weight_zero_change_nothing(rng):
    table = item_table(rng)
    rows = np.concatenate([np.arange(360), np.arange(30)])
    weights = np.repeat([1.0, 0.0], [360, 30])
    more = replace(table.select(rows), weights=weights)
    opposite = replace(more, choice=np.where(weights == 0, 1 - more.choice, more.choice))
    kept, shuffled = quick(table), quick(opposite.select(rng.permutation(390)))
    pd.testing.assert_frame_equal(kept.users, shuffled.users)
    assert shuffled.overall["users_and_pairs"].pop("n_weightless") == 30
    assert kept.overall["users_and_pairs"].pop("n_weightless") == 0
    for name in SECTIONS[:-1]:
        one, other = flat(kept.overall[name]), flat(shuffled.overall[name])
        assert one == {key: pytest.approx(value) for key, value in other.items()}, name
    values = [found.overall["spectrum"]["singular_values"] for found in (kept, shuffled)]
    np.testing.assert_allclose(*values, atol=1e-6)
    assert tuple(kept.overall) == SECTIONS
    # control: with a weight the same rows count
    counted = describe_counts.open_case(replace(opposite, weights=np.ones(390)), dimensions=0)
    again = describe_counts.duplicates(counted).overall
    assert again["n_again"] > kept.overall["duplicates"]["n_again"]


def flat(numbers, name=""):
    """Nested numbers as one dictionary."""
    found = {}
    for key, value in numbers.items():
        deeper = isinstance(value, dict)
        found |= flat(value, f"{name}{key}.") if deeper else {name + key: value}
    return found


def test_rank_and_condition_number_by_user_are_those_of_the_scaled_rows(rng):
    table = differences(item_table(rng))
    poor = (table.user_ids == "u5") & (np.arange(360) > 12)
    table = table.select(~poor)
    table.differences[:, 3] = 0  # on its own, it makes nobody poorer
    case = describe_counts.open_case(table, dimensions=0)
    rows = [slice(None), *(case.preferences.user(i) for i in range(6))]
    pooled, *users = (describe_rewards.examine(case, mine) for mine in rows)
    found = describe_rewards.features(case, pooled, users)
    raw = table.differences[:, :3, 0]
    x = raw / np.sqrt(np.mean(raw**2, axis=0))
    assert found.overall["condition"] == pytest.approx(np.linalg.cond(x))
    assert found.overall["condition"] != pytest.approx(np.linalg.cond(raw))
    ranks = []
    for i, user in enumerate(users):
        mine = x[table.user_ids == f"u{i}"]
        ranks.append(np.linalg.matrix_rank(mine))
        values = np.linalg.svd(mine, compute_uv=False)[: ranks[-1]]
        assert user.condition == pytest.approx(values[0] / values[-1])
    np.testing.assert_array_equal(found.by_user["rank"], ranks)
    assert found.overall["constant"] == [(3, 0)]
    assert (found.overall["rank"], ranks[5]) == (3, 2)
    assert found.overall["n_users_of_full_rank"] == 5


def test_agreement_is_over_couples_of_answers_to_one_pair(rng):
    table = item_table(rng)
    case = describe_counts.open_case(table, dimensions=0)
    low, high = np.sort(table.pairs, axis=1).T
    lower_wins = (table.pairs[:, 0] == low) == (table.choice == 1)
    votes = pd.DataFrame({"user": table.user_ids, "low": low, "high": high, "y": lower_wins})
    votes = votes[low != high].groupby(["low", "high", "user"]).y.mean()
    votes = (votes[votes != 0.5] > 0.5).reset_index()
    both = votes.merge(votes, on=["low", "high"]).query("user_x < user_y")
    found = describe_counts.agreement(case).overall
    assert found["share"] == pytest.approx((both.y_x == both.y_y).mean())
    assert found["n_pairs"] == len(both.groupby(["low", "high"]))
    counts = describe_counts.users_and_pairs(case, n_weightless=0).overall
    assert counts["n_pairs"] == len({(a, b) for a, b in zip(low, high, strict=True) if a != b})
    assert counts["n_without_difference"] == (low == high).sum() > 0


def test_a_planted_direction_stands_out_and_is_gone_where_users_are_alike(rng):
    found = quick(differences(item_table(rng)))
    assert found.overall["spectrum"]["rank"] == 1
    assert found.overall["spectrum"]["suggested_ranks"] == [1, 2]
    assert "simrlhf fit DATA --rank 1,2" in said(found)
    none = quick(differences(item_table(rng, strength=0.0)))
    assert none.overall["spectrum"]["rank"] == 0
    assert "--estimator global is enough" in said(none)


def test_ties_and_probabilities_are_counted_apart(rng):
    table = item_table(rng)
    choice = table.choice.copy()
    choice[:7], choice[7:12] = 0.5, [0.1, 0.9, 0.2, 1.0, 0.0]
    case = describe_counts.open_case(replace(table, choice=choice), dimensions=0)
    found = describe_counts.users_and_pairs(case, n_weightless=0)
    assert (found.overall["n_ties"], found.overall["n_soft"]) == (7, 3)
    tied = np.bincount(np.unique(table.user_ids, return_inverse=True)[1][:7], minlength=6)
    np.testing.assert_array_equal(found.by_user["n_ties"], tied)


# ---------------------------------------------------------------- what does not apply


def test_a_section_that_does_not_apply_says_why(rng):
    plain = quick(differences(item_table(rng), groups=None))
    assert "name their two items" in plain.overall["intransitivity"]["not_applicable"]
    assert "triples" not in plain.users
    table = differences(item_table(rng))
    real = quick(replace(table, choice=rng.normal(size=table.n_pairs), link="identity"))
    for name in ("agreement", "position_bias", "intransitivity"):
        assert real.overall[name] == {
            "not_applicable": "choices are real responses, which take no side"
        }
    assert "least squares" in real.overall["separability"]["not_applicable"]
    assert real.overall["spectrum"]["rank"] == 0
    assert real.overall["users_and_pairs"]["responses"]["mean"] is not None
    assert said(real).count("Not applicable") == 4


@pytest.mark.parametrize(
    ("change", "section", "reason"),
    [
        ({"user_ids": np.full(360, "a")}, "spectrum", "needs two users, got 1"),
        ({"keep": 5}, "spectrum", "5 pairs for 4 features"),
        ({"choice": np.full(360, 0.5)}, "spectrum", "explains every label"),
        ({"choice": np.full(360, 0.5)}, "position_bias", "every answer is a tie"),
        ({"pairs": np.ones((360, 2), int)}, "features", "no feature differs"),
        (
            {"pairs": np.arange(720).reshape(360, 2) % 12},
            "intransitivity",
            "compared all three ways",
        ),
        ({"keep": 1}, "agreement", "answered by two users"),
    ],
)
def test_poor_data_cost_a_section_and_not_the_report(rng, change, section, reason):
    keep = change.pop("keep", 360)
    found = quick(replace(item_table(rng), **change).select(np.arange(360) < keep))
    assert reason in found.overall[section]["not_applicable"]
    assert "Not applicable" in said(found)


def test_separated_answers_are_named_and_do_not_stop_the_spectrum(rng):
    table = differences(item_table(rng))
    x = table.differences[:, :, 0]
    found = quick(replace(table, choice=(x[:, 0] > 0).astype(float)))
    # an item beside itself has no side
    moved = x.any(axis=1).sum()
    assert found.overall["separability"]["pooled"] == {"kind": "complete", "n_separated": moved}
    assert found.overall["separability"]["users"]["complete"] == 6
    assert found.overall["spectrum"]["pooled_ridge"] == 1.0
    assert "needs --ridge or --norm-bound" in said(found)
    assert "One reward separates all answers, so" in said(found)


def test_what_was_not_decided_is_not_called_separated(rng, monkeypatch):
    monkeypatch.setattr(separation, "_LARGEST_PROGRAM", 0)
    monkeypatch.setattr(separation, "_NEWTON_STEPS", 0)
    found = quick(differences(item_table(rng)))
    assert found.overall["separability"]["pooled"]["kind"] == "not examined"
    assert found.overall["spectrum"]["pooled_ridge"] == 1.0
    assert "Whether one reward separates answers was not decided, so" in said(found)
    assert "too large or did not finish" in said(found)
    assert "One reward separates" not in said(found)


def test_users_with_few_couples_are_not_named_for_their_agreement(rng):
    # two users agree on 27 of 36 pairs, a stranger answers one of them and is against both
    pairs = np.array(list(combinations(range(9), 2)))[[*range(36), *range(36), 0]]
    choice = np.repeat([1.0, 1.0, 0.0, 0.0], [36, 27, 9, 1])
    table = PairTable(
        user_ids=np.repeat(["a", "b", "stranger"], [36, 36, 1]),
        choice=choice,
        items=rng.normal(size=(9, 4, 1)),
        pairs=pairs,
    )
    case = describe_counts.open_case(table, dimensions=0)
    found = describe_counts.agreement(case)
    users = pd.DataFrame({"user_id": case.names, **found.by_user})
    assert users["couples"].tolist() == [37, 37, 2]
    assert users["agreement"].idxmin() == 2
    told = describe_report.tell("agreement", found.overall, users)
    assert told[1] == (
        "By user, for the 2 with 30 couples or more: 73% to 73% (median 73%); lowest a (27 of 37)."
    )
    few = describe_report.tell("agreement", found.overall, users[2:])
    assert len(few) == 1


def test_position_bias_is_told_with_the_number_of_pairs(rng):
    table = item_table(rng, n_rows=60)
    # each of six users answers ten pairs of the own four times, the first always first
    pairs = np.array(list(combinations(range(12), 2)))[:60]
    rows = np.repeat(np.arange(60), 4)
    table = replace(
        table, user_ids=np.repeat([f"u{i}" for i in range(6)], 10), pairs=pairs, choice=np.ones(60)
    ).select(rows)
    case = describe_counts.open_case(table, dimensions=0)
    found = describe_counts.position_bias(case)
    users = pd.DataFrame({"user_id": case.names, **found.by_user})
    np.testing.assert_array_equal(users["answers"], 40)
    np.testing.assert_array_equal(users["leaning_pairs"], 10)
    told = "\n".join(describe_report.tell("position_bias", found.overall, users))
    assert "of 240 strict answers to 60 pairs" in told
    assert "6 of 6 (u0 first in 10 of 10; u1 first in 10 of 10;" in told
    one = describe_counts.position_bias(
        describe_counts.open_case(table.select(rows == 0), dimensions=0)
    )
    told = describe_report.tell("position_bias", one.overall, users[:1])[0]
    assert told.endswith("preferred in 100.0% of 4 strict answers to 1 pair; p = 1 for one half.")


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_the_unit_of_a_feature_changes_nothing(rng, unit):
    table = differences(item_table(rng))
    scaled = replace(table, differences=table.differences * np.array([unit, 1, 1, 1])[:, None])
    one, other = (
        describe_rewards.examine(describe_counts.open_case(t, dimensions=0), slice(None))
        for t in (table, scaled)
    )
    assert other == one._replace(condition=pytest.approx(one.condition))
    assert one.rank == 4


# ---------------------------------------------------------------- the command


def test_every_section_is_printed_and_every_number_written(shipped, rng, tmp_path, capsys):
    found, out = shipped
    record = json.loads((out / "describe.json").read_text())
    assert [name for name in record if name in SECTIONS] == list(SECTIONS)
    assert flat(record["position_bias"]) == pytest.approx(flat(found.overall["position_bias"]))
    assert record["spectrum"]["p_values"] == found.overall["spectrum"]["p_values"].tolist()
    assert (record["data"], record["link"]) == ("ukpconvarg1", "logistic")
    written = pd.read_csv(out / "users.csv")
    pd.testing.assert_frame_equal(written, found.users, check_dtype=False)
    path = save_table(item_table(rng), tmp_path / "mine.npz")
    run_describe(str(path), permutations=19, out=tmp_path / "out")
    printed = capsys.readouterr().out
    places = [printed.index(name.replace("_", " ").capitalize()) for name in SECTIONS]
    assert places == sorted(places)
    assert "users.csv" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"permutations": 18}, r"permutations = 18 must be at least 19; fewer cannot reach"),
        ({"dimensions": -1}, "dimensions = -1 must be at least 0"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"link": "logit"}, "unknown link 'logit'"),
    ],
)
def test_settings_out_of_range_are_refused(rng, tmp_path, settings, message):
    path = save_table(item_table(rng), tmp_path / "mine.csv")
    with pytest.raises(InputError, match=message):
        run_describe(str(path), **settings)


def test_data_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"did you mean .ukpconvarg1"):
        run_describe("ukpconvarg2")
    (tmp_path / "own.csv").write_text("user_id,choice,x0\na,1,q\n")
    with pytest.raises(InputError, match="line 2, field 'x0': 'q' is not a number"):
        run_describe(str(tmp_path / "own.csv"))
    (tmp_path / "heavy.csv").write_text("user_id,choice,x0,weight\na,1,1,1e200\n")
    with pytest.raises(InputError, match=r"weights reach 1e\+200, above 1e\+50"):
        run_describe(str(tmp_path / "heavy.csv"))
    (tmp_path / "none.csv").write_text("user_id,choice,x0,weight\na,1,1,0\n")
    with pytest.raises(InputError, match="all weights are 0"):
        run_describe(str(tmp_path / "none.csv"))


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(rng, tmp_path, monkeypatch):
    path = save_table(item_table(rng), tmp_path / "mine.csv")
    monkeypatch.setattr(describe, "describe_table", lambda *a, **k: pytest.fail("worked first"))
    with pytest.raises(InputError, match="cannot write to"):
        run_describe(str(path), out=path / "inside")
    locked = tmp_path / "locked"
    locked.mkdir()
    monkeypatch.setattr(os, "access", lambda *a: False)
    with pytest.raises(InputError, match="give a writable --out"):
        run_describe(str(path), out=locked)
