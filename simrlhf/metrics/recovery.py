"""How close a fit comes to the truth of its world."""

from __future__ import annotations

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.estimators import FitResult
from simrlhf.world import World


def recovery(world: World, result: FitResult) -> dict[str, float]:
    """Distances between the fitted and the true deviations.

    Returns:
        `subspace_distance`: `dist(B_hat, B^<>)` of Definition A.1;
        `largest_sine`: its spectral version;
        `reward_error`: `(mean_i E <E_i, x>^2)^{1/2}` with `E_i = Delta_hat_i - Delta_i`; under the
        worlds' feature laws (`E[vec x vec x'] = I`) the root mean square of `||E_i||_F`;
        `relative_error`: the same over the root mean square of `||Delta_i||_F`;
        `largest_norm`: `max_i ||Delta_hat_i||_F`.

    Raises:
        InputError: the fit is of another shape, or its rank is not the world's.
    """
    checks.require(
        result.delta.shape == world.delta.shape,
        f"the fit has delta of shape {result.delta.shape}, the world {world.delta.shape}",
    )
    checks.require(
        result.basis.shape == world.basis.shape,
        f"the fit's basis has {result.basis.shape[1]} columns, the world's {world.basis.shape[1]}; "
        "fit with rank equal to the world's",
    )
    error = result.delta + result.theta_init - world.theta
    size = float(np.sqrt(np.mean(np.sum(error**2, axis=(1, 2)))))
    scale = float(np.sqrt(np.mean(np.sum(world.delta**2, axis=(1, 2)))))
    return {
        "subspace_distance": subspaces.subspace_distance(result.basis, world.basis),
        "largest_sine": subspaces.subspace_distance(result.basis, world.basis, "spectral"),
        "reward_error": size,
        "relative_error": size / scale,
        "largest_norm": float(np.linalg.norm(result.delta, axis=(1, 2)).max()),
    }
