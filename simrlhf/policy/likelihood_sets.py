"""Likelihood-ratio sets on a fixed basis: convex, and as wide as the user's own pairs leave them.

    R_i = { Theta_init + B W :  2 [F_i(B W) - F_i(B W_hat)] <= zeta_i^2,  ||W||_F <= R }

(Park et al., Algorithm 7, with their representation held fixed). `zeta^2` is a chi-square quantile
of `k d2` degrees for a nominal coverage (Wilks). The basis is the true one, or every direction; the
set around a basis that was fitted leaves the truth outside, however near.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link, get_link
from simrlhf.data.preferences import Preferences
from simrlhf.policy import master
from simrlhf.policy.regions import Likely

# numbers in all users' features on the basis, padded to the user with most pairs: 0.5 GB
_MOST_HELD = 2**26
# a relative distance that counts as none
_OUTSIDE = 1e-9
# how much of the ball's radius an estimate on its surface is moved inwards, at first
_INWARDS = 0.5
# central points on the way to the least value of a plane, the last one within rounding
_PATH = tuple(10.0**-power for power in range(1, 10))


@dataclass(frozen=True, eq=False)
class LikelihoodSets:
    """`R_i = { origin_i + root_i v : v in the region }`, one for each user; from `likelihood_set`.

    Attributes:
        centre: `Theta_hat (N, d1, d2)`, the estimates.
        flat_centre: `(N, p)`, the origin: the estimate, or a point near it inside the norm bound.
        root: `(N, p, q)`.
        radius: ones `(N,)`; the radius is in the root.
        base: `Theta_init (d1, d2)`.
        basis: `B (d1, k)`, orthonormal.
        regions: of all users, stacked.
    """

    centre: np.ndarray
    flat_centre: np.ndarray
    root: np.ndarray
    radius: np.ndarray
    base: np.ndarray
    basis: np.ndarray
    regions: Likely

    # the least value of a plane takes a search
    closed_form = False

    @property
    def n_users(self) -> int:
        return self.centre.shape[0]

    def region_of(self, users: np.ndarray) -> Likely:
        """The regions of `users (n,)`."""
        with numerics.float64_scope():
            return jax.tree.map(lambda array: array[users], self.regions)

    def worst(self, slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """The least of `offset + slope'v` over every user's region, `(N,)`; from below."""
        scale = np.maximum(np.linalg.norm(slopes, axis=1), 1e-300)
        with numerics.float64_scope():
            cuts = master.Cuts(
                jnp.asarray(slopes / scale[:, None])[:, None, :],
                jnp.zeros((self.n_users, 1)),
                jnp.ones((self.n_users, 1), dtype=bool),
            )
            v = jnp.zeros(slopes.shape)
            lower = jnp.full(self.n_users, -jnp.inf)
            for mu in _PATH:
                found = master.centres(cuts, self.regions, v, jnp.full(self.n_users, mu))
                v, lower = found.u, jnp.maximum(lower, found.lower)
            return offsets + scale * np.asarray(lower)

    def holds(self, theta: np.ndarray) -> np.ndarray:
        """Whether each user's `theta (N, d1, d2)` is in his set, `(N,)`, up to rounding."""
        theta = checks.numbers("theta", theta)
        checks.shape("theta", theta, self.centre.shape, remedy="the shape of centre")
        deviation = theta - self.base
        factors = self.basis.T @ deviation
        size = np.linalg.norm(deviation, axis=(1, 2))
        left = np.linalg.norm(deviation - self.basis @ factors, axis=(1, 2))
        step = (theta.reshape(self.n_users, -1) - self.flat_centre)[:, :, None]
        v = (np.linalg.pinv(self.root) @ step)[..., 0]
        with numerics.float64_scope():
            rooms = np.asarray(jax.vmap(Likely.rooms)(self.regions, jnp.asarray(v)))
        return (left <= _OUTSIDE * np.maximum(size, 1e-300)) & (rooms.min(axis=1) >= -_OUTSIDE)


def likelihood_set(
    centre: np.ndarray,
    preferences: Preferences,
    radius: np.ndarray | float,
    *,
    norm_bound: float,
    basis: np.ndarray | None = None,
    theta_init: np.ndarray | None = None,
) -> LikelihoodSets:
    """Every user's likelihood-ratio set around his estimate, on a fixed basis.

    Args:
        centre: `Theta_hat (N, d1, d2)`: maximises the likelihood over the basis, or nearly.
        preferences: the pairs of the fit.
        radius: zeta, above 0, one or `(N,)`.
        norm_bound: R, of the class: it keeps the set bounded where pairs separate.
        basis: `B (d1, k)`, orthonormal; every direction by default.
        theta_init: base reward `(d1, d2)`, zero by default.

    Raises:
        InputError: a radius of 0 or below, a set that misses its own estimate (off the basis, or
            beyond the norm bound), no norm bound, a link whose loss is not convex, shapes that do
            not agree, features above 0.5 GB.
    """
    centre = checks.numbers("centre", centre)
    checks.shape("centre", centre, (None, None, None), remedy="(N, d1, d2)")
    checks.finite("centre", centre)
    n_users, d1, d2 = centre.shape
    base = np.zeros((d1, d2)) if theta_init is None else checks.numbers("theta_init", theta_init)
    checks.shape("theta_init", base, (d1, d2), remedy="as the estimates")
    basis = np.eye(d1) if basis is None else checks.numbers("basis", basis)
    checks.shape("basis", basis, (d1, None), remedy="(d1, k)")
    checks.require(
        np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-8),
        "basis must have orthonormal columns; take the Q of its QR decomposition",
    )
    link = get_link(preferences.link)
    checks.require(
        link.is_log_concave,
        f"the loss of link {link.name} is not convex, so its likelihood-ratio set need not be; "
        "take an ellipsoid, or a log-concave link",
    )
    checks.require(
        (preferences.n_users, preferences.d1, preferences.d2) == centre.shape,
        f"preferences are of (N, d1, d2) = "
        f"{(preferences.n_users, preferences.d1, preferences.d2)}, centre of {centre.shape}",
    )
    widths = _radii(radius, n_users)
    checks.require(
        norm_bound is not None,
        "the set may be unbounded: where pairs separate, no reward is too large for them; give a "
        "norm_bound, and fit with it",
    )
    bound = checks.real("norm_bound", norm_bound, above=0.0)
    factors = _factors(centre - base, basis, bound)
    q = basis.shape[1] * d2
    longest = int(np.diff(preferences.offsets).max())
    checks.require(
        n_users * longest * q <= _MOST_HELD,
        f"N = {n_users} users of up to {longest:,} pairs and k d2 = {q} take "
        f"{n_users * longest * q:,} numbers, above the limit {_MOST_HELD:,}; lower one of them",
    )
    with numerics.float64_scope():
        each = [
            _of_user(preferences, user, factors[user], widths[user], (basis, base, bound, link))
            for user in range(n_users)
        ]
        regions = jax.tree.map(lambda *arrays: jnp.stack(arrays), *(one for one, _, _ in each))
    lift = np.kron(basis, np.eye(d2))
    origins = np.stack([origin for _, origin, _ in each])
    return LikelihoodSets(
        centre=centre,
        flat_centre=base.reshape(-1) + origins @ lift.T,
        root=lift @ np.stack([turn for _, _, turn in each]),
        radius=np.ones(n_users),
        base=base,
        basis=basis,
        regions=regions,
    )


