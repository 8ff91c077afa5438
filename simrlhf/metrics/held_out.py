"""What a fit is worth on pairs that it has not seen, free of label noise."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from simrlhf.estimators import FitResult
from simrlhf.metrics.designs import label_precision
from simrlhf.sampling import sample_preferences
from simrlhf.world import World

# fresh pairs of each user; of all users together 64 MB of features, but for one pair each
_PAIRS = 200
_NUMBERS = 2**23


def held_out(world: World, result: FitResult) -> dict[str, float]:
    """Expected negative log-likelihood per fresh pair, mean over users.

    Labels enter by their probability under the truth, so the only noise is that of the features,
    and it is the same for every fit of a world: differences between fits are paired.

    Returns:
        `held_out_nll`: `mean_i E[loss(<Theta_hat_i, x>, o)]`; for regression that of the mean
        response, in units of `noise^2` and without the constant;
        `held_out_excess`: the same minus the truth's: the mean Kullback-Leibler divergence, for a
        log-likelihood. An efficient fit of p parameters tends to `p / (2 N n)` (theory.md, L3).
    """
    size = world.n_users * world.config.d1 * world.config.d2
    n_pairs = int(np.clip(_NUMBERS // size, 1, _PAIRS))
    fresh = sample_preferences(world, np.full(world.n_users, n_pairs), seed=_seed(world), soft=True)
    truth = replace(result, delta=world.delta, theta_init=world.theta_init)
    fitted, best = (
        label_precision(world) * float(fit.evaluate(fresh).neg_log_likelihood.mean())
        for fit in (result, truth)
    )
    return {"held_out_nll": fitted, "held_out_excess": fitted - best}


def _seed(world: World) -> int:
    """Other features for every world, the same for all its fits: a hash of the truth."""
    return zlib.crc32(np.ascontiguousarray(world.delta).tobytes())
