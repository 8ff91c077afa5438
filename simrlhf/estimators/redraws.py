"""Parametric bootstrap: labels drawn again from a fit, refitted, and how the rewards spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, links, numerics, streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators.batching import fit_many
from simrlhf.estimators.result import FitResult, SharedFactors

# numbers that the refits may hold (2 GB)
LARGEST_HELD = 2**28
# features of refits that are under way at once, and numbers in one piece of work afterwards
_PIECE = 2**25
_LARGEST_BATCH = 64


@dataclass(frozen=True, eq=False)
class Redraws:
    """Refits, in the form that is smallest.

    Attributes:
        bases, weights: `(R, d1, k)`, `(R, N, k, d2)` of classes with a shared basis, else `None`.
        delta: `(R, N, d1, d2)` of the others, else `None`.
    """

    bases: np.ndarray | None
    weights: np.ndarray | None
    delta: np.ndarray | None

    def variances(self, users: np.ndarray, features: np.ndarray) -> np.ndarray:
        """`(m,)` sample variances of `<Delta_user, x>` over the refits."""
        found = np.empty(len(users))
        height = max(1, _PIECE // max(1, features[0].size if len(features) else 1))
        for first in range(0, len(users), height):
            rows = slice(first, first + height)
            found[rows] = self._rewards(users[rows], features[rows]).var(axis=0, ddof=1)
        return found

    def delta_of_all(self) -> np.ndarray:
        """`(R, N, d1, d2)`, the refitted deviations; as large as that."""
        if self.delta is not None:
            return self.delta
        assert self.bases is not None
        assert self.weights is not None
        return np.einsum("rak,rnkb->rnab", self.bases, self.weights, optimize=True)

    def _rewards(self, users: np.ndarray, features: np.ndarray) -> np.ndarray:
        if self.delta is not None:
            each = [np.einsum("mab,mab->m", features, delta[users]) for delta in self.delta]
        else:
            assert self.bases is not None
            assert self.weights is not None
            each = [
                np.einsum("mab,ak,mkb->m", features, basis, weights[users], optimize=True)
                for basis, weights in zip(self.bases, self.weights, strict=True)
            ]
        return np.stack(each)


def redraw(
    result: FitResult,
    preferences: Preferences,
    rewards: np.ndarray,
    *,
    estimator: str | Callable[..., Any],
    variance: float,
    n_bootstrap: int,
    seed: int,
    **settings: Any,
) -> tuple[Redraws, Counter[str]]:
    """Draw labels `n_bootstrap` times from `rewards (P,)`, refit, and count how the refits ended.

    A pair of weight w has the label of w draws, as for the likelihood it is w pairs: the mean of
    w coins where w is whole (one coin where it is not), or noise of variance `variance / w`.

    Args:
        settings: further arguments of `fit`.

    Raises:
        InputError: the refits would hold more than `LARGEST_HELD` numbers.
    """
    factors = result.factors
    shared = isinstance(factors, SharedFactors)
    one = sum(part.size for part in vars(factors).values()) if shared else result.delta.size
    checks.require(
        n_bootstrap * one <= LARGEST_HELD,
        f"{n_bootstrap} refits of {one:,} numbers each are more than {LARGEST_HELD:,} (2 GB); "
        "lower n_bootstrap, or fit fewer users at once",
    )
    # the rest of a refit is let go of: of classes with a shared basis `delta` is by far the largest
    kept: list[Any] = []
    counts: Counter[str] = Counter()
    size = min(_LARGEST_BATCH, max(1, _PIECE // preferences.features.size), n_bootstrap)
    for first in range(0, n_bootstrap, size):
        numbers = range(first, min(first + size, n_bootstrap))
        sources = [_redrawn(preferences, rewards, result, variance, seed, b) for b in numbers]
        refits = fit_many(
            sources, estimator, **_settings(result, estimator, len(sources)), **settings
        )
        counts.update(refit.status.name for refit in refits)
        kept += [refit.factors if shared else refit.delta for refit in refits]
    if shared:
        bases, weights = np.stack([f.basis for f in kept]), np.stack([f.weights for f in kept])
        return Redraws(bases, weights, None), counts
    return Redraws(None, None, np.stack(kept)), counts


def _settings(result: FitResult, estimator: Any, count: int) -> dict[str, Any]:
    """What the fit was asked, for `count` sources."""
    base = result.theta_init if result.theta_init.any() else None
    return {
        "rank": result.rank,
        "norm_bound": result.norm_bound,
        "ridge": result.ridge,
        "bases": [result.basis] * count if estimator == "oracle" else None,
        "theta_inits": [base] * count,
    }


def _redrawn(
    preferences: Preferences,
    rewards: np.ndarray,
    result: FitResult,
    variance: float,
    seed: int,
    number: int,
) -> Preferences:
    random = streams.generator(seed, "bootstrap labels", number)
    weights, link = preferences.weights, links.get_link(result.link)
    if not link.is_preference:
        spread = np.sqrt(variance / np.where(weights > 0, weights, 1.0))
        return preferences.relabelled(rewards + spread * random.standard_normal(rewards.shape))
    with numerics.float64_scope():
        first = np.asarray(link.mean(jnp.asarray(rewards)))
    coins = np.ones(weights.shape, np.int64)
    if (weights == np.rint(weights)).all():
        coins = np.maximum(np.rint(weights), 1).astype(np.int64)
    return preferences.relabelled(random.binomial(coins, first) / coins)