def _radii(radius: np.ndarray | float, n_users: int) -> np.ndarray:
    widths = checks.numbers("radius", radius)
    checks.finite("radius", widths)
    checks.require(
        widths.shape in ((), (n_users,)), f"radius has shape {widths.shape}, expected one or (N,)"
    )
    widths = np.broadcast_to(widths, (n_users,))
    low = int(np.argmin(widths))
    checks.require(
        bool(widths[low] > 0.0),
        f"radius = {widths[low]:.6g} of user {low} must be above 0; the estimate alone is "
        "frobenius_ball(centre, 0)",
    )
    return widths


def _factors(deviation: np.ndarray, basis: np.ndarray, bound: float) -> np.ndarray:
    """`W_hat (N, k d2)`, of estimates that their sets hold."""
    factors = basis.T @ deviation
    size = np.linalg.norm(deviation, axis=(1, 2))
    left = np.linalg.norm(deviation - basis @ factors, axis=(1, 2))
    worst = int(np.argmax(left - 1e-6 * size))
    checks.require(
        bool(left[worst] <= 1e-6 * size[worst]),
        f"the set misses the estimate: {left[worst]:.3g} of the {size[worst]:.3g} of user "
        f"{worst}'s deviation from theta_init lie off the basis; give the fit's basis and base",
    )
    large = int(np.argmax(size))
    checks.require(
        bool(size[large] <= bound * (1.0 + 1e-6)),
        f"the set misses the estimate: user {large}'s deviation has the norm {size[large]:.6g}, "
        f"above norm_bound = {bound:.6g}; give the fit's own bound",
    )
    return factors.reshape(len(factors), -1)


def _of_user(
    preferences: Preferences,
    user: int,
    factor: np.ndarray,
    radius: float,
    known: tuple[np.ndarray, np.ndarray, float, Link],
) -> tuple[Likely, np.ndarray, np.ndarray]:
    """A user's region, its origin `(q,)` and what turns `v` into factors, `(q, q)`.

    Turned so that the region is about the unit ball: by the curvature of the loss at the estimate.
    """
    basis, base, bound, link = known
    mine = preferences.user(user)
    features, weights = preferences.features[mine], preferences.weights[mine]
    labels = preferences.labels[mine]
    on_basis = np.einsum("jab,ak->jkb", features, basis).reshape(len(features), -1)
    rewards = np.einsum("jab,ab->j", features, base)

    def loss(w: np.ndarray) -> float:
        return float(weights @ np.asarray(link.loss(rewards + on_basis @ w, labels)))

    budget = 0.5 * radius**2
    level = loss(factor) + budget
    origin = _inside(factor, bound, lambda w: loss(w) < level - 0.5 * budget)
    seen = rewards + on_basis @ origin
    curved = weights * np.asarray(link.loss_curvature(seen, labels))
    curvature = on_basis.T @ (curved[:, None] * on_basis)
    # directions that no pair shows are as wide as the ball
    curvature += np.eye(factor.size) * radius**2 / bound**2
    turn = radius * np.linalg.inv(np.linalg.cholesky(curvature)).T
    room = int(np.diff(preferences.offsets).max()) - len(features)
    region = Likely(
        features=jnp.asarray(np.pad(on_basis @ turn, [(0, room), (0, 0)])),
        rewards=jnp.asarray(np.pad(seen, (0, room))),
        labels=jnp.asarray(np.pad(labels, (0, room))),
        weights=jnp.asarray(np.pad(weights, (0, room))),
        level=jnp.asarray(level),
        budget=jnp.asarray(budget),
        factor=jnp.asarray(origin / bound),
        turn=jnp.asarray(turn / bound),
        link=link,
    )
    return region, origin, turn


def _inside(factor: np.ndarray, bound: float, likely: Any) -> np.ndarray:
    """The estimate, drawn towards 0 as far as it must be to lie well inside the norm bound."""
    if np.linalg.norm(factor) < (1.0 - 1e-3) * bound:
        return factor
    share = _INWARDS
    while not likely((1.0 - share) * factor):
        share *= 0.5
    return (1.0 - share) * factor
