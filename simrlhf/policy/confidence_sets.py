"""Sets of reward vectors that pessimism guards against: ellipsoids, in a norm of choice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks
from simrlhf.policy.regions import Ball


@dataclass(frozen=True, eq=False)
class Ellipsoids:
    """`R_i = { Theta_hat_i + M_i u : ||u|| <= zeta_i }`, one for each user.

    The worst value of a policy with `g = E_pi phi - E_ref phi` is `<Theta_hat, g> - zeta ||M'g||`.

    Attributes:
        centre: `Theta_hat (N, d1, d2)`, whole reward vectors.
        root: `M (N, p, q)`, or `(1, p, q)` where all have one; `p = d1 d2` in C order of `vec`. An
            M with fewer columns than rows is a set without width in the other directions.
        radius: `zeta (N,)`.

    Raises:
        InputError: shapes that do not agree, a radius below zero, entries that are not finite.
    """

    centre: np.ndarray
    root: np.ndarray
    radius: np.ndarray

    # the least value of a plane is known without a search
    closed_form = True

    def __post_init__(self) -> None:
        for name in ("centre", "root", "radius"):
            array = checks.numbers(name, getattr(self, name))
            checks.finite(name, array)
            object.__setattr__(self, name, array)
        checks.shape("centre", self.centre, (None, None, None), remedy="(N, d1, d2)")
        n_users, size = self.n_users, self.centre[0].size
        checks.shape("root", self.root, (None, size, None), remedy=f"(N or 1, {size}, q)")
        checks.require(
            self.root.shape[0] in (1, n_users),
            f"root has {self.root.shape[0]} matrices, expected 1 or N = {n_users}",
        )
        object.__setattr__(self, "radius", np.broadcast_to(self.radius, (n_users,)))
        low = int(np.argmin(self.radius))
        checks.require(
            bool(self.radius[low] >= 0.0),
            f"radius = {self.radius[low]:.6g} of user {low} is negative; 0 is the estimate alone",
        )

    @property
    def n_users(self) -> int:
        return self.centre.shape[0]

    @property
    def flat_centre(self) -> np.ndarray:
        """`(N, p)`."""
        return self.centre.reshape(self.n_users, -1)

    def region_of(self, users: np.ndarray) -> Ball:
        """In the coordinates u: the same ball for all."""
        return Ball()

    def worst(self, slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The least of `offset + slope'u` over the ball, `slopes (n, q)`, `offsets (n,)`."""
        return offsets - np.linalg.norm(slopes, axis=1)

    def holds(self, theta: np.ndarray) -> np.ndarray:
        """Whether each user's `theta (N, d1, d2)` is in his set, `(N,)`, up to rounding."""
        theta = checks.numbers("theta", theta)
        checks.shape("theta", theta, self.centre.shape, remedy="the shape of centre")
        error = theta.reshape(self.n_users, -1) - self.flat_centre
        inverse = np.linalg.pinv(self.root, rcond=_SEEN)
        u = np.einsum(
            "nqp,np->nq", np.broadcast_to(inverse, (self.n_users, *inverse.shape[1:])), error
        )
        reached = np.einsum(
            "npq,nq->np", np.broadcast_to(self.root, (self.n_users, *self.root.shape[1:])), u
        )
        size = np.linalg.norm(error, axis=1)
        inside = np.linalg.norm(error - reached, axis=1) <= _OUTSIDE * np.maximum(size, 1e-300)
        return inside & (np.linalg.norm(u, axis=1) <= self.radius * (1.0 + _OUTSIDE) + 1e-300)


# singular values of a root below this share of the largest are rounding
_SEEN = 1e-12
# relative distances that count as none
_OUTSIDE = 1e-9


def frobenius_ball(centre: np.ndarray, radius: np.ndarray | float) -> Ellipsoids:
    """`||Theta - Theta_hat||_F <= zeta` (Algorithm 1's set, the norm not squared)."""
    centre = checks.numbers("centre", centre)
    checks.shape("centre", centre, (None, None, None), remedy="(N, d1, d2)")
    return Ellipsoids(centre, np.eye(centre[0].size)[None], np.asarray(radius))


def design_ellipsoid(
    centre: np.ndarray, design: np.ndarray, radius: np.ndarray | float, *, ridge: float = 0.0
) -> Ellipsoids:
    """`||Theta - Theta_hat||_{Sigma + lambda I} <= zeta` (Park et al., Theorem 3.1).

    Args:
        design: `Sigma (N, p, p)` or `(p, p)`: the mean of `vec x vec x'`, or its expectation.
        radius: zeta.
        ridge: lambda; above 0 where some direction is not seen: the set is unbounded otherwise.

    Raises:
        InputError: a design that leaves a direction unseen, without a ridge.
    """
    design = checks.numbers("design", design)
    design = design[None] if design.ndim == 2 else design
    size = design.shape[-1]
    checks.shape("design", design, (None, size, size), remedy="(N, p, p) or (p, p)")
    checks.finite("design", design)
    ridge = checks.real("ridge", ridge, low=0.0)
    values, vectors = np.linalg.eigh(design + ridge * np.eye(size))
    least = np.unravel_index(int(values.argmin()), values.shape)
    checks.require(
        bool((values[:, 0] > _SEEN * values[:, -1]).all()),
        f"the set is unbounded: the design of user {least[0]} has the eigenvalue "
        f"{values[least]:.3g}, so a direction is not seen; give a ridge above 0",
    )
    return Ellipsoids(centre, vectors / np.sqrt(values)[:, None, :], np.asarray(radius))


def fisher_ellipsoid(
    centre: np.ndarray, covariance: np.ndarray, radius: np.ndarray | float
) -> Ellipsoids:
    """`{ Theta_hat + Cov^{1/2} u : ||u|| <= zeta }`, within the range of the covariance (L2).

    Args:
        covariance: `(N, p, p)` of the estimates' errors. The joint share-B one has a rank below p
            where the estimate cannot move in some direction, and there the set has no width.
        radius: zeta; the root of a chi-square quantile for a nominal coverage.
    """
    covariance = checks.numbers("covariance", covariance)
    size = covariance.shape[-1]
    checks.shape("covariance", covariance, (None, size, size), remedy="(N, p, p)")
    checks.finite("covariance", covariance)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.swapaxes(1, 2)))
    kept = np.where(values > _SEEN * values[:, -1:], values, 0.0)
    return Ellipsoids(centre, vectors * np.sqrt(kept)[:, None, :], np.asarray(radius))
