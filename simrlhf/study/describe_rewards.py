"""What comparisons allow a reward to be: features, separable labels, structure among users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.data import separation
from simrlhf.data.separation import KINDS
from simrlhf.estimators import fit
from simrlhf.study import honest, spectrum_null
from simrlhf.study.describe_counts import (
    Case,
    Section,
    not_applicable,
    spread,
)

# the likelihood of separated labels has no maximum: a penalty of one pair bounds the pooled reward,
# also where it was not decided whether they are separated
_RIDGE_IF_SEPARATED = 1.0


class Examined(NamedTuple):
    """Rows of one user, or of all: rank and condition number of the features, separation."""

    rank: int
    condition: float
    kind: str
    n_separated: int


def examine(case: Case, rows: slice) -> Examined:
    """Rank, condition number and separation of some rows; no separation for real responses."""
    features = case.preferences.features[rows]
    space = separation.row_space(features.reshape(len(features), -1))
    if not case.is_preference:
        return Examined(space.rank, space.condition, separation.NOT_EXAMINED, 0)
    found = separation.find_separation(space, case.preferences.labels[rows])
    return Examined(space.rank, space.condition, *found)


def features(case: Case, pooled: Examined, users: list[Examined]) -> Section:
    """Shape, constant features, rank and condition number, of all rows and by user."""
    if pooled.rank == 0:
        return not_applicable("no feature differs between the two items of any row")
    x = case.preferences.features
    n_features = x.shape[1] * x.shape[2]
    ranks = np.array([user.rank for user in users])
    conditions = np.array([user.condition for user in users])
    full = ranks == pooled.rank
    overall = {
        "d1": x.shape[1],
        "d2": x.shape[2],
        "of_texts": case.table.texts is not None,
        "n_features": n_features,
        "constant": [tuple(place) for place in np.argwhere(~x.any(axis=0)).tolist()],
        "rank": pooled.rank,
        "condition": pooled.condition,
        "rank_per_user": spread(ranks),
        "n_users_of_full_rank": int(full.sum()),
        "condition_per_full_user": spread(conditions[full]) if full.any() else None,
    }
    return Section(overall, {"rank": ranks, "condition": conditions})


def separability(case: Case, pooled: Examined, users: list[Examined]) -> Section:
    """Kinds of separation: of all rows by one reward, and of each user's by a reward of the own."""
    if not case.is_preference:
        return not_applicable("least squares always has a solution")
    counts = Counter(user.kind for user in users)
    overall = {
        "pooled": {"kind": pooled.kind, "n_separated": pooled.n_separated},
        "users": {kind: counts[kind] for kind in KINDS},
    }
    by_user = {
        "separability": np.array([user.kind for user in users]),
        "n_separated": np.array([user.n_separated for user in users]),
    }
    return Section(overall, by_user)


def spectrum(
    case: Case,
    pooled: Examined,
    *,
    permutations: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> Section:
    """The users' scores at the pooled reward against the nulls, and the ranks this suggests."""
    bounded = case.is_preference and pooled.kind != separation.OVERLAP
    try:
        spectrum_null.require_enough(case.preferences, pooled.rank)
        common = fit(case.preferences, "global", ridge=_RIDGE_IF_SEPARATED if bounded else 0.0)
        found = spectrum_null.spectrum_against_null(
            case.preferences,
            honest.common_reward(common),
            pair=case.asked.pair,
            permutations=permutations,
            seed=seed,
            progress=progress,
        )
    except checks.InputError as error:
        return not_applicable(str(error))
    within_pairs, within_groups, rest = found.n_traded
    overall = {
        "rank": found.rank,
        "suggested_ranks": suggested_ranks(found.rank, case, pooled),
        "singular_values": found.singular_values,
        "thresholds": found.thresholds,
        "p_values": found.p_values,
        "p_values_rows_permuted": found.p_values_each[:, 0],
        "p_values_signs_flipped": found.p_values_each[:, 1],
        "rows_permuted": {
            "within_pairs": within_pairs,
            "within_groups": within_groups,
            "among_all": rest,
        },
        "n_alone": rest if case.table.groups is not None else 0,
        "permutations": permutations,
        "pooled_status": common.status.name,
        "pooled_ridge": common.ridge,
        "pooled_separability": pooled.kind if case.is_preference else None,
    }
    return Section(overall, {})


def suggested_ranks(rank: int, case: Case, pooled: Examined) -> list[int]:
    """Ranks worth trying where users deviate from the common reward along `rank` directions.

    A fit starts from zero, so the common reward belongs to `Delta`: it lies in the deviations'
    space or adds a rank of its own, at most `min(d1, d2)`. Smaller ranks are tried too: a direction
    that stands out may still cost more than it tells, as held-out pairs show (UKPConvArg1: 6 stand
    out, validation chooses rank 1).
    """
    d1, d2 = case.preferences.d1, case.preferences.d2
    highest = min(rank + min(d1, d2), d1, case.n_users * d2, pooled.rank)
    return list(range(1, highest + 1))
