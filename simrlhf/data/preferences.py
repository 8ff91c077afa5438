"""`Preferences`: pairwise comparisons of many users, stored flat.

Users differ in how many pairs they bring (a shipped data set has 27,853 pairs and would pad to
136,899), so pairs lie in one array ordered by user, with offsets. Solvers read them as tiles
(`simrlhf.data.tiles`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from simrlhf.core import checks, links
from simrlhf.data.tiles import Tiles, make_tiles

# fourth powers of the features, which second-order solvers form, stay finite below it
_LARGEST_FEATURE = 1e50


class Preferences:
    """Comparisons `x = phi(tau_0) - phi(tau_1)` with labels, grouped by user; immutable.

    Args:
        features: `(N, n, d1, d2)`, or `(N, n, d1)` for `d2 = 1`; the feature of the first item
            minus that of the second.
        labels: `(N, n)`: 1 where the first item is preferred, or the probability that it is;
            real responses for the identity link.
        mask: `(N, n)`, true where a pair exists; all of them by default.
        link: `"logistic"`, `"probit"`, `"laplace"`, `"label_flip"`, or `"identity"`.

    Attributes:
        features: `(P, d1, d2)` of all `P` pairs, ordered by user.
        labels, weights: `(P,)`.
        offsets: `(N + 1,)`; user `i` owns pairs `offsets[i]:offsets[i + 1]`.
        user_ids: `(N,)` names of the users.
        groups: `(P,)` unit of an honest split for each pair, or `None`.

    Raises:
        InputError: shapes that do not agree, values that are not finite, preference labels outside
            [0, 1], negative weights, a user without pairs.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    user_ids: np.ndarray
    groups: np.ndarray | None
    link: str

    def __init__(
        self,
        *,
        features: np.ndarray,
        labels: np.ndarray,
        mask: np.ndarray | None = None,
        link: str = "logistic",
    ) -> None:
        features = checks.numbers("features", features)
        if features.ndim == 3:
            features = features[..., None]
        checks.require(
            features.ndim == 4,
            f"features has shape {features.shape}, expected (users, pairs, d1, d2) or "
            "(users, pairs, d1); use Preferences.from_pairs for flat data",
        )
        labels = checks.numbers("labels", labels)
        checks.shape("labels", labels, features.shape[:2], remedy="one label for each pair")
        keep = np.ones(labels.shape) if mask is None else checks.numbers("mask", mask)
        checks.shape("mask", keep, labels.shape, remedy="one entry for each pair")
        checks.require(
            bool(np.isin(keep, (0.0, 1.0)).all()), "mask must hold true and false (or 1 and 0) only"
        )
        keep = keep.astype(bool)
        counts = keep.sum(axis=1)
        self._store(
            features=features[keep],
            labels=labels[keep],
            weights=None,
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            user_ids=np.arange(features.shape[0]),
            groups=None,
            link=link,
        )

    @classmethod
    def from_pairs(
        cls,
        user: Sequence | np.ndarray,
        features: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        *,
        items: np.ndarray | None = None,
        pairs: np.ndarray | None = None,
        groups: Sequence | np.ndarray | None = None,
        users: Sequence | np.ndarray | None = None,
        link: str = "logistic",
    ) -> Preferences:
        """Build from one row per pair, in any order, with any number of pairs per user.

        Args:
            user: `(P,)` user of each pair (numbers or names).
            features: `(P, d1, d2)` or `(P, d1)` differences; or give `items` and `pairs`.
            labels: `(P,)`.
            weights: `(P,)` non-negative; a pair of weight 2 counts as two.
            items: `(M, d1, d2)` or `(M, d1)` features of single items.
            pairs: `(P, 2)` indices into `items`: first and second item.
            groups: `(P,)` unit of an honest split.
            users: the users in the order wanted; by default those of `user`, sorted.
            link: `"logistic"`, `"probit"`, `"laplace"`, `"label_flip"`, or `"identity"`.
        """
        checks.require(labels is not None, "labels are missing: give one label for each pair")
        if features is None:
            features = _differences(items, pairs)
        else:
            checks.require(
                items is None and pairs is None, "give features, or items and pairs, not both"
            )
            features = checks.numbers("features", features)
        if features.ndim == 2:
            features = features[..., None]
        user = checks.names("user", user)
        n_pairs = user.shape[0] if user.ndim == 1 else -1
        checks.require(
            n_pairs > 0, f"user has shape {user.shape}, expected one entry for each pair"
        )
        checks.shape("features", features, (n_pairs, None, None), remedy="one row for each pair")
        labels = checks.numbers("labels", labels)
        checks.shape("labels", labels, (n_pairs,), remedy="one label for each pair")
        if weights is not None:
            weights = checks.numbers("weights", weights)
            checks.shape("weights", weights, (n_pairs,), remedy="one weight for each pair")
        if groups is not None:
            groups = checks.names("groups", groups)
            checks.shape("groups", groups, (n_pairs,), remedy="one group for each pair")
        user_ids, index = _user_index(user, users)
        order = np.argsort(index, kind="stable")
        counts = np.bincount(index, minlength=user_ids.size)
        made = cls.__new__(cls)
        made._store(
            features=features[order],
            labels=labels[order],
            weights=None if weights is None else weights[order],
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            user_ids=user_ids,
            groups=None if groups is None else groups[order],
            link=link,
        )
        return made

    @property
    def n_users(self) -> int:
        return self.offsets.size - 1

    @property
    def d1(self) -> int:
        return self.features.shape[1]

    @property
    def d2(self) -> int:
        return self.features.shape[2]

    @property
    def counts(self) -> np.ndarray:
        """`(N,)` pairs of each user."""
        return np.diff(self.offsets)

    @property
    def n_total(self) -> int:
        """Number of pairs over all users."""
        return int(self.offsets[-1])

    @cached_property
    def users(self) -> np.ndarray:
        """`(P,)` index of each pair's user."""
        return _frozen(np.repeat(np.arange(self.n_users), self.counts))

    def select(self, keep: np.ndarray) -> Preferences:
        """The pairs where `keep` `(P,)` is true, with the same users (each must keep one)."""
        keep = np.asarray(keep)
        checks.shape("keep", keep, (self.n_total,), remedy="one entry for each pair")
        keep = keep.astype(bool)
        made = type(self).__new__(type(self))
        counts = np.bincount(self.users[keep], minlength=self.n_users)
        made._store(
            features=self.features[keep],
            labels=self.labels[keep],
            weights=self.weights[keep],
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            user_ids=self.user_ids,
            groups=None if self.groups is None else self.groups[keep],
            link=self.link,
        )
        return made

    def of_users(self, wanted: np.ndarray) -> Preferences:
        """The users where `wanted` `(N,)` is true, with all their pairs and their ids."""
        wanted = np.asarray(wanted)
        checks.shape("wanted", wanted, (self.n_users,), remedy="one entry for each user")
        wanted = wanted.astype(bool)
        keep = wanted[self.users]
        made = type(self).__new__(type(self))
        made._store(
            features=self.features[keep],
            labels=self.labels[keep],
            weights=self.weights[keep],
            offsets=np.concatenate([[0], np.cumsum(self.counts[wanted])]),
            user_ids=self.user_ids[wanted],
            groups=None if self.groups is None else self.groups[keep],
            link=self.link,
        )
        return made

    def reweighted(self, weights: np.ndarray) -> Preferences:
        """The same pairs with other `weights` `(P,)`; 0 switches a pair off but keeps its place.

        Kernels see the same shapes, so folds and nested samples need no new compilation.
        """
        weights = checks.numbers("weights", weights)
        checks.shape("weights", weights, (self.n_total,), remedy="one weight for each pair")
        return self._with(self.labels, weights)

    def switched_to_first(self, counts: np.ndarray) -> Preferences:
        """Weight 1 for the first `counts[i]` pairs of user i, 0 for his others: `counts (N,)`.

        Unlike with `first`, users may differ and shapes stay: a grid of sizes is one compilation.
        """
        place = np.arange(self.n_total) - self.offsets[self.users]
        return self.reweighted((place < counts[self.users]).astype(float))

    def relabelled(self, labels: np.ndarray) -> Preferences:
        """The same pairs with other `labels` `(P,)`, as when labels are drawn again."""
        labels = checks.numbers("labels", labels)
        checks.shape("labels", labels, (self.n_total,), remedy="one label for each pair")
        return self._with(labels, self.weights)

    def _with(self, labels: np.ndarray, weights: np.ndarray) -> Preferences:
        made = type(self).__new__(type(self))
        made._store(
            features=self.features,
            labels=labels,
            weights=weights,
            offsets=self.offsets,
            user_ids=self.user_ids,
            groups=self.groups,
            link=self.link,
        )
        return made

    def first(self, n_pairs: int) -> Preferences:
        """The first `n_pairs` pairs of every user: nested samples make paired curves over n."""
        n_pairs = checks.integer(
            "n_pairs", n_pairs, low=1, high=int(self.counts.min()), remedy="sample more pairs"
        )
        return self.select(np.arange(self.n_total) - self.offsets[self.users] < n_pairs)

    def user(self, index: int) -> slice:
        """Where user `index` lies in the flat arrays."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def chunks(self) -> Iterator[Tiles]:
        """Yield the pairs as tiles; one chunk here, many for a source larger than memory."""
        yield self._tiles

    @cached_property
    def _tiles(self) -> Tiles:
        return make_tiles(
            self.counts, features=self.features, labels=self.labels, weights=self.weights
        )

    def _store(
        self,
        *,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None,
        offsets: np.ndarray,
        user_ids: np.ndarray,
        groups: np.ndarray | None,
        link: str,
    ) -> None:
        weights = np.ones(labels.shape) if weights is None else weights
        self.features, self.labels = _frozen(features), _frozen(labels)
        self.weights, self.offsets = _frozen(weights), _frozen(offsets)
        self.user_ids, self.groups = user_ids, groups
        self.link = links.get_link(link).name
        self._check()

    def _check(self) -> None:
        checks.require(self.n_users > 0 and self.n_total > 0, "no pairs: at least one is needed")
        checks.require(
            self.d1 > 0 and self.d2 > 0,
            f"features have d1 = {self.d1}, d2 = {self.d2}; both must be at least 1",
        )
        for name in ("features", "labels", "weights"):
            checks.finite(name, getattr(self, name))
        largest = float(np.abs(self.features).max())
        checks.require(
            largest <= _LARGEST_FEATURE,
            f"features reach {largest:.3g}, above {_LARGEST_FEATURE:g}, where float64 products "
            "overflow; rescale the features",
        )
        checks.require(
            bool((self.weights >= 0).all()),
            f"weights must not be negative, got {self.weights.min():g}",
        )
        weight_of = np.bincount(self.users, weights=self.weights, minlength=self.n_users)
        empty = np.flatnonzero(weight_of <= 0)
        checks.require(
            empty.size == 0,
            f"{empty.size} of {self.n_users} users have no pairs (the first is "
            f"{self.user_ids[empty[0]] if empty.size else ''}); every user needs at least one pair "
            "of positive weight: drop these users",
        )
        if links.get_link(self.link).is_preference:
            low, high = float(self.labels.min()), float(self.labels.max())
            worst = low if low < 0 else high
            checks.require(
                0.0 <= low and high <= 1.0,
                f"label {worst:g} lies outside [0, 1], the range of a preference under the "
                f'{self.link} link; recode the labels or use link="identity" for real responses',
            )

    def __repr__(self) -> str:
        return (
            f"Preferences(n_users={self.n_users}, n_total={self.n_total}, d1={self.d1}, "
            f"d2={self.d2}, link={self.link!r})"
        )


def _differences(items: np.ndarray | None, pairs: np.ndarray | None) -> np.ndarray:
    checks.require(
        items is not None and pairs is not None, "give features, or both items and pairs"
    )
    items, pairs = checks.numbers("items", items), checks.names("pairs", pairs)
    checks.shape("pairs", pairs, (None, 2), remedy="two item numbers for each pair")
    checks.require(
        np.issubdtype(pairs.dtype, np.integer), f"pairs must hold integers, got {pairs.dtype}"
    )
    low, high = int(pairs.min(initial=0)), int(pairs.max(initial=0))
    checks.require(
        low >= 0 and high < items.shape[0],
        f"pairs names item {low if low < 0 else high}, but items are numbered 0 to "
        f"{items.shape[0] - 1}",
    )
    return items[pairs[:, 0]] - items[pairs[:, 1]]


def _user_index(
    user: np.ndarray, users: Sequence | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    found, index = np.unique(user, return_inverse=True)
    if users is None:
        return found, index
    wanted = np.asarray(users)
    place = {name: i for i, name in enumerate(wanted.tolist())}
    unknown = [name for name in found.tolist() if name not in place]
    checks.require(
        not unknown, f"pairs of a user who is not in users: {unknown[0] if unknown else ''}"
    )
    return wanted, np.asarray([place[name] for name in found.tolist()])[index]


def _frozen(array: np.ndarray) -> np.ndarray:
    array = np.ascontiguousarray(array)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
