"""`rank="auto"`: the smallest rank with a held-out likelihood within one standard error of best."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, links, numerics, statistics, streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators.problem import PreferenceSource
from simrlhf.estimators.result import FitResult

_FOLDS = 5
# losses this close, relatively, are equal: without label noise ranks differ by rounding alone
_ROUNDING = 1e-9
# stop after this many ranks in a row that are worse than the best by more than its error
_PATIENCE = 2


class RankChoice(NamedTuple):
    """The chosen rank and the evidence.

    Attributes:
        rank: the smallest within one standard error of the best.
        ranks: `(m,)` ranks tried.
        losses: `(m,)` held-out loss per pair, mean over folds.
        errors: `(m,)` standard error over folds of the difference to the best rank.
    """

    rank: int
    ranks: np.ndarray
    losses: np.ndarray
    errors: np.ndarray


def choose_rank(
    preferences: PreferenceSource,
    fit_rank: Callable[..., FitResult],
    *,
    seed: int,
    largest: int | None = None,
) -> RankChoice:
    """Cross-validate the rank.

    Folds hold out whole groups where the pairs have groups, else pairs of every user at random.
    The one-standard-error rule is paired: rank k is acceptable when its mean loss exceeds that of
    the best rank by at most one standard error of the difference over folds.

    Args:
        preferences: in memory (a streamed source cannot be split).
        fit_rank: `fit_rank(preferences, rank=k) -> FitResult`.
        seed: of the folds.
        largest: the largest rank of the class, `min(d1, N d2)` by default.
    """
    checks.require(
        isinstance(preferences, Preferences),
        'rank="auto" needs the pairs in memory to hold some out; give a number, or Preferences',
    )
    assert isinstance(preferences, Preferences)
    fold_of = _folds(preferences, seed)
    largest = largest or min(preferences.d1, preferences.n_users * preferences.d2)
    table: dict[int, np.ndarray] = {}
    for rank in _ladder(largest):
        table[rank] = np.asarray(
            [_held_out(preferences, fold_of == fold, fit_rank, rank) for fold in range(_FOLDS)]
        )
        if _hopeless(table):
            break
    best = min(table, key=lambda k: table[k].mean())
    gaps = {k: statistics.paired_difference(table[k], table[best]) for k in table}
    equal = _ROUNDING * abs(table[best].mean())
    chosen = min(k for k, gap in gaps.items() if gap.mean <= gap.standard_error + equal)
    return RankChoice(
        chosen,
        np.asarray(list(table)),
        np.asarray([losses.mean() for losses in table.values()]),
        np.asarray([gap.standard_error for gap in gaps.values()]),
    )


def _ladder(largest: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16 ... up to `largest`: every rank gets a compilation of its own."""
    steps = sorted({1, 2, 3, *(2**p * m // 2 for p in range(2, 20) for m in (2, 3))})
    return [rank for rank in steps if rank <= largest]


def _hopeless(table: dict[int, np.ndarray]) -> bool:
    best = min(table, key=lambda k: table[k].mean())
    later = [k for k in table if k > best]
    if len(later) < _PATIENCE:
        return False
    gaps = [statistics.paired_difference(table[k], table[best]) for k in later[-_PATIENCE:]]
    return all(gap.mean > gap.standard_error for gap in gaps)


def _folds(preferences: Preferences, seed: int) -> np.ndarray:
    """Fold of every pair; no user has all of his pairs in one fold, and no fold is empty."""
    random = streams.generator(seed, "rank folds")
    if preferences.groups is not None:
        names, group = np.unique(preferences.groups, return_inverse=True)
        checks.require(
            names.size >= _FOLDS,
            f'rank="auto" holds out groups and needs at least {_FOLDS}, got {names.size}; '
            "give a rank, or preferences without groups",
        )
        return random.permutation(np.arange(names.size) % _FOLDS)[group]
    smallest = int(preferences.counts.min())
    checks.require(
        smallest >= 2 and preferences.n_total >= _FOLDS,
        f'rank="auto" holds out pairs and needs at least 2 of every user and {_FOLDS} in all, got '
        f"{smallest} and {preferences.n_total}; give a rank",
    )
    # dealt on from user to user: with few pairs each, the later folds would stay empty
    dealt = [
        first + random.permutation(count)
        for first, count in zip(preferences.offsets, preferences.counts, strict=False)
    ]
    return np.concatenate(dealt) % _FOLDS


def _held_out(
    preferences: Preferences, held: np.ndarray, fit_rank: Callable[..., FitResult], rank: int
) -> float:
    """Mean loss per held-out pair of the fit to the others."""
    kept_weight = np.bincount(
        preferences.users, preferences.weights * ~held, minlength=preferences.n_users
    )
    # a user whose every pair is held out cannot be fitted: he keeps his pairs, others are scored
    held = held & (kept_weight[preferences.users] > 0)
    checks.require(
        bool(preferences.weights[held].sum() > 0),
        'rank="auto" has a fold with nothing to hold out (each user has one group, or weights of '
        "0); give a rank, or preferences without groups",
    )
    fitted = fit_rank(preferences.reweighted(preferences.weights * ~held), rank=rank)
    rewards = fitted.rewards(preferences.users[held], preferences.features[held])
    with numerics.float64_scope():
        losses = links.get_link(preferences.link).loss(
            jnp.asarray(rewards), jnp.asarray(preferences.labels[held])
        )
    return float(np.average(np.asarray(losses), weights=preferences.weights[held]))
