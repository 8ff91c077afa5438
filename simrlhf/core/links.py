"""Links: how a reward difference becomes the law of a label.

A preference link gives `P(o = 1) = Phi(z)` with `Phi(x) + Phi(-x) = 1` and the loss
`o psi(z) + (1 - o) psi(-z)`, `psi = -log Phi` (theory.md, section 1). The identity link is
regression: the label is `z` plus Gaussian noise and the loss is `(z - y)^2 / 2`.

    logistic      Phi(z) = 1 / (1 + e^-z)
    probit        Phi(z) = the standard normal distribution function
    laplace       Phi(z) = e^z / 2 for z < 0, 1 - e^-z / 2 for z >= 0
    label_flip    Phi(z) = e + (1 - 2 e) / (1 + e^-z): a label of the logistic link is turned over
                  with probability e, 0.1 unless the name says another, as in "label_flip:0.2"

All but `label_flip` are log-concave, so their losses are convex; no link with a floor is. Under
`label_flip` a loss is bounded: without a norm bound the likelihood may be highest at infinity.

Every function is elementwise, works on JAX and NumPy arrays and is safe for any finite `z`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from simrlhf.core import checks


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link as functions of the reward difference `z` and the label `y`.

    Attributes:
        name: the name users write.
        mean: `E[y | z]`; the probability that the first item is preferred, or `z` itself.
        loss: negative log-likelihood of one label (up to a constant for the identity link).
        loss_slope: its derivative in `z`.
        loss_curvature: its second derivative in `z`; the larger one-sided value at a jump.
        information: Fisher information about `z` in one label, `Phi'^2 / (Phi (1 - Phi))`;
            for the identity link with unit noise, 1.
        curvature_bound: upper bound of `loss_curvature` over all `z` and `y` (the `L` of S2).
        slope_bound: upper bound of `|loss_slope|` over all `z` and labels in [0, 1], or
            infinity (the `xi` of S4, and the score factor of S3's `rho`; the range of the scores,
            S3's `w_max`, is twice as large under laplace: `theory.link_constants`).
        is_preference: whether labels are probabilities.
        is_log_concave: whether the loss is convex in `z` for every label.
        is_smooth: whether the curvature is continuous in `z`.
    """

    name: str
    mean: Callable[..., jax.Array]
    loss: Callable[..., jax.Array]
    loss_slope: Callable[..., jax.Array]
    loss_curvature: Callable[..., jax.Array]
    information: Callable[..., jax.Array]
    curvature_bound: float
    slope_bound: float
    is_preference: bool
    is_log_concave: bool = True
    is_smooth: bool = True


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


def _preference(
    name: str,
    *,
    mean: Callable[[jax.Array], jax.Array],
    psi: Callable[[jax.Array], jax.Array],
    slope: Callable[[jax.Array], jax.Array],
    curvature: Callable[[jax.Array], jax.Array],
    information: Callable[[jax.Array], jax.Array],
    **settings: float | bool,
) -> Link:
    """A preference link from `psi = -log Phi` and its two derivatives."""
    return Link(
        name=name,
        mean=mean,
        loss=lambda z, y: y * psi(z) + (1.0 - y) * psi(-z),
        loss_slope=lambda z, y: y * slope(z) - (1.0 - y) * slope(-z),
        loss_curvature=lambda z, y: y * curvature(z) + (1.0 - y) * curvature(-z),
        information=information,
        is_preference=True,
        **settings,  # type: ignore[arg-type]
    )


# --- probit. Squares overflow beyond this size, and rewards of it mean nothing.
_LARGEST = 1e150
# below it `phi / Phi` is a continued fraction (Laplace's), which is right to rounding there with so
# many terms; above it a quotient that does not cancel
_FRACTION_BELOW = -8.0
_TERMS = 14
_LOG_ROOT = 0.5 * math.log(2.0 * math.pi)


