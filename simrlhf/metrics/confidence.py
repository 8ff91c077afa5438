"""Confidence sets around a fit: of which shape, and with which radius."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.stats

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.core.links import get_link
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.decisions import KINDS
from simrlhf.metrics.designs import MOST_IN_MATRICES
from simrlhf.metrics.radii import explicit_radius, printed_radii, redrawn_errors
from simrlhf.policy import (
    Ellipsoids,
    LikelihoodSets,
    design_ellipsoid,
    fisher_ellipsoid,
    frobenius_ball,
    likelihood_set,
)
from simrlhf.world import World

SET_KINDS = {
    "fisher": "ellipsoid of L2's covariance at the fit, chi-square radius",
    "likelihood": "likelihood ratio on the fit's own basis, chi-square radius",
    "ball_printed": "Frobenius ball, radius (B.1) as printed with the user's own b_i",
    "ball_explicit": "Frobenius ball, radius by S2 with S3, or S4, or the class",
    "ball_bootstrap": "Frobenius ball, radius from labels redrawn from the fit",
    "ball_oracle": "Frobenius ball, radius the user's true error",
    "design_bootstrap": "ellipsoid of the user's own pairs, radius from redrawn labels",
    "design_oracle": "ellipsoid of the user's own pairs, radius the user's true error",
}
# of a fit without a norm bound: rewards of such a size are no surprise
_USUAL_NORM = 10.0
# so that rounding cannot leave the truth outside of a set that it is the edge of
_EDGE = 1.0 + 1e-9


def fit_sets(
    preferences: Preferences,
    result: FitResult,
    *,
    kind: str = "fisher",
    confidence: float = 0.95,
    world: World | None = None,
    constant: float = 1.0,
    n_bootstrap: int = 100,
    seed: int = 0,
) -> Ellipsoids | LikelihoodSets:
    """A set of rewards for every user, of nominal coverage `confidence`, around a fit.

    | kind               | set                                                   | radius          |
    | `fisher`           | `Theta_hat_i + Cov_i^{1/2} u / sqrt(n)` (L2)          | chi-square      |
    | `likelihood`       | `2 [F_i(B_hat W) - F_i(B_hat W_i)] <= zeta^2`         | chi-square      |
    | `ball_printed`     | `||Theta - Theta_hat_i||_F <= zeta` (3.4)             | (B.1), own b_i  |
    | `ball_explicit`    | the same                                              | S2 + S3, S4, 2R |
    | `ball_bootstrap`   | the same                                              | redrawn labels  |
    | `ball_oracle`      | the same                                              | the true error  |
    | `design_bootstrap` | `||Theta - Theta_hat_i||_{Sigma_i} <= zeta` (Park)    | redrawn labels  |
    | `design_oracle`    | the same                                              | the true error  |

    Covariances and designs are of the user's own pairs plus `1 / (n_i R^2)` in every direction, R
    the fit's norm bound: what no pair shows is bounded by the class. A chi-square quantile has as
    many degrees as the set has dimensions.

    `likelihood` of share_b holds the fitted basis fixed, so the truth is never in it, however near.
    `ball_explicit` holds all users at once, a bootstrap each for himself.

    Args:
        preferences: what `result` was fitted to.
        world: the truth, which `ball_printed` and the oracles ask for.
        constant: of `ball_printed`: `c_3`, which the paper leaves open.
        n_bootstrap, seed: redraws, and the root of their randomness.

    Raises:
        InputError: another class than share_b, oracle or full; a kind that asks for the truth
            without a world, or for a norm bound that the fit has not; covariances of all users
            above half a gigabyte.
    """
    sets = SetsOfFit(preferences, result, world, constant, n_bootstrap, seed)
    return sets.at(kind, confidence)


def has_sets(result: FitResult) -> bool:
    """Whether `fit_sets` knows the covariance of a fit's class."""
    return result.estimator in KINDS


