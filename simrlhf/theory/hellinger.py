"""The maximum-likelihood error in Hellinger distance, the paper's own route with constants (S4).

`H^2(P, Q) = sum_o (sqrt p(o) - sqrt q(o))^2`, not halved; sums are over all `N_tot` pairs, given
the design. All rewards stay in `|z| <= margin`, `xi` is `max |Phi' / Phi|` there and `X` is
`max ||x||_F`.

S4, proof. One label of law p* has `E exp((1/2) log(q / p*)) = sum_o sqrt(p* q) = 1 - H^2 / 2`, at
most `exp(-H^2 / 2)`. Markov's inequality and a union over the cover give, for all its members q at
once, with probability `1 - delta`,

    sum H^2(q, p*) <= sum log(p* / q) + 2 log(|cover| / delta).

Let q be the member within `1 / (N_tot X)` of the estimate in every user's Frobenius norm: rewards
differ by at most `1 / N_tot`, so `sum log(p_hat / q) <= xi`, and `F(hat) <= F(truth) + e` gives
`sum log(p* / p_hat) <= e`. The right side is then at most `A = e + xi + 2 log(|cover| / delta)`.

Chord and arc. `(sqrt p, sqrt(1 - p))` is a point of the unit circle at an angle whose derivative in
z is `sqrt(I) / 2`. So with `g` the difference of the angles, `H^2 = 4 sin^2(g / 2)`, which lies
between `8 g^2 / pi^2` and `g^2` since `g <= pi / 2`:

    (2 I_min / pi^2) (z - z')^2 <= H^2(P_z, P_z') <= (I_max / 4) (z - z')^2.

The upper side bounds `sum H^2(p_hat, q)` by `b = I_max / (4 N_tot)`. The triangle inequality for
`sqrt(sum H^2)` ends the proof: `sum H^2(p_hat, p*) <= (sqrt A + sqrt b)^2`. The lower side turns it
into a bound of the error.

S4b, proof. Let the truth lie outside the class and `F(hat) <= F(<>) + e`. Then `sum log(p* / q)` is
larger by at most `Z = sum log(p* / p^<>)`, and `E exp(Z) = prod (1 + chi2)`, with
`chi2 = sum_o (p* - p^<>)^2 / p^<>`: Markov again, and each event gets half of delta.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link
from simrlhf.theory.statement import Bound, ingredient, make_bound, ratio
from simrlhf.theory.subspaces import geometry_bound


def hellinger_squares(link: Link, z_a: np.ndarray, z_b: np.ndarray) -> np.ndarray:
    """Squared Hellinger distance, not halved, between the laws of a label under two rewards.

        H^2 = (sqrt p_a - sqrt p_b)^2 + (sqrt(1 - p_a) - sqrt(1 - p_b))^2

    Computed from `p_a - p_b` in the smaller tail: the relative error is about `1e-15 / |z_a - z_b|`
    and not that squared, as it would be from `2 - 2 sum sqrt(p q)`. Under a link with a floor
    (`label_flip`) digits are lost where both rewards are far out: the floors cancel.

    Args:
        link: a preference link.
        z_a, z_b: `(P,)` reward differences.
    """
    gap, up, down = _probabilities(link, z_a, z_b)
    total = np.zeros_like(gap)
    for a, b in (up, down):
        roots = np.sqrt(a) + np.sqrt(b)
        total += np.divide(gap, roots, out=np.zeros_like(gap), where=roots > 0.0) ** 2
    return total


def chi_squares(link: Link, z_true: np.ndarray, z_other: np.ndarray) -> np.ndarray:
    """Chi-square divergence of the law of a label from that under other rewards (S4b).

        chi2(P* || P) = (p* - p)^2 / (p (1 - p))

    Args:
        link: a preference link.
        z_true, z_other: `(P,)` reward differences under the truth and under the other; infinite
            where the other law excludes in floating point what the truth allows.
    """
    gap, (_, up), (_, down) = _probabilities(link, z_true, z_other)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where(gap == 0.0, 0.0, gap / up * (gap / down))


def _probabilities(
    link: Link, z_a: np.ndarray, z_b: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """`|p_a - p_b|` with the digits of the smaller tail, and both laws' two probabilities."""
    checks.require(
        link.is_preference, f"link {link.name!r} gives no probabilities; choose a preference link"
    )
    z_a, z_b = np.asarray(z_a, dtype=np.float64), np.asarray(z_b, dtype=np.float64)
    checks.shape("z_a", z_a, (None,), remedy="one reward difference for each pair")
    checks.shape("z_b", z_b, z_a.shape, remedy="both need the same pairs")
    with numerics.float64_scope():
        up_a, up_b, down_a, down_b = (
            np.asarray(link.mean(jnp.asarray(z))) for z in (z_a, z_b, -z_a, -z_b)
        )
    gap = np.where(z_a + z_b > 0.0, np.abs(down_a - down_b), np.abs(up_a - up_b))
    return gap, (up_a, up_b), (down_a, down_b)


