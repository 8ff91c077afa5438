"""Who wins where: paired differences, ties and failures on planted rows."""

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.core.statistics import mean_interval
from simrlhf.study.comparison import compare, point_labels
from simrlhf.study.store import FAILED

REPETITIONS = 12


def planted() -> pd.DataFrame:
    """`b` is better than `a` by .1 in every world, though worlds differ by far more; `c` ties."""
    random = np.random.default_rng(1)
    lines = []
    for nu, features in ((1.0, "gaussian"), (1.0, "sphere"), (0.5, "gaussian")):
        difficulty = random.uniform(1, 50, REPETITIONS)
        for repetition in range(REPETITIONS):
            common = {
                "repetition": repetition,
                # absent in every row, or in most
                "n_groups": np.nan,
                "minority_share": 0.1 if features == "sphere" else None,
                "n_pairs": 50,
                "nu": nu,
                "features": features,
                "status": "CONVERGED",
            }
            noise = 1e-3 * random.standard_normal(2)
            base = difficulty[repetition]
            for name, value in (("a", base), ("b", base - 0.1 + noise[0]),
                                ("c", base - 0.1 + noise[1])):  # fmt: skip
                lines.append({**common, "estimator": name, "reward_error": value})
    return pd.DataFrame(lines)


def test_a_small_gap_is_seen_because_differences_are_paired() -> None:
    rows = planted()
    table = compare(rows, "reward_error", against="a").set_index(["point", "estimator"])
    assert len(table) == 9
    for point in table.index.unique("point"):
        mine = table.loc[point]
        assert set(mine.loc[["b", "c"], "standing"]) == {"best", "tied"}
        assert mine.loc["a", "standing"] == ""
        assert mine.loc["b", "low"] < -0.1 + 2e-3
        assert mine.loc["b", "high"] < -0.09
    one = rows[(rows["nu"] == 0.5)].pivot(index="repetition", columns="estimator",
                                          values="reward_error")  # fmt: skip
    expected = mean_interval((one["b"] - one["a"]).to_numpy())
    found = table.loc["nu = 0.5", :].loc["b"]
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(expected)
    # unpaired, the worlds' own spread would hide it
    unpaired = np.hypot(one["a"].std(), one["b"].std()) / np.sqrt(REPETITIONS)
    assert unpaired > 10 * (found["high"] - found["low"])


def test_the_oracle_is_shown_but_does_not_compete() -> None:
    rows = planted().replace({"estimator": {"b": "oracle"}})
    table = compare(rows, "reward_error", against="a").set_index("estimator")
    assert (table.loc["oracle", "standing"] == "").all()
    assert (table.loc["c", "standing"] == "best").all()


def test_a_setting_of_one_estimator_makes_no_point_but_a_swept_one_does() -> None:
    rows = planted().query("nu == 0.5")
    own = rows.assign(fit_ridge=np.where(rows["estimator"] == "a", 3.0, np.nan))
    assert set(point_labels(own)) == {"the usual setting"}
    swept = rows.assign(fit_ridge=np.where(rows["repetition"] < 3, 3.0, 1.0))
    assert set(point_labels(swept)) == {"the usual setting", "ridge = 3"}


def test_an_estimator_without_a_swept_setting_is_compared_at_each_value() -> None:
    """Its rows are the same at both, and the others' differences to it are of both."""
    rows = planted().query("nu == 0.5")
    swept = [
        rows.assign(fit_ridge=np.where(rows["estimator"] == "a", np.nan, ridge), shift=shift)
        for ridge, shift in ((1.0, 0.0), (10.0, 5.0))
    ]
    both = pd.concat(swept, ignore_index=True)
    both.loc[both["estimator"] != "a", "reward_error"] += both["shift"]
    table = compare(both, "reward_error", against="a").set_index(["point", "estimator"])
    assert set(table.index.unique("point")) == {"the usual setting", "ridge = 10"}
    assert table.loc[("ridge = 10", "b"), "difference"] == pytest.approx(4.9, abs=0.01)
    assert table.loc[("the usual setting", "b"), "difference"] == pytest.approx(-0.1, abs=0.01)
    assert (table["repetitions"] == REPETITIONS).all()


def test_points_are_named_by_what_is_unusual_about_them() -> None:
    labels = point_labels(planted())
    assert list(dict.fromkeys(labels)) == [
        "the usual setting",
        "minority_share = 0.1, features = sphere",
        "nu = 0.5",
    ]


def test_an_estimator_that_fails_anywhere_does_not_win_by_it() -> None:
    rows = planted()
    lost = (rows["estimator"] == "b") & (rows["repetition"] == 3)
    rows.loc[lost, "status"] = FAILED
    rows.loc[lost, "reward_error"] = np.nan
    table = compare(rows, "reward_error", against="a").set_index(["point", "estimator"])
    assert (table.xs("b", level="estimator")["failed"] == 1).all()
    assert table.xs("b", level="estimator")["mean"].isna().all()
    assert (table.xs("c", level="estimator")["standing"] == "best").all()


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"column": "reward_eror"}, "did you mean 'reward_error'"),
        ({}, {"column": "reward_error", "against": "share_b"}, "unknown estimator 'share_b'"),
        ({"repetition": 0}, {"column": "reward_error", "against": "a"}, "at least 2 repetitions"),
    ],
)
def test_what_cannot_be_compared_is_said(change, arguments, message) -> None:
    with pytest.raises(InputError, match=message):
        compare(planted().assign(**change), **arguments)