def _mills(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`m = phi(z) / Phi(z)` and `m + z`, each without cancellation.

    For `t = -z` large, `m = t + r` with `r = 1/(t + 2/(t + 3/(t + ...)))`.
    """
    z = jnp.clip(z, -_LARGEST, _LARGEST)
    far = z < _FRACTION_BELOW
    t = jnp.where(far, -z, -_FRACTION_BELOW)
    tail = t
    for term in range(_TERMS, 1, -1):
        tail = t + term / tail
    rest = 1.0 / tail
    near = jnp.where(far, 0.0, z)
    quotient = jnp.exp(-0.5 * near**2 - _LOG_ROOT) / ndtr(near)
    return jnp.where(far, t + rest, quotient), jnp.where(far, rest, quotient + near)


def _probit_psi(z: jax.Array) -> jax.Array:
    """`-log Phi`; for large `t = -z` from `Phi(-t) = phi(t) / m`."""
    z = jnp.clip(z, -_LARGEST, _LARGEST)
    far, above = z < _FRACTION_BELOW, z >= 0.0
    t = jnp.where(far, z, 2.0 * _FRACTION_BELOW)
    of_far = 0.5 * t**2 + _LOG_ROOT + jnp.log(_mills(t)[0])
    middle = -jnp.log(ndtr(jnp.where(far | above, -1.0, z)))
    of_above = -jnp.log1p(-ndtr(jnp.where(above, -z, -1.0)))
    return jnp.where(far, of_far, jnp.where(above, of_above, middle))


def _probit_curvature(z: jax.Array) -> jax.Array:
    ratio, gap = _mills(z)
    return ratio * gap


PROBIT = _preference(
    "probit",
    mean=ndtr,
    psi=_probit_psi,
    slope=lambda z: -_mills(z)[0],
    curvature=_probit_curvature,
    information=lambda z: _mills(z)[0] * _mills(-z)[0],
    curvature_bound=1.0,
    slope_bound=float("inf"),
)


# --- laplace. `e^-|z|` never overflows; where the other branch is taken its argument is 0.
def _positive_part(z: jax.Array) -> jax.Array:
    return jnp.where(z < 0.0, 0.0, z)


def _laplace_curvature(z: jax.Array) -> jax.Array:
    decay = jnp.exp(-_positive_part(z))
    return jnp.where(z < 0.0, 0.0, 2.0 * decay / (2.0 - decay) ** 2)


def _laplace_information(z: jax.Array) -> jax.Array:
    decay = jnp.exp(-jnp.abs(z))
    return decay / (2.0 - decay)


def _laplace_slope(z: jax.Array) -> jax.Array:
    decay = jnp.exp(-_positive_part(z))
    return -decay / (2.0 - decay)


LAPLACE = _preference(
    "laplace",
    mean=lambda z: jnp.where(z < 0.0, 0.5 * jnp.exp(-jnp.abs(z)), 1.0 - 0.5 * jnp.exp(-jnp.abs(z))),
    psi=lambda z: jnp.where(
        z < 0.0, math.log(2.0) - z, -jnp.log1p(-0.5 * jnp.exp(-_positive_part(z)))
    ),
    slope=_laplace_slope,  # -1 for z < 0, which is its value at 0
    curvature=_laplace_curvature,
    information=_laplace_information,
    curvature_bound=2.0,
    slope_bound=1.0,
    is_smooth=False,
)


# --- label_flip. With `p = Phi(z)`, `q = 1 - 2 e` and `a = e (1 - e)`:
#   -psi' = (p - e)(1 - e - p) / (q p),   psi'' = (1 - a / p^2)(p - e)(1 - e - p) / q^2
DEFAULT_FLIP_RATE = 0.1
# right up to here; near 1/2 two stationary points of psi' merge, near 0 powers of the rate vanish
_LEAST_FLIP = 1e-6
_FLIP = "label_flip"


def label_flip(rate: float = DEFAULT_FLIP_RATE) -> Link:
    """The logistic link whose labels are turned over with probability `rate`, in (0, 1/2).

    The same object for the same rate, so that kernels compiled for a link are found again.

    Raises:
        InputError: a rate outside (0, 1/2), or so near an end that extremes of its curvature
            cancel in float64.
    """
    checks.real("label_flip's rate", rate, above=0.0, remedy="0 is the logistic link")
    checks.require(
        rate < 0.5,
        f"label_flip's rate = {rate:.12g} must be below 0.5, where labels say nothing; lower it",
    )
    rate = checks.real(
        "label_flip's rate", rate, low=_LEAST_FLIP, high=0.5 - _LEAST_FLIP,
        remedy="nearer to 0 it is the logistic link, nearer to 0.5 labels say nothing",
    )  # fmt: skip
    return _flipped(rate)


@cache  # a link is known by identity: none may be forgotten
def _flipped(rate: float) -> Link:
    share, product = 1.0 - 2.0 * rate, rate * (1.0 - rate)

    def mean(z: jax.Array) -> jax.Array:
        return rate + share * jax.nn.sigmoid(z)

    def density(z: jax.Array) -> jax.Array:
        return share * _logistic_curvature(z)

    return _preference(
        _FLIP if rate == DEFAULT_FLIP_RATE else f"{_FLIP}:{rate!r}",
        mean=mean,
        psi=lambda z: -jnp.log(mean(z)),
        slope=lambda z: -density(z) / mean(z),
        curvature=lambda z: (1.0 - product / mean(z) ** 2) * density(z) / share,
        information=lambda z: density(z) ** 2 / (mean(z) * mean(-z)),
        curvature_bound=_largest_flip_curvature(rate),
        # |psi'| is largest where p^2 = a
        slope_bound=(1.0 - 2.0 * math.sqrt(product)) / share,
        is_log_concave=False,
    )


def _largest_flip_curvature(rate: float) -> float:
    """Maximum of psi'', a root of `2 p^4 - p^3 - a p + 2 a^2` in `p`."""
    product = rate * (1.0 - rate)
    roots = np.roots([2.0, -1.0, 0.0, -product, 2.0 * product**2])
    p = roots.real[np.abs(roots.imag) < 1e-9]
    p = np.clip(p, rate, 1.0 - rate)
    values = (1.0 - product / p**2) * (p - rate) * (1.0 - rate - p) / (1.0 - 2.0 * rate) ** 2
    return float(values.max())


LABEL_FLIP = label_flip()

LINKS = {link.name: link for link in (LOGISTIC, IDENTITY, PROBIT, LAPLACE, LABEL_FLIP)}


def get_link(name: str) -> Link:
    """Return the link called `name`, or `label_flip:RATE` with a rate in (0, 1/2).

    Raises:
        InputError: an unknown name (it lists them), a rate that is none.
    """
    if isinstance(name, str) and name.startswith(f"{_FLIP}:"):
        return label_flip(_rate(name))
    return LINKS[checks.choice("link", name, LINKS, remedy=_ask(name))]


def _rate(name: str) -> float:
    try:
        return float(name.removeprefix(f"{_FLIP}:"))
    except ValueError:
        raise checks.InputError(
            f"link {name!r} has no number behind the colon; write {_FLIP}:0.2 for a rate of 0.2"
        ) from None


def _ask(name: object) -> str:
    return f"{_FLIP} takes a rate as in {_FLIP}:0.2" if _FLIP in str(name) else ""
