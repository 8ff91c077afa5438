"""What the rows of `subspace_vs_pairs` say, in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from simrlhf.core import statistics
from simrlhf.study import results


def summarise_subspace(rows: pd.DataFrame) -> list[str]:
    """Sentences on rate, efficiency limit, sharing and bounds; every number is from the rows."""
    measured = results.fitted(rows)
    results.require_one_world(measured)
    shared = measured[measured["estimator"] == "share_b"]
    most_users, most_pairs = shared["n_users"].max(), shared["n_pairs"].max()
    return [
        *_sharing(measured, most_users, most_pairs),
        *_rate(shared),
        *_limit(shared, most_pairs),
        *_bounds(shared),
        _statuses(rows),
    ]


def median_table(rows: pd.DataFrame, column: str = "subspace_distance") -> pd.DataFrame:
    """Median of a column over seeds, one line per (N, n), one column per estimator."""
    return rows.pivot_table(
        index=["n_users", "n_pairs"], columns="estimator", values=column, aggfunc="median"
    )


def asymptotic(shared: pd.DataFrame) -> pd.DataFrame:
    """Rows in the asymptotic range: the limit L1 lies below a fifth of the ceiling.

    The rule is fixed beforehand and looks at the theory's value, not at the measured one. There
    second-order terms, of the order of the squared sines, are below 4 %.
    """
    return shared[shared["limit"] < 0.2 * shared["ceiling"]]


def rate_in_pairs(shared: pd.DataFrame) -> statistics.Interval:
    """Slope of log distance on log n: one for each repetition, then their mean with a t interval.

    The samples of a repetition are nested in n and share their first users over N, so its points
    are no independent draws; repetitions are. A repetition's slope is the mean over its N.
    """
    slopes = {
        curve: statistics.log_log_slope(
            points["n_pairs"].to_numpy(), points["subspace_distance"].to_numpy()
        ).estimate
        for curve, points in shared.groupby(["repetition", "n_users"])
    }
    return statistics.mean_interval(pd.Series(slopes).groupby(level=0).mean().to_numpy())


def count_violations(shared: pd.DataFrame) -> int:
    """Rows in which the distance exceeds S1, or the error exceeds S2 at one of its three levels.

    S2 bounds `||E||_F`, and S1 is `||E||_F / sigma_k`: comparing the two tests S2 itself, which
    comparing it with the distance would not. A part in 1e9 is left to rounding.
    """
    limit = 1.0 + 1e-9
    broken = int((shared["subspace_distance"] > limit * shared["s1"]).sum())
    for level in ("a_priori", "bregman", "a_posteriori"):
        broken += int((shared["s1"] > limit * shared[f"s2_{level}"]).sum())
    return broken


def _sharing(rows: pd.DataFrame, n_users: int, n_pairs: int) -> list[str]:
    errors = median_table(rows, "reward_error").loc[n_users]
    distances = median_table(rows, "subspace_distance").loc[n_users]
    last = errors.loc[n_pairs]
    said = [
        f"With N = {n_users} users and n = {n_pairs} pairs each the reward error of share_b is "
        f"{last['share_b']:.3f}"
        + "".join(f", of {name} {last[name]:.3f}" for name in ("full", "global") if name in last)
        + "."
    ]
    if "full" in last:
        enough = errors.index[(errors["share_b"] <= last["full"]).to_numpy()]
        if len(enough) and enough[0] < n_pairs:
            said.append(
                f"share_b is as good as full at n = {n_pairs} with n = {enough[0]} already: "
                f"{n_pairs / enough[0]:.3g} times fewer pairs."
            )
        said.append(
            f"In subspace distance they are closer ({distances.loc[n_pairs, 'share_b']:.3f} and "
            f"{distances.loc[n_pairs, 'full']:.3f}): distance alone does not rank estimators."
        )
    return said


def _rate(shared: pd.DataFrame) -> list[str]:
    mine = asymptotic(shared)
    mine = mine[mine.groupby("n_users")["n_pairs"].transform("nunique") >= 3]
    if mine.empty or mine["repetition"].nunique() < 2:
        return []
    slope = rate_in_pairs(mine)
    users = ", ".join(str(n) for n in sorted(mine["n_users"].unique()))
    return [
        f"Its distance falls as n^{slope.estimate:.3f} (95 % interval {slope.low:.3f} to "
        f"{slope.high:.3f}; N = {users}, where L1 is below a fifth of the ceiling); the theory "
        "says -1/2."
    ]


def _limit(shared: pd.DataFrame, n_pairs: int) -> list[str]:
    mine = shared[shared["n_pairs"] == n_pairs]
    ratio = (mine["subspace_distance"] / mine["limit"]) ** 2
    if ratio.size < 2:
        return []
    found = statistics.mean_and_error(ratio.to_numpy())
    return [
        f"At n = {n_pairs} the mean squared distance is {found.mean:.2f} (s.e. "
        f"{found.standard_error:.2f}) times the efficiency limit L1, over all N: 1 is the best any "
        "regular estimator can do."
    ]


def _bounds(shared: pd.DataFrame) -> list[str]:
    said = []
    violated = count_violations(shared)
    said.append(
        f"The proved bounds S1 and S2 are violated in {violated} of {4 * len(shared)} comparisons."
    )
    for name, words in (
        ("s2_a_priori", "a priori"),
        ("s2_a_posteriori", "a posteriori"),
    ):
        useful = shared.groupby(["n_users", "n_pairs"])[[name, "ceiling"]].median()
        useful = useful[useful[name] < useful["ceiling"]]
        where = (
            "at no point of this grid"
            if useful.empty
            else (
                f"from n = {useful.index.get_level_values('n_pairs').min()} on, "
                f"{len(useful)} points of the grid"
            )
        )
        said.append(f"S2 {words} says something (below its ceiling sqrt k): {where}.")
    ratio = shared["subspace_distance"] / shared["theorem_4_1"]
    by_n = ratio.groupby(shared["n_pairs"]).max()
    drift = np.log(by_n.iloc[-1] / by_n.iloc[0]) / np.log(by_n.index[-1] / by_n.index[0])
    said.append(
        f"Theorem 4.1 as printed covers all points with c_1 = {ratio.max():.3g}; the constant "
        f"needed drifts as n^{drift:+.2f}."
    )
    return said


def _statuses(rows: pd.DataFrame) -> str:
    counts = rows["status"].value_counts()
    return "Fits: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + "."
