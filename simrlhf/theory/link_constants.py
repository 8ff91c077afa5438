"""Constants of a link on a bounded interval of margins, exact for every preference link.

With `psi = -log Phi`, `w = Phi' / (Phi (1 - Phi)) = Phi'(z) / Phi(z) + Phi'(-z) / Phi(-z)` and
`I = w Phi'`, every extreme over `|z| <= m` lies at `-m`, `0`, `m` or, under label_flip, at a point
given by a polynomial. Proofs, link by link:

* `Phi'` is even and falls in `|z|`: a multiple of `s (1 - s)`, `s` the sigmoid; the normal density;
  `e^-|z| / 2`.
* logistic: `w = 1`, `|psi'| = 1 - Phi` falls in z, `psi'' = I = Phi'`.
* probit: `|psi'|(z) = h(-z)` with the hazard rate `h` of the normal law, which rises, is convex
  (Sampford, 1953) and has a slope in (0, 1). So `|psi'|` falls in z, `psi''(z) = h'(-z)` falls in
  z, `w = h(z) + h(-z)` is even and convex, and `(log I)' = h(z) - h(-z) - 2 z < 0` for z > 0.
* laplace, with `d = e^-|z|`: `w = 2 / (2 - d)` and `I = d / (2 - d)` fall in `|z|`; `|psi'|` is 1
  up to 0 and falls beyond; `psi''` is 0 below 0 and positive above.
* label_flip of rate e, with `q = 1 - 2 e`, `a = e (1 - e)` and `p = Phi`: as `p (1 - p) - a` is
  `q Phi'`, `w = (1 - a / (p (1 - p))) / q` falls in `|z|`, and so does `I`; `|psi'|`, which is
  `(1 - p - a / p) / q`, has one maximum, at `p = sqrt(a)`; `q^2 psi''`, which is
  `p - p^2 - a / p + a^2 / p^2`, is stationary at the roots of `2 p^4 - p^3 - a p + 2 a^2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link, get_link
from simrlhf.theory.statement import ingredient


@dataclass(frozen=True, kw_only=True)
class LinkConstants:
    """Extremes of a preference link over `|z| <= margin`.

    Attributes:
        margin: the largest `|z|`.
        kappa: `1 / min Phi'` (Park et al.); infinite where the slope vanishes.
        xi: `max |Phi' / Phi|` (Park et al.): the largest score factor, for matrix Bernstein, and
            the Lipschitz constant of `log Phi`.
        eta: `min (Phi'^2 - Phi'' Phi) / Phi^2 = min psi''` (Park et al.), negative where the link
            is not log-concave; the smaller one-sided value at a jump.
        score_width: `max w`, the range of the score factor between the two labels, for Hoeffding.
        smallest_information: `min I`.
        largest_information: `max I`.
        lipschitz_mean: `max Phi'`, the paper's `C_R`.
    """

    margin: float
    kappa: float
    xi: float
    eta: float
    score_width: float
    smallest_information: float
    largest_information: float
    lipschitz_mean: float


def link_constants(link: Link, *, margin: float) -> LinkConstants:
    """Constants of S3, S4 and of Park et al. for a link on `|z| <= margin`.

    Under the logistic link `kappa = 2 + e^m + e^-m = 1 / eta`: the two are reciprocal, where Park
    et al. print them as equal.

    Args:
        link: a preference link of `core.links`.
        margin: `worst_margin(...)` for constants of the class. Infinity gives the limits, of which
            `kappa`, and `xi` and `score_width` of the probit link, are infinite.

    Raises:
        InputError: the identity link, which has no probabilities; a link that `core.links` does not
            name, for which the proofs above say nothing; a negative margin or NaN.
    """
    checks.require(
        link.is_preference, f"link {link.name!r} gives no probabilities; choose a preference link"
    )
    checks.require(
        link == get_link(link.name),
        f"link {link.name!r} is not the one of that name in core.links; its extremes are unknown",
    )
    margin = ingredient("margin", margin)
    checks.require(not math.isnan(margin), "margin = nan must be a number of at least 0")
    points = np.clip([-margin, 0.0, margin, *_stationary(link)], -margin, margin)
    with numerics.float64_scope():
        z = jnp.asarray(points)
        zeros, ones = jnp.zeros_like(z), jnp.ones_like(z)
        above, below = np.asarray(link.loss_slope(z, zeros)), -np.asarray(link.loss_slope(z, ones))
        slope = below * np.asarray(link.mean(z))
        curvature = np.asarray(link.loss_curvature(z, ones))
        information = np.asarray(link.information(z))
    unbounded = link.name == "probit" and margin == math.inf  # its functions stop at 1e150
    steepest = float(slope.min())
    return LinkConstants(
        margin=margin,
        kappa=1.0 / steepest if steepest > 0.0 else math.inf,
        xi=math.inf if unbounded else float(below.max()),
        # laplace has curvature 0 on one side of 0, which even margin = 0 touches
        eta=float(curvature.min()) if link.is_smooth else 0.0,
        score_width=math.inf if unbounded else float((above + below).max()),
        smallest_information=float(information.min()),
        largest_information=float(information.max()),
        lipschitz_mean=float(slope.max()),
    )


def _stationary(link: Link) -> np.ndarray:
    """Where `|psi'|` and `psi''` of a link with a floor are stationary; empty for other links.

    Only real roots inside `(e, 1 - e)` are such points, but any other point does no harm: an
    extreme over more points of the interval is still attained in it.
    """
    with numerics.float64_scope():
        rate = float(link.mean(jnp.asarray(-math.inf)))
    if rate == 0.0:
        return np.empty(0)
    product = rate * (1.0 - rate)
    roots = np.roots([2.0, -1.0, 0.0, -product, 2.0 * product**2]).real
    share = np.clip((np.append(roots, math.sqrt(product)) - rate) / (1.0 - 2.0 * rate), 0.0, 1.0)
    with np.errstate(divide="ignore"):
        return np.log(share) - np.log1p(-share)
