"""What the theory says, held against the rows of a sweep by the judges of `simrlhf.testing`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simrlhf import testing, theory

STUDY = """
title = "t"
question = "q"
cell = "recovery"
[grid]
n_pairs = [200, 400, 800, 1600]
estimators = ["share_b"]
repetitions = 60
[world]
n_users = 6
d1 = 6
rank = 2
nu = 2.0
condition = 1.5
user_norms = "equal"
[fit]
norm_bound = 9.0
"""


@pytest.fixture(scope="module")
def rows(sweep, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """240 fits of a world whose limits are reached at these sizes."""
    folder = tmp_path_factory.mktemp("statements")
    (folder / "judged.toml").write_text(STUDY, encoding="utf-8")
    return sweep(str(folder / "judged.toml"), Path(folder))


def test_s1_and_s2_are_never_violated_and_shrunken_ones_are(rows: pd.DataFrame) -> None:
    distance, ceiling = rows["subspace_distance"], rows["ceiling"]
    testing.never_violated(
        distance, rows["s1"], rival=0.5 * rows["s1"], ceiling=ceiling, statement="S1"
    )
    # S2 bounds the error, and S1 is the error over sigma_k; its a priori level is vacuous here
    error = rows["s1"]
    for level in ("bregman", "a_posteriori"):
        bound = rows[f"s2_{level}"]
        testing.never_violated(error, bound, rival=0.3 * bound, statement=f"S2 {level}")


def test_the_squared_distance_goes_to_l1_and_not_to_its_value_at_zero_reward(
    rows: pd.DataFrame,
) -> None:
    """The rival gives every pair the information of a reward of zero, 1/4 for the logistic link."""
    one = rows.iloc[0]
    sigma_k = np.sqrt(one["nu"] * one["n_users"])
    squares = (sigma_k * np.array([one["condition"], 1.0])) ** 2
    at_zero = (one["d1"] - one["rank"]) * 4.0 * np.sum(1.0 / squares)
    testing.limit(
        rows["n_pairs"] * rows["subspace_distance"] ** 2,
        rows["n_pairs"] * rows["limit"] ** 2,
        rival=at_zero,
        x=rows["n_pairs"],
        repetition=rows["repetition"],
        statement="L1",
    )


def test_wilks_statistic_counts_the_parameters_of_the_shared_class(rows: pd.DataFrame) -> None:
    one = rows.iloc[0]
    sizes = {name: int(one[name]) for name in ("n_users", "d1", "d2", "rank")}
    testing.limit(
        rows["wilks"],
        theory.parameter_count("share_b", **sizes),
        rival=theory.parameter_count("full", **sizes),
        x=rows["n_pairs"],
        repetition=rows["repetition"],
        statement="Wilks",
    )


def test_the_distance_falls_with_the_root_of_the_pairs_and_not_with_the_fourth_root(
    rows: pd.DataFrame,
) -> None:
    testing.rate(
        rows["n_pairs"],
        rows["subspace_distance"],
        exponent=-0.5,
        rival=-0.25,
        from_x=400,
        repetition=rows["repetition"],
        statement="rate in n",
    )


@pytest.mark.parametrize("n_pairs", [10, 40])
def test_for_regression_the_sine_falls_with_the_root_of_the_users_at_any_number_of_pairs(
    regression_rows: pd.DataFrame, n_pairs: int
) -> None:
    """The rival is a floor that users cannot lower, the paper's term `k d2 / (n nu)`."""
    rows = regression_rows[regression_rows["n_pairs"] == n_pairs]
    testing.rate(
        rows["n_users"] * rows["n_pairs"],
        rows["largest_sine"],
        exponent=-0.5,
        rival=0.0,
        repetition=rows["repetition"],
        statement=f"rate in N at n = {n_pairs}",
    )


@pytest.fixture(scope="module")
def regression_rows(sweep, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return sweep("identity_rate", tmp_path_factory.mktemp("identity"), size="tiny")
