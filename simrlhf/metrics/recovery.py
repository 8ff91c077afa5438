"""How close a fit comes to the truth of its world."""

from __future__ import annotations

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.estimators import FitResult
from simrlhf.metrics.designs import reward_size
from simrlhf.world import World


def recovery(world: World, result: FitResult) -> dict[str, float]:
    """Distances between the fitted and the true deviations.

    Returns:
        `subspace_distance`: `||(I - P_hat) B^<>||_F`, which is `dist(B_hat, B^<>)` of Definition
        A.1 where the ranks agree; with more columns than the truth has, what of it they miss;
        `largest_sine`: the largest singular value of the same matrix;
        `reward_error`: `(mean_i E <E_i, x>^2)^{1/2}` with `E_i = Delta_hat_i - Delta_i`, under the
        world's features: the root mean square of `||S^{1/2} E_i||_F` where
        `E[vec x vec x'] = S (x) I`, of `||E_i||_Sigma` for trajectories;
        `relative_error`: the same over that of `Delta = 0`;
        `largest_norm`: `max_i ||Delta_hat_i||_F`.

    Raises:
        InputError: the fit is of another shape, or its rank is below the world's.
    """
    checks.require(
        result.delta.shape == world.delta.shape,
        f"the fit has delta of shape {result.delta.shape}, the world {world.delta.shape}",
    )
    checks.require(
        result.basis.shape[1] >= world.basis.shape[1],
        f"the fit's basis has {result.basis.shape[1]} columns, the world's {world.basis.shape[1]}; "
        "fit with rank equal to the world's or above",
    )
    error = result.delta + result.theta_init - world.theta
    size, scale = reward_size(world, error), reward_size(world, world.delta)
    missed = subspaces.missed_sines(result.basis, world.basis)
    return {
        "subspace_distance": float(np.linalg.norm(missed)),
        "largest_sine": float(missed.max(initial=0.0)),
        "reward_error": size,
        "relative_error": size / scale,
        "largest_norm": float(np.linalg.norm(result.delta, axis=(1, 2)).max()),
    }
