"""Who wins where: estimators side by side at every point of a study, in paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from simrlhf.core import checks, statistics
from simrlhf.study import results, spec, terminal
from simrlhf.study.columns import POINT_COLUMNS
from simrlhf.study.store import FAILED

# smaller is better in each
COLUMNS = ("subspace_distance", "reward_error", "held_out_nll", "value_gap")
# shown, but no competitors: the oracle is told the basis
_GIVEN_THE_TRUTH = ("oracle",)
_USUAL = "the usual setting"


def compare(rows: pd.DataFrame, column: str, *, against: str = "share_b") -> pd.DataFrame:
    """Mean of `column` for every point and estimator, and paired differences.

    Worlds and samples are common to all estimators, so differences are taken within a repetition;
    their intervals are Student's at 95 %.

    Args:
        rows: of a study; two repetitions or more.
        column: a measured one in which less is better.
        against: the estimator that the others are compared with.

    Returns:
        A row for each point and estimator: `point` (the settings in which it differs from the
        study's most common ones), `n_pairs`, `estimator`, `mean`, `repetitions`, `failed`,
        `difference` to `against` with `low` and `high`, and `standing`: `best`, `tied` (its paired
        interval against the best contains zero) or empty. `oracle` is told the basis and takes no
        part in it.

    Raises:
        InputError: a column that was not measured, an estimator without rows, one repetition.
    """
    checks.choice("column", column, [name for name in COLUMNS if name in rows])
    checks.choice("estimator", against, sorted(set(rows["estimator"])))
    repetitions = rows["repetition"].nunique()
    checks.require(
        repetitions >= 2,
        f"an interval needs at least 2 repetitions, the results hold {repetitions}; sweep with "
        "--set repetitions=10",
    )
    rows, labels = _at_every_setting(rows)
    tables = [
        _compare_point(mine, column, against).assign(point=point, n_pairs=n_pairs)
        for (point, n_pairs), mine in rows.groupby([labels, "n_pairs"], sort=False)
    ]
    order = ["point", "n_pairs", "estimator", "mean", "repetitions", "failed"]
    return pd.concat(tables, ignore_index=True)[[*order, "difference", "low", "high", "standing"]]


def point_labels(rows: pd.DataFrame) -> pd.Series:
    """For every row the settings of its world and fit that differ from the study's usual ones."""
    swept = [
        name for name in POINT_COLUMNS if name in rows and rows[name].nunique(dropna=False) > 1
    ]
    # settings that only differ from estimator to estimator make no points
    of_fits = [name for name in rows if str(name).startswith("fit_")]
    swept += [
        name for name in of_fits if rows.groupby("estimator")[name].nunique(dropna=False).max() > 1
    ]
    usual = {name: _plain(rows[name].mode(dropna=name in of_fits).iloc[0]) for name in swept}
    # an estimator that does not take a setting has no place on its axis
    moves = {
        name: rows.groupby("estimator")[name].nunique(dropna=False) > 1
        for name in swept
        if name in of_fits
    }

    def label(row: pd.Series) -> str:
        unusual = [
            name
            for name in swept
            if _plain(row[name]) != usual[name]
            and (name not in moves or moves[name][row["estimator"]])
        ]
        said = (f"{name.removeprefix('fit_')} = {_said(row[name])}" for name in unusual)
        return ", ".join(said) or _USUAL

    return pd.Series(
        [label(row) for _, row in rows[[*swept, "estimator"]].iterrows()], rows.index, name="point"
    )


def _at_every_setting(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Rows with their labels, those of an estimator that ignores a swept setting at each value.

    A class that does not take a setting has the same rows whatever its value: they are what the
    others are compared with at each.
    """
    labels = point_labels(rows)
    place = ["n_pairs", "estimator", "repetition"]
    once = ~rows.assign(point=labels)[["point", *place]].duplicated()
    rows, labels = rows[once], labels[once]
    settings = rows[[name for name in POINT_COLUMNS if name in rows]]
    plain = [str(tuple(map(_plain, line))) for line in settings.itertuples(index=False)]
    worlds = pd.Series(plain, index=rows.index)
    added, names = [rows], [labels]
    for world in worlds.unique():
        here = worlds == world
        for label in labels[here].unique():
            have = set(rows.loc[here & (labels == label), "estimator"])
            missing = rows[here & ~rows["estimator"].isin(have)]
            missing = missing.drop_duplicates(place)
            added.append(missing)
            names.append(pd.Series(label, missing.index))
    return pd.concat(added, ignore_index=True), pd.concat(names, ignore_index=True).rename("point")


def run_compare(study: str, *, columns: Sequence[str], against: str, out: Path) -> pd.DataFrame:
    """The command: a table for each point on the terminal, and all numbers as a CSV file."""
    study = spec.study_name(study)
    rows = results.load_results(study, out)
    measured = [name for name in COLUMNS if name in rows]
    checks.require(
        bool(measured),
        f"the rows of {study} hold none of {', '.join(COLUMNS)}; measure one of them",
    )
    columns = list(columns) or measured
    table = pd.concat(
        [compare(rows, name, against=against).assign(column=name) for name in columns],
        ignore_index=True,
    )
    for (point, n_pairs), mine in table.groupby(["point", "n_pairs"], sort=False):
        terminal.console.print(_drawn(mine, f"{point}, n = {n_pairs}"))
    terminal.console.print(
        f"* best; = tied with it (paired 95 % interval over {rows['repetition'].nunique()} "
        f"repetitions contains 0); in brackets the paired difference to {against}"
    )
    path = results.study_folder(study, out) / "comparison.csv"
    try:
        table.to_csv(path, index=False)
    except OSError as error:
        raise checks.InputError(
            f"cannot write {path} ({error.strerror}); copy the results into a writable folder"
        ) from None
    terminal.console.print(f"wrote: {path}")
    return table


def _compare_point(rows: pd.DataFrame, column: str, against: str) -> pd.DataFrame:
    values = rows.pivot(index="repetition", columns="estimator", values=column)
    failed = (rows["status"] == FAILED).groupby(rows["estimator"]).sum()
    # a mean over the repetitions that succeeded would reward those that fail where it is hard
    means = values.mean().where(failed == 0)
    competing = means.drop(labels=list(_GIVEN_THE_TRUTH), errors="ignore").dropna()
    best = competing.idxmin() if len(competing) else None
    found = []
    for name in values.columns:
        gap, _ = _paired(values, name, against)
        to_best, tied = _paired(values, name, best) if best is not None else (None, False)
        rivals = to_best is not None and name in competing
        standing = "best" if name == best else "tied" if rivals and tied else ""
        found.append(
            {
                "estimator": name,
                "mean": means[name],
                "repetitions": int(values[name].notna().sum()),
                "failed": int(failed[name]),
                "difference": gap.estimate if gap else np.nan,
                "low": gap.low if gap else np.nan,
                "high": gap.high if gap else np.nan,
                "standing": standing,
            }
        )
    return pd.DataFrame(found)


def _paired(values: pd.DataFrame, name: str, other: str) -> tuple[statistics.Interval | None, bool]:
    """Interval of the mean difference `name - other`, and whether it contains zero."""
    if name == other or other not in values:
        return None, False
    gaps = (values[name] - values[other]).dropna()
    if len(gaps) < 2:
        return None, False
    interval = statistics.mean_interval(gaps.to_numpy())
    return interval, interval.low <= 0.0 <= interval.high


def _drawn(table: pd.DataFrame, title: str) -> str:
    """Estimators as lines, by the first column's mean; those that failed come last."""
    columns = list(dict.fromkeys(table["column"]))
    place = table.set_index(["column", "estimator"])
    order = place.loc[columns[0], "mean"].sort_values(na_position="last").index
    entries = {column: [_entry(place.loc[(column, name)]) for name in order] for column in columns}
    lines = pd.DataFrame(entries, index=order).rename_axis(None).to_string()
    return f"{title}\n{lines}\n"


def _entry(row: pd.Series) -> str:
    if row["failed"]:
        return f"{row['failed']} failed"
    mark = {"best": "*", "tied": "="}.get(row["standing"], " ")
    said = f"{row['mean']:.3g}{mark}"
    if np.isnan(row["difference"]):
        return said
    half = (row["high"] - row["low"]) / 2
    return f"{said} ({row['difference']:+.2g}±{half:.1g})"


def _plain(value: object) -> object:
    """NaN and None, which stand for an absent setting, as one."""
    return None if pd.isna(value) else value


def _said(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
