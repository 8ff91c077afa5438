"""Links: how a reward difference becomes the law of a label.

A preference link gives `P(o = 1) = Phi(z)` with `Phi(x) + Phi(-x) = 1` and the loss
`o psi(z) + (1 - o) psi(-z)`, `psi = -log Phi` (theory.md, section 1). The identity link is
regression: the label is `z` plus Gaussian noise and the loss is `(z - y)^2 / 2`.

Every function is elementwise, works on JAX and NumPy arrays and is safe for any finite `z`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from simrlhf.core import checks


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link as functions of the reward difference `z` and the label `y`.

    Attributes:
        name: the name users write.
        mean: `E[y | z]`; the probability that the first item is preferred, or `z` itself.
        loss: negative log-likelihood of one label (up to a constant for the identity link).
        loss_slope: its derivative in `z`.
        loss_curvature: its second derivative in `z`.
        information: Fisher information about `z` in one label, `Phi'^2 / (Phi (1 - Phi))`;
            for the identity link with unit noise, 1.
        curvature_bound: upper bound of `loss_curvature` over all `z` and `y` (the `L` of S2).
        slope_bound: upper bound of `|loss_slope|` over all `z` and labels in [0, 1], or
            infinity (the `w_max` of S3).
        is_preference: whether labels are probabilities.
    """

    name: str
    mean: Callable[[jax.Array], jax.Array]
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    loss_slope: Callable[[jax.Array, jax.Array], jax.Array]
    loss_curvature: Callable[[jax.Array, jax.Array], jax.Array]
    information: Callable[[jax.Array], jax.Array]
    curvature_bound: float
    slope_bound: float
    is_preference: bool


def _logistic_curvature(z: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)


LOGISTIC = Link(
    name="logistic",
    mean=jax.nn.sigmoid,
    # softplus(z) - y z = y psi(z) + (1 - y) psi(-z) for the sigmoid, without cancellation
    loss=lambda z, y: y * jax.nn.softplus(-z) + (1.0 - y) * jax.nn.softplus(z),
    loss_slope=lambda z, y: (1.0 - y) * jax.nn.sigmoid(z) - y * jax.nn.sigmoid(-z),
    loss_curvature=lambda z, y: _logistic_curvature(z),
    information=_logistic_curvature,
    curvature_bound=0.25,
    slope_bound=1.0,
    is_preference=True,
)

IDENTITY = Link(
    name="identity",
    mean=lambda z: z,
    loss=lambda z, y: 0.5 * (z - y) ** 2,
    loss_slope=lambda z, y: z - y,
    loss_curvature=lambda z, y: jnp.ones_like(z),
    information=lambda z: jnp.ones_like(z),
    curvature_bound=1.0,
    slope_bound=float("inf"),
    is_preference=False,
)

LINKS = {link.name: link for link in (LOGISTIC, IDENTITY)}


def get_link(name: str) -> Link:
    """Return the link called `name`; an unknown name is an `InputError` that lists them."""
    return LINKS[checks.choice("link", name, LINKS)]
