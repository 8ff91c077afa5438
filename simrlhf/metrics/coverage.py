"""How often the intervals of a fit hold the truth of its world."""

from __future__ import annotations

import numpy as np

from simrlhf.core import checks, streams
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FISHER_CLASSES, FitResult, standard_errors
from simrlhf.sampling import sample_preferences
from simrlhf.world import World


def coverage(
    world: World,
    preferences: Preferences,
    result: FitResult,
    *,
    n_features: int = 32,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """Share of Fisher intervals of `<Theta_i, x>` that hold the truth, over users and fresh x.

    Rewards of one fit share its error, so the share of one fit is not binomial: average over
    repetitions, and take the standard error over those.

    Args:
        preferences: the pairs that `result` was fitted to.
        n_features: features for each user, drawn as its pairs are (stream `coverage features`).
        confidence: of the intervals.
        seed: of the features; the same ones serve every fit.

    Returns:
        `coverage`: the share, of the intervals that are finite; NaN where none is;
        `half_width`: their mean half width;
        `infinite_errors`: share of the intervals that are infinite (singular informations);
        `bound_active`: share of users at the norm bound, for whom the limit does not hold.

    Raises:
        InputError: as `standard_errors`.
    """
    n_features = checks.integer("n_features", n_features, low=1)
    fresh = sample_preferences(
        world,
        np.full(world.n_users, n_features),
        seed=int(streams.generator(seed, "coverage features").integers(2**62)),
        soft=True,
    )
    features, users = fresh.features, fresh.users
    found = standard_errors(result, preferences).intervals(users, features, confidence)
    truth = np.einsum("mab,mab->m", world.theta[users], features)
    finite = np.isfinite(found.high)
    inside = (found.low <= truth) & (truth <= found.high)
    return {
        "coverage": float(inside[finite].mean()) if finite.any() else float("nan"),
        "half_width": float((found.high - found.value)[finite].mean())
        if finite.any()
        else float("nan"),
        "infinite_errors": float(1.0 - finite.mean()),
        "bound_active": float((result.multipliers > 0).mean()),
    }


def has_intervals(result: FitResult) -> bool:
    """Whether `coverage` can be had of a fit: its class has a Fisher information."""
    return result.estimator in FISHER_CLASSES
