"""`PairTable`: raw comparisons of people's data, before features are chosen.

A table keeps what the file said: who compared, what was chosen, and either numeric differences,
numeric items or texts. `to_preferences` turns it into the `Preferences` that estimators read; a
study does so once per split, with features learned from the training rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simrlhf.core import checks, links
from simrlhf.data.preferences import Preferences

_KINDS = ("differences", "items", "texts")
_ROW_FIELDS = ("user_ids", "choice", "differences", "pairs", "weights", "groups", "pair_ids")
# a feature that varies less than this, relative to its size, is rounding: it is not scaled up
_CONSTANT = 1e-12
# products of a squared weight and a squared response stay finite, and above zero, between these
_LEAST, _LARGEST = 1e-50, 1e50


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTable:
    """Comparisons of `P` pairs with exactly one kind of content.

    Attributes:
        user_ids: `(P,)` who compared.
        choice: `(P,)` 1 where the first is preferred, 0 the second, or the probability of the
            first; real responses for the identity link.
        differences: `(P, d1, d2)` feature of the first minus that of the second, or
        items: `(M, d1, d2)` features of single items, or
        texts: `M` texts; items and texts go with
        pairs: `(P, 2)` index of the first and of the second item.
        weights: `(P,)` a pair of weight 2 counts as two; all ones by default.
        groups: `(P,)` unit of an honest split, or `None`.
        pair_ids: `(P,)` names of the pairs, or `None`; the same pair may be put to many users.
        link: `"logistic"`, `"probit"`, `"laplace"`, `"label_flip"`, or `"identity"`.

    Raises:
        InputError: no rows, shapes that do not agree, more or less than one kind of content, the
            largest weight or real response outside 1e-50 to 1e50 and not 0.
    """

    user_ids: np.ndarray
    choice: np.ndarray
    differences: np.ndarray | None = None
    items: np.ndarray | None = None
    texts: tuple[str, ...] | None = None
    pairs: np.ndarray | None = None
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None
    pair_ids: np.ndarray | None = None
    link: str = "logistic"

    def __post_init__(self) -> None:
        links.get_link(self.link)
        checks.require(self.n_pairs > 0, "the table has no pairs: at least one is needed")
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        checks.require(
            len(given) == 1,
            f"a table holds one of {', '.join(_KINDS)}; got {' and '.join(given) or 'none'}",
        )
        checks.require(
            (self.pairs is None) == (given == ["differences"]),
            "pairs go with items or texts, and differences stand alone",
        )
        if self.weights is None:
            object.__setattr__(self, "weights", np.ones(self.n_pairs))
        shapes = {"choice": (), "weights": (), "groups": (), "pair_ids": (), "pairs": (2,)}
        for name, rest in {**shapes, "differences": (None, None)}.items():
            if (array := getattr(self, name)) is not None:
                checks.shape(name, array, (self.n_pairs, *rest), remedy="one row for each pair")
        _check_size("weights", np.asarray(self.weights))
        if not links.get_link(self.link).is_preference:
            _check_size("responses", self.choice)

    @property
    def kind(self) -> str:
        """What the pairs hold: `"differences"`, `"items"` or `"texts"`."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)

    @property
    def n_pairs(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items or texts; 0 for differences."""
        return len(getattr(self, self.kind)) if self.pairs is not None else 0

    @property
    def strict(self) -> np.ndarray:
        """`(P,)` true where the choice takes a side (a choice of 1/2 does not)."""
        if not links.get_link(self.link).is_preference:
            return np.ones(self.n_pairs, bool)
        return self.choice != 0.5

    def select(self, keep: np.ndarray) -> PairTable:
        """The rows that `keep` names (booleans or indices); the list of items stays whole."""
        rows = {name: getattr(self, name) for name in _ROW_FIELDS}
        return replace(self, **{name: v if v is None else v[keep] for name, v in rows.items()})

    def with_at_least(self, n_strict: int) -> PairTable:
        """The pairs of users who took a side in at least `n_strict` pairs.

        Raises:
            InputError: no user has that many.
        """
        n_strict = checks.integer("n_strict", n_strict, low=0)
        names, index = np.unique(self.user_ids, return_inverse=True)
        counts = np.bincount(index, weights=self.strict, minlength=names.size)
        checks.require(
            bool((counts >= n_strict).any()),
            f"no user has {n_strict} strict pairs (the largest count is {int(counts.max())}); "
            "lower the minimum",
        )
        return self.select((counts >= n_strict)[index])

    def used_items(self, keep: np.ndarray | None = None) -> np.ndarray:
        """Sorted indices of the items that the rows named by `keep` (all by default) compare."""
        if self.pairs is None:
            raise checks.InputError("a table of differences has no items")
        return np.unique(self.pairs if keep is None else self.pairs[keep])

    def to_preferences(
        self, *, item_features: np.ndarray | None = None, users: np.ndarray | None = None
    ) -> Preferences:
        """Build the `Preferences` of all rows.

        Args:
            item_features: `(M, d1)` or `(M, d1, d2)` features of the items; needed for texts, and
                in place of the items themselves where given.
            users: the users in the order wanted; by default sorted by name.
        """
        features = items = None
        if self.differences is not None:
            checks.require(item_features is None, "a table of differences takes no item_features")
            features = self.differences
        else:
            items = self.items if item_features is None else np.asarray(item_features)
            if items is None:
                raise checks.InputError("texts need item_features: see simrlhf.data.text.fit")
            checks.require(
                len(items) == self.n_items,
                f"item_features has {len(items)} rows for {self.n_items} items",
            )
        return Preferences.from_pairs(
            self.user_ids,
            features,
            self.choice,
            self.weights,
            items=items,
            pairs=self.pairs,
            groups=self.groups,
            users=users,
            link=self.link,
        )


def fit_scales(table: PairTable, keep: np.ndarray) -> np.ndarray:
    """Scale `(d1, d2)` of each numeric feature over the rows that `keep` names.

    The standard deviation over the items compared there; for differences the root mean square
    (their sign is the order of the two items, so they are not centred). Constant features get 1.
    """
    if table.items is not None:
        used = table.items[table.used_items(keep)]
        size = np.abs(used).max(axis=0)
        return safe_scales(size * _in_units(used, size).std(axis=0), size)
    if table.differences is None:
        raise checks.InputError("texts have no numeric features to scale")
    used = table.differences[keep]
    size = np.abs(used).max(axis=0)
    return safe_scales(size * np.sqrt(np.mean(_in_units(used, size) ** 2, axis=0)), size)


def scaled(table: PairTable, scales: np.ndarray) -> PairTable:
    """The table with every numeric feature divided by its scale."""
    if table.items is not None:
        return replace(table, items=table.items / scales)
    if table.differences is None:
        raise checks.InputError("texts have no numeric features to scale")
    return replace(table, differences=table.differences / scales)


def safe_scales(spread: np.ndarray, size: np.ndarray) -> np.ndarray:
    """`spread`, with 1 where it is zero up to the rounding of numbers as large as `size`."""
    return np.where(spread > _CONSTANT * size, spread, 1.0)


def _in_units(values: np.ndarray, size: np.ndarray) -> np.ndarray:
    # at most one, so that squares of 1e300 stay finite and those of 1e-300 above zero
    return values / np.where(size > 0, size, 1.0)


def _check_size(name: str, values: np.ndarray) -> None:
    largest = float(np.abs(values).max())
    checks.require(
        not largest > _LARGEST,
        f"{name} reach {largest:.3g}, above {_LARGEST:g}, where float64 products overflow; "
        f"rescale the {name}",
    )
    checks.require(
        not 0 < largest < _LEAST,
        f"{name} reach {largest:.3g} only, below {_LEAST:g}, where float64 products vanish; "
        f"rescale the {name}",
    )
