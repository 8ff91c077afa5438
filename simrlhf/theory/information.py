"""Fisher information about one user's reward vector in one comparison.

Convention of this package: `vec` of a `(d1, d2)` matrix is its C-order `reshape(-1)`, rows one
after the other, so `vec(B V) = (B (x) I_{d2}) vec V` and `vec(K W) = (I (x) W') vec K`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link

LAWS = ("gaussian", "sphere")
# Gauss-Legendre nodes per panel. Panels double away from the origin until they have length 1/2, so
# a pole of the integrand is never nearer to a panel than about its length: 24 nodes leave rounding.
_NODES = 24
_LONGEST = 0.5
# exp(-r^2 / 2) is below 1e-31 beyond; the sphere's weight falls as fast up to a factor in the power
_REACH = 12.0


class _Rule(NamedTuple):
    """Nodes `t >= 0` of the component along `Theta`, weights of its density on both sides."""

    nodes: np.ndarray
    weights: np.ndarray
    across: np.ndarray


def isotropic_fisher(theta: np.ndarray, link: Link, law: str = "gaussian") -> np.ndarray:
    """Fisher information `H_i = E[I(z) vec x vec x']`, `z = <Theta_i, x>`, one comparison (L1, L2).

    With `p = d1 d2`, `u = vec Theta_i / ||Theta_i||`, `t = <u, vec x>` and `z = ||Theta_i|| t`,

        H_i = a u u' + c (I - u u'),   a = E[I(z) t^2],   c = E[I(z) b(t)],

    with `b = 1` and t standard normal for standard Gaussian features. Features uniform on the
    sphere of radius `sqrt(p)` have `b = (p - t^2) / (p - 1)` and t of density proportional to
    `(1 - t^2 / p)^((p - 3) / 2)` (p = 1: `t = +-1`, and there is nothing across). Both laws have
    `E[vec x vec x'] = I`. Expectations by quadrature, good to about 1e-13 of their value.

    Args:
        theta: `(d1, d2)` or `(N, d1, d2)` whole reward vectors, `Theta_init + Delta_i`.
        link: its `information` must be an even function (as for every preference link).
        law: `gaussian` or `sphere`.

    Returns:
        `(N, p, p)`, N = 1 for one matrix; for regression with noise of standard deviation `s`
        divide by `s^2`.

    Raises:
        InputError: unknown law, another shape, or entries that are not finite.
    """
    checks.choice("feature law", law, LAWS)
    theta = np.asarray(theta, dtype=np.float64)
    theta = theta[None] if theta.ndim == 2 else theta
    checks.shape("theta", theta, (None, None, None), remedy="one (d1, d2) matrix for each user")
    checks.require(theta.size > 0, f"theta is empty: its shape is {theta.shape}")
    checks.finite("theta", theta)
    flat = theta.reshape(theta.shape[0], -1)
    norms = np.linalg.norm(flat, axis=1)
    along, across = isotropic_values(norms, flat.shape[1], link, law)
    directions = flat / np.where(norms > 0.0, norms, 1.0)[:, None]
    outer = directions[:, :, None] * directions[:, None, :]
    return across[:, None, None] * (np.eye(flat.shape[1]) - outer) + along[:, None, None] * outer


def isotropic_values(
    norms: np.ndarray, size: int, link: Link, law: str = "gaussian"
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues `a` (along `Theta_i`) and `c` (across it) of `isotropic_fisher`'s `H_i`.

    Args:
        norms: `(N,)` `||Theta_i||_F`.
        size: `p = d1 d2`.
        link, law: as in `isotropic_fisher`.

    Returns:
        `a (N,)` and `c (N,)`; for p = 1 there is nothing across, and c is 0.
    """
    checks.choice("feature law", law, LAWS)
    largest = float(norms.max())
    rule = _gaussian_rule(largest) if law == "gaussian" else _sphere_rule(largest, size)
    information = _values(link.information, norms[:, None] * rule.nodes)
    along = information @ (rule.weights * rule.nodes**2)
    return along, information @ (rule.weights * rule.across)


def _gaussian_rule(largest_norm: float) -> _Rule:
    nodes, weights = _half_line_rule(_REACH, largest_norm)
    weights = weights * np.exp(-0.5 * nodes**2)
    return _Rule(nodes, weights / weights.sum(), np.ones_like(nodes))


def _sphere_rule(largest_norm: float, p: int) -> _Rule:
    """In the angle: `t = sqrt(p) sin(angle)` has weight `cos(angle)^(p - 2)`, smooth for p >= 2."""
    if p == 1:
        return _Rule(np.ones(1), np.ones(1), np.zeros(1))
    radius = np.sqrt(p)
    arcs, weights = _half_line_rule(min(_REACH, 0.5 * np.pi * radius), largest_norm)
    cosines = np.cos(arcs / radius)
    weights = weights * cosines ** (p - 2)
    return _Rule(radius * np.sin(arcs / radius), weights / weights.sum(), p * cosines**2 / (p - 1))


def _half_line_rule(reach: float, largest_norm: float) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss-Legendre on `[0, reach]`, finest at 0, where `I(||Theta|| t)` varies fastest.

    Steps of 1 / norm resolve the peak of the largest norm; smaller norms are smoother still.
    """
    first = min(_LONGEST, 1.0 / max(largest_norm, 1.0))
    doublings = max(math.ceil(math.log2(_LONGEST / first)), 0)
    graded = np.minimum(first * 2.0 ** np.arange(doublings + 1), _LONGEST)
    even = np.arange(_LONGEST, reach, _LONGEST)[1:]
    edges = np.unique(np.concatenate([[0.0], graded, even, [reach]]))
    edges = edges[edges <= reach]
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = 0.5 * np.diff(edges)[:, None]
    points = edges[:-1, None] + half * (1.0 + nodes)
    return points.ravel(), (half * weights).ravel()


def _values(function: Callable, points: np.ndarray) -> np.ndarray:
    with numerics.float64_scope():
        return np.asarray(function(jnp.asarray(points)))
