"""What the deterministic bounds need to know of one data set, its truth and its fit.

These are measurements: the bounds themselves (`simrlhf.theory`) see only the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from simrlhf.core import numerics, subspaces
from simrlhf.core.links import Link
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.world import World


@dataclass(frozen=True)
class Instance:
    """The ingredients of S1 and S2 (theory.md, section 4) for one fit.

    `F` is the weighted sum of losses, `hat` the fit, `*` the truth, `<>` its best rank-k
    approximation, `D(a, b) = F(a) - F(b) - <grad F(b), a - b>`.

    Attributes:
        scores: `G (d1, N d2)`, gradient blocks of `F` at the truth.
        smallest_design, largest_design: `m`, `M`, extreme eigenvalues over users of
            `sum_j weight_j vec x vec x'`.
        error_norm: `||E||_F`, `E = Delta_hat - Delta*`.
        truncated_error_norm: `||E'||_F`, `E' = Delta_hat - Delta^<>`.
        largest_reward: the largest `|z|` on the segments from truth to fit.
        largest_feature: `max ||x||_F`.
        divergence: `D(hat, *)`.
        truncation_divergence: `D(<>, *)`.
        excess: `F(hat) - F(<>)`; the certificate of S2 is that it is at most the slack `e`.
        excess_over_truth: `F(hat) - F(*)`.
    """

    scores: np.ndarray
    smallest_design: float
    largest_design: float
    error_norm: float
    truncated_error_norm: float
    largest_reward: float
    largest_feature: float
    divergence: float
    truncation_divergence: float
    excess: float
    excess_over_truth: float


def measure_instance(world: World, preferences: Preferences, result: FitResult) -> Instance:
    """Measure the ingredients; one pass over the features for each of truth, fit, truncation."""
    base = world.theta_init
    truncated = world.truncated
    rewards = {
        name: _rewards(preferences, theta)
        for name, theta in (
            ("truth", world.theta),
            ("fit", result.theta_init + result.delta),
            ("truncated", base + truncated),
        )
    }
    seen = preferences.weights > 0
    total, slopes = _losses(world.link, preferences, rewards)

    def divergence(name: str) -> float:
        terms = total[name] - total["truth"] - slopes * (rewards[name] - rewards["truth"])
        return float(terms.sum())

    smallest, largest = _design_extremes(preferences)
    return Instance(
        scores=subspaces.unfold(_score_blocks(preferences, slopes)),
        smallest_design=smallest,
        largest_design=largest,
        error_norm=float(np.linalg.norm(result.delta - world.delta)),
        truncated_error_norm=float(np.linalg.norm(result.delta - truncated)),
        # z is linear along a segment, so the extremes are at its ends
        largest_reward=float(
            max(np.abs(rewards["truth"][seen]).max(), np.abs(rewards["fit"][seen]).max())
        ),
        largest_feature=float(
            np.linalg.norm(preferences.features.reshape(seen.size, -1)[seen], axis=1).max()
        ),
        divergence=divergence("fit"),
        truncation_divergence=divergence("truncated"),
        excess=float((total["fit"] - total["truncated"]).sum()),
        excess_over_truth=float((total["fit"] - total["truth"]).sum()),
    )


def _rewards(preferences: Preferences, theta: np.ndarray) -> np.ndarray:
    flat = preferences.features.reshape(preferences.n_total, -1)
    rewards = np.empty(preferences.n_total)
    for user, matrix in enumerate(theta):
        mine = preferences.user(user)
        rewards[mine] = flat[mine] @ matrix.reshape(-1)
    return rewards


def _losses(
    link: Link, preferences: Preferences, rewards: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Weighted loss of every pair at each of the `rewards`, and its slope at the truth."""
    with numerics.float64_scope():
        losses, slopes = jax.device_get(
            _loss_and_slope(
                np.stack([*rewards.values()]),
                rewards["truth"],
                preferences.labels,
                preferences.weights,
                link=link,
            )
        )
    return dict(zip(rewards, losses, strict=True)), slopes


@partial(jax.jit, static_argnames="link")
def _loss_and_slope(
    rewards: jax.Array, truth: jax.Array, labels: jax.Array, weights: jax.Array, *, link: Link
) -> tuple[jax.Array, jax.Array]:
    return weights * link.loss(rewards, labels), weights * link.loss_slope(truth, labels)


def _score_blocks(preferences: Preferences, slopes: np.ndarray) -> np.ndarray:
    flat = preferences.features.reshape(preferences.n_total, -1)
    blocks = [
        slopes[mine] @ flat[mine] for mine in map(preferences.user, range(preferences.n_users))
    ]
    return np.stack(blocks).reshape(preferences.n_users, preferences.d1, preferences.d2)


def _design_extremes(preferences: Preferences) -> tuple[float, float]:
    """Smallest and largest eigenvalue over users, from the smaller Gram matrix of each."""
    flat = preferences.features.reshape(preferences.n_total, -1)
    smallest, largest = np.inf, 0.0
    for mine in map(preferences.user, range(preferences.n_users)):
        weights = preferences.weights[mine]
        rows = np.sqrt(weights[weights > 0])[:, None] * flat[mine][weights > 0]
        singular = rows.shape[0] < rows.shape[1]  # fewer pairs than parameters
        values = np.linalg.eigvalsh(rows @ rows.T if singular else rows.T @ rows)
        smallest = min(smallest, 0.0 if singular else values[0])
        largest = max(largest, values[-1])
    return float(max(smallest, 0.0)), float(largest)