@dataclass(frozen=True, eq=False)
class SetsOfFit:
    """The sets around one fit; what several of them need is computed once. As `fit_sets`."""

    preferences: Preferences
    result: FitResult
    world: World | None = None
    constant: float = 1.0
    n_bootstrap: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        name = self.result.estimator
        checks.require(
            has_sets(self.result),
            f"{name} has no covariance here; sets are known of {', '.join(KINDS)}",
        )
        n_users, size = self.result.delta.shape[0], self.result.delta[0].size
        checks.require(
            n_users * size**2 <= MOST_IN_MATRICES,
            f"covariances of N = {n_users} users and d1 d2 = {size} take {n_users * size**2:,} "
            f"numbers, above the limit {MOST_IN_MATRICES:,}; lower either",
        )

    def kinds(self) -> Iterator[str]:
        """Those that this fit can have."""
        bounded = self.result.norm_bound is not None
        link = get_link(self.preferences.link)
        for kind in SET_KINDS:
            needs_truth = kind == "ball_printed" or kind.endswith("oracle")
            if (
                (self.world is not None or not needs_truth)
                and (kind != "likelihood" or (bounded and link.is_log_concave))
                and (kind != "ball_explicit" or (bounded and link.is_preference))
            ):
                yield kind

    def at(self, kind: str, confidence: float) -> Ellipsoids | LikelihoodSets:
        """The sets of a kind, of a nominal coverage."""
        checks.choice("kind of set", kind, SET_KINDS)
        level = checks.real("confidence", confidence, above=0.0, high=1.0 - 1e-9)
        if kind == "fisher":
            covariance, degrees = self._covariance
            radius = np.sqrt(scipy.stats.chi2.ppf(level, degrees))
            return fisher_ellipsoid(self._centre, covariance, radius)
        if kind == "likelihood":
            return self._likelihood(level)
        shape, _, rule = kind.partition("_")
        radius = self._radius(rule, level, self._design if shape == "design" else None)
        if shape == "ball":
            return frobenius_ball(self._centre, radius)
        return design_ellipsoid(self._centre, self._design, radius)

    def _likelihood(self, level: float) -> LikelihoodSets:
        result = self.result
        basis = None if result.estimator == "full" else result.basis
        columns = result.delta.shape[1] if basis is None else basis.shape[1]
        degrees = columns * result.delta.shape[2]
        bound = result.norm_bound
        checks.require(
            bound is not None,
            "a likelihood-ratio set is unbounded where pairs separate; fit with a norm_bound",
        )
        assert bound is not None
        return likelihood_set(
            self._centre,
            self.preferences,
            float(np.sqrt(scipy.stats.chi2.ppf(level, degrees))),
            norm_bound=bound,
            basis=basis,
            theta_init=result.theta_init,
        )

    def _radius(self, rule: str, level: float, metric: np.ndarray | None) -> np.ndarray | float:
        if rule == "explicit":
            return explicit_radius(self.preferences, self.result, confidence=level)
        if rule == "bootstrap":
            sizes = _sizes(self._errors, metric)
            return np.quantile(sizes, level, axis=0, method="higher")
        checks.require(
            self.world is not None,
            "this radius asks for the truth; give the world, or another kind",
        )
        assert self.world is not None
        if rule == "oracle":
            return _EDGE * _sizes(self._centre - self.world.theta, metric)
        return printed_radii(
            self.world,
            self.result,
            n_pairs=float(self._counts.mean()),
            confidence=level,
            constant=self.constant,
        )

    @property
    def _centre(self) -> np.ndarray:
        return self.result.theta_init + self.result.delta

    @property
    def _counts(self) -> np.ndarray:
        """`(N,)`, pairs that carry weight."""
        given = self.preferences
        return np.bincount(given.users, weights=given.weights, minlength=given.n_users)

    @property
    def _floor(self) -> np.ndarray:
        """`1 / (n_i R^2)`, what is known of a direction that no pair shows."""
        norm = _USUAL_NORM if self.result.norm_bound is None else self.result.norm_bound
        return 1.0 / (self._counts * norm**2)

    @cached_property
    def _design(self) -> np.ndarray:
        """`Sigma_i (N, p, p)`."""
        return self._moments(np.ones(self.preferences.n_total))

    @cached_property
    def _covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """`Cov_i / n (N, p, p)`, and the dimensions that it has, `(N,)`."""
        given, result = self.preferences, self.result
        rewards = np.einsum("jab,jab->j", given.features, self._centre[given.users])
        informations = self._moments(np.asarray(get_link(given.link).information(rewards)))
        mean = self._counts.mean()
        factors = np.einsum("ak,nab->nkb", result.basis, result.delta)
        kind = KINDS[result.estimator]
        covariance = theory.reward_covariances(
            result.basis, factors, informations, self._counts / mean, kind=kind
        )
        n_users, size = covariance.shape[:2]
        own = result.basis.shape[1] * result.delta.shape[2]
        return covariance / mean, np.full(n_users, own if kind == "oracle" else size)

    def _moments(self, scale: np.ndarray) -> np.ndarray:
        """Mean of `scale vec x vec x'` over every user's pairs, and the floor, `(N, p, p)`."""
        given = self.preferences
        size = self.result.delta[0].size
        found = np.empty((given.n_users, size, size))
        for user in range(given.n_users):
            mine = given.user(user)
            x = given.features[mine].reshape(-1, size)
            seen = given.weights[mine] * scale[mine]
            found[user] = x.T @ (seen[:, None] * x) / self._counts[user]
        return found + self._floor[:, None, None] * np.eye(size)

    @cached_property
    def _errors(self) -> np.ndarray:
        return redrawn_errors(
            self.preferences, self.result, n_bootstrap=self.n_bootstrap, seed=self.seed
        )


def _sizes(errors: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    """Norms of `errors (..., N, d1, d2)` in every user's `metric (N, p, p)`, or Frobenius."""
    flat = errors.reshape(*errors.shape[:-2], -1)
    if metric is None:
        return np.linalg.norm(flat, axis=-1)
    return np.sqrt(np.einsum("...np,npq,...nq->...n", flat, metric, flat, optimize=True))