def hellinger_bound(
    *,
    log_cover: float,
    delta: float,
    xi: float,
    largest_information: float,
    total_pairs: int,
    slack: float = 0.0,
    log_chi_square: float | None = None,
) -> Bound:
    """Summed squared Hellinger distance of the estimate from the truth, w.p. `1 - delta` (S4, S4b).

        sum_j H^2(P_hat, P*) <= (sqrt A + sqrt b)^2,   b = I_max / (4 N_tot)
        S4   A = e + xi + 2 log(|cover| / delta)               for F(hat) <= F(truth) + e
        S4b  A = e + xi + 2 log(2 |cover| / delta)
                 + sum_j log(1 + chi2(P* || P^<>)) + log(2 / delta)   for F(hat) <= F(<>) + e

    Departure from S4 as `2 A + 2 b = 2 xi + 4 log(|cover| / delta) + I_max / (2 N_tot)`: that is
    never smaller, and nearly twice as large, because b is small.

    Fails when the labels are not independent draws given the design, or pairs have weights.

    Args:
        log_cover: `log |cover|`, from `log_cover_number` at the resolution `1 / (N_tot X)`.
        delta: failure probability, in (0, 1].
        xi, largest_information: from `link_constants` at the `worst_margin` of the class.
        total_pairs: `N_tot`.
        slack: `e`, not negative: the certificate of the run.
        log_chi_square: `sum_j log(1 + chi2)`, from `chi_squares`, chooses S4b; the default is S4,
            which needs a certificate against the truth.

    Returns:
        A `Bound` with terms `cover` (`2 log(|cover| / delta)`, S4b with its 2), `lipschitz` (xi),
        `slack` (e), `misspecification` (of S4b, else 0) and `rounding` (b). Its ceiling is
        `2 N_tot`.
    """
    delta = checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    total_pairs = checks.integer("total_pairs", total_pairs, low=1)
    misspecified = log_chi_square is not None
    events = 2.0 if misspecified else 1.0
    excess = 0.0
    if misspecified:
        excess = ingredient("log_chi_square", log_chi_square) + math.log(events / delta)
    terms = {
        "cover": 2.0 * (ingredient("log_cover", log_cover) + math.log(events / delta)),
        "lipschitz": ingredient("xi", xi),
        "slack": ingredient("slack", slack, remedy="use max(F(hat) - F(reference), 0)"),
        "misspecification": excess,
    }
    rounding = ingredient("largest_information", largest_information) / (4.0 * total_pairs)
    return make_bound(
        (math.sqrt(sum(terms.values())) + math.sqrt(rounding)) ** 2,
        terms=terms | {"rounding": rounding},
        ceiling=2.0 * total_pairs,
        statement="S4b" if misspecified else "S4",
    )


def squared_error_bound(
    hellinger: float,
    *,
    smallest_information: float,
    smallest_design: float,
    sigma_k: float,
    ceiling: float,
) -> Bound:
    """Error and distance of an estimate from its summed squared Hellinger distance (S4, S1).

        ||E||_F^2 <= pi^2 / (2 I_min m) sum_j H^2(P_hat, P*),   dist <= ||E||_F / sigma_k

    The first step is deterministic: `m ||E||_F^2 <= sum (z_hat - z*)^2`.

    Args:
        hellinger: the sum, or the value of `hellinger_bound`.
        smallest_information: `I_min`, from `link_constants` at a margin that covers the estimate
            and the truth.
        smallest_design: `m`, from `design_extremes` without weights.
        sigma_k, ceiling: as in `geometry_bound`.

    Returns:
        A `Bound` of `dist` with terms `squared_error` (bound of `||E||_F^2`), `error` and
        `sigma_k`. VACUOUS when `I_min`, `m` or `sigma_k` is 0.
    """
    hellinger = ingredient("hellinger", hellinger)
    information = ingredient("smallest_information", smallest_information)
    stiffness = 2.0 * information * ingredient("smallest_design", smallest_design)
    squared = ratio(math.pi**2 * hellinger, stiffness)
    error = math.sqrt(squared)
    geometry = geometry_bound(error, sigma_k=sigma_k, ceiling=ceiling)
    return make_bound(
        geometry.value,
        terms={"squared_error": squared, "error": error, "sigma_k": geometry.terms["sigma_k"]},
        ceiling=ceiling,
        statement="S4, S1",
    )
