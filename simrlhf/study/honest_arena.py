"""One split of real comparisons, made ready to fit: features of the training rows, parts, users."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

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


class Learned(NamedTuple):
    """A table whose features are on the scale of some training rows, learned from them alone.

    Attributes:
        table: the table, numeric features divided by their scale.
        item_features: `(M, d1)` features of the texts; `None` for numeric features.
        features: what was learned: text features, or the scales `(d1, d2)`.
    """

    table: PairTable
    item_features: np.ndarray | None
    features: text.TextFeatures | np.ndarray

    def pairs(self, keep: np.ndarray, groups: np.ndarray | None = None) -> Preferences:
        """The rows named by `keep`, under other `groups` if given."""
        rows = self.table.select(keep)
        rows = rows if groups is None else replace(rows, groups=groups[keep])
        return rows.to_preferences(item_features=self.item_features)


def learn_features(table: PairTable, train: np.ndarray, *, dimensions: int) -> Learned:
    """Learn features from the rows named by `train` and give them to the whole table."""
    if table.texts is None:
        scales = tables.fit_scales(table, train)
        return Learned(tables.scaled(table, scales), None, scales)
    texts = [table.texts[i] for i in table.used_items(train)]
    # few or short texts hold fewer directions than asked for
    fitted = text.fit(texts, dimensions=min(dimensions, text.most_dimensions(texts)))
    return Learned(table, text.transform(fitted, table.texts), fitted)


def make_arena(
    table: PairTable, part: np.ndarray, *, dimensions: int, min_train: int, min_test: int
) -> Arena:
    """Learn the features of one split and hand out its pairs.

    Args:
        part: `(P,)` part of each pair.
        min_train: a user is fitted with at least this many training pairs (of positive weight).
        min_test: a fitted user is scored with at least this many pairs in the part that scores.

    Raises:
        InputError: fewer than two users can be scored.
    """
    names, user = np.unique(table.user_ids, return_inverse=True)
    counted = np.asarray(table.weights) > 0
    counts = [
        np.bincount(user[(part == p) & counted], minlength=names.size)
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
    learned = learn_features(table, part == splits.TRAIN, dimensions=dimensions)
    # as groups, the part of each pair goes through the reordering by user
    pairs = learned.pairs(fitted[user], groups=part)
    part_of = np.asarray(pairs.groups)
    return Arena(
        pairs.reweighted(pairs.weights * (part_of == splits.TRAIN)),
        pairs.reweighted(pairs.weights * (part_of != splits.TEST)),
        *(learned.pairs((part == p) & enough[p][user]) for p in (splits.VALIDATION, splits.TEST)),
        n_users=names.size,
    )


def part_sizes(units: splits.Units, part: np.ndarray, arena: Arena) -> dict[str, int]:
    """Groups and pairs of each part, users fitted, scored and dropped."""
    sizes = {}
    for p, name in enumerate(splits.PARTS):
        sizes[f"{name}_{units.noun}"] = np.unique(units.index[part == p]).size
        sizes[f"{name}_rows"] = int((part == p).sum())
    sizes["users_fitted"] = arena.train.n_users
    sizes["users_scored"] = arena.test.n_users
    sizes["users_not_scored"] = arena.n_users - arena.test.n_users
    return sizes
