"""What the likelihood route S4 and S4b needs to know of a fit: rewards, losses, errors, design."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.core import subspaces
from simrlhf.core.links import LOGISTIC, Link
from simrlhf.study.checking.draws import Draw
from simrlhf.world import WorldConfig

# bounded features and rewards, in which the constants of the route are moderate
BOUNDED = WorldConfig(
    n_users=4, d1=3, rank=1, nu=1.0, user_norms="equal", norm_bound=1.001, features="sphere"
)


class LikelihoodRun(NamedTuple):
    """One fit, as the likelihood sees it.

    Attributes:
        link: of the labels.
        truth, truncated, fit: `(P,)` reward differences under the three matrices.
        error, distance: `||E||_F` and `dist(B_hat, B^<>)`.
        smallest_design: `m`.
        largest_feature: `max ||x||_F`.
        slack_to_truth, slack_to_truncated: by how much the fit's summed loss exceeds theirs; 0
            where it does not.
    """

    link: Link
    truth: np.ndarray
    truncated: np.ndarray
    fit: np.ndarray
    error: float
    distance: float
    smallest_design: float
    largest_feature: float
    slack_to_truth: float
    slack_to_truncated: float


def likelihood_run(draw: Draw) -> LikelihoodRun:
    """Measure one fit; pairs of weight 0 are left out."""
    world, result, preferences = draw.world, draw.result, draw.preferences
    seen = preferences.weights > 0
    x, users = preferences.features[seen], preferences.users[seen]
    deltas = {"truth": world.delta, "truncated": world.truncated, "fit": result.delta}
    z: Any = {name: np.einsum("jab,jab->j", x, delta[users]) for name, delta in deltas.items()}
    labels: Any = preferences.labels[seen]
    losses = {name: float(np.sum(world.link.loss(v, labels))) for name, v in z.items()}
    flat = x.reshape(x.shape[0], -1)
    gram = [flat[users == user].T @ flat[users == user] for user in range(world.n_users)]
    return LikelihoodRun(
        link=world.link,
        **z,
        error=float(np.linalg.norm(result.delta - world.delta)),
        distance=subspaces.subspace_distance(result.basis, world.basis),
        smallest_design=float(min(np.linalg.eigvalsh(g)[0] for g in gram)),
        largest_feature=float(np.linalg.norm(flat, axis=1).max()),
        slack_to_truth=max(losses["fit"] - losses["truth"], 0.0),
        slack_to_truncated=max(losses["fit"] - losses["truncated"], 0.0),
    )


def hellinger_at(
    link: Link,
    total_pairs: int,
    largest_feature: float,
    *,
    delta: float,
    slack: float = 0.0,
    log_chi_square: float | None = None,
) -> tuple[float, theory.Bound, theory.LinkConstants]:
    """Log of the cover, the bound of `sum H^2`, and the link's constants in the world `BOUNDED`."""
    radius = BOUNDED.norm_bound
    assert radius is not None
    constants = theory.link_constants(link, margin=radius * largest_feature)
    cover = theory.log_cover_number(
        n_users=BOUNDED.n_users,
        d1=BOUNDED.d1,
        d2=BOUNDED.d2,
        rank=BOUNDED.rank,
        norm_bound=radius,
        resolution=1.0 / (total_pairs * largest_feature),
    ).value
    bound = theory.hellinger_bound(
        log_cover=cover,
        delta=delta,
        xi=constants.xi,
        largest_information=constants.largest_information,
        total_pairs=total_pairs,
        slack=slack,
        log_chi_square=log_chi_square,
    )
    return cover, bound, constants


def informative_from(delta: float, *, chi_square_per_pair: float | None = None) -> float:
    """Smallest n, a power of 2, at which the route bounds dist below 1; `m = n`, the mean design.

    Args:
        chi_square_per_pair: mean of `log(1 + chi2(P* || P^<>))`, for S4b.

    Returns:
        n, or infinity where none up to 2^23 does.
    """

    def value(n_pairs: int) -> float:
        total = BOUNDED.n_users * n_pairs
        log_chi = None if chi_square_per_pair is None else chi_square_per_pair * total
        largest = math.sqrt(BOUNDED.d1 * BOUNDED.d2)
        _, bound, constants = hellinger_at(
            LOGISTIC, total, largest, delta=delta, log_chi_square=log_chi
        )
        return theory.squared_error_bound(
            bound.value,
            smallest_information=constants.smallest_information,
            smallest_design=n_pairs,
            sigma_k=BOUNDED.sigma_k,
            ceiling=1.0,
        ).value

    found = theory.smallest_sample(value, 1.0, [2**power for power in range(4, 24)])
    return math.inf if found is None else float(found)
