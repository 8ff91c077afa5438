"""One split of real comparisons, made ready to fit: features of the training rows, parts, users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simrlhf.core import checks
from simrlhf.data import tables, text
from simrlhf.data.preferences import Preferences
from simrlhf.data.tables import PairTable
from simrlhf.study import honest_splits as splits


@dataclass(frozen=True, eq=False)
class Arena:
    """One split, ready to fit.

    Attributes:
        train, train_and_validation: the same pairs of the same users under two weightings.
        validation, test: the pairs that score, of the users who have enough of them.
        n_users: users of the table, whether they take part or not.
    """

    train: Preferences
    train_and_validation: Preferences
    validation: Preferences
    test: Preferences
    n_users: int


def learn_features(
    table: PairTable, train: np.ndarray, dimensions: int
) -> tuple[PairTable, np.ndarray | None, text.TextFeatures | None]:
    """The table with its features on the scale of the training rows, learned from them alone."""
    if table.texts is None:
        return tables.scaled(table, tables.fit_scales(table, train)), None, None
    fitted = text.fit([table.texts[i] for i in table.used_items(train)], dimensions=dimensions)
    return table, text.transform(fitted, table.texts), fitted


def make_arena(
    table: PairTable, part: np.ndarray, *, dimensions: int, min_train: int, min_test: int
) -> Arena:
    names, user = np.unique(table.user_ids, return_inverse=True)
    scored, items, _ = learn_features(table, part == splits.TRAIN, dimensions)
    counts = [
        np.bincount(user[(part == p) & (table.weights > 0)], minlength=names.size)
        for p in range(len(splits.PARTS))
    ]
    fitted = counts[splits.TRAIN] >= min_train
    enough = [fitted & (count >= min_test) for count in counts]
    for p in (splits.VALIDATION, splits.TEST):
        checks.require(
            enough[p].sum() >= 2,
            f"only {enough[p].sum()} of {names.size} users have {min_train} training and "
            f"{min_test} {splits.PARTS[p]} pairs in a split, at least 2 are needed; lower "
            "min_train or min_test, or bring more pairs or groups",
        )
    mine = fitted[user]
    # groups carries the part through the reordering by user
    pairs = replace(scored.select(mine), groups=part[mine]).to_preferences(item_features=items)
    part_of = np.asarray(pairs.groups)
    return Arena(
        pairs.reweighted(pairs.weights * (part_of == splits.TRAIN)),
        pairs.reweighted(pairs.weights * (part_of != splits.TEST)),
        *(
            scored.select((part == p) & enough[p][user]).to_preferences(item_features=items)
            for p in (splits.VALIDATION, splits.TEST)
        ),
        n_users=names.size,
    )


def part_sizes(units: splits.Units, part: np.ndarray, arena: Arena) -> dict[str, int]:
    """Groups and pairs of each part, users fitted, scored and dropped."""
    sizes = {}
    for p, name in enumerate(splits.PARTS):
        sizes[f"{name}_{units.noun}"] = np.unique(units.index[part == p]).size
        sizes[f"{name}_pairs_held"] = int((part == p).sum())
    sizes["users_fitted"] = arena.train.n_users
    sizes["users_scored"] = arena.test.n_users
    sizes["users_not_scored"] = arena.n_users - arena.test.n_users
    return sizes


