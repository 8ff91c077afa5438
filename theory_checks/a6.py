"""A6: the step from smoothness to an upper bound, and two slips before it, in Theorem B.3's proof.

f is a user's mean log-likelihood on the frozen basis, `d = w_hat - w^<>`, `f(w_hat) >= f(w^<>)`.

* (B.7), for linear rewards: `f(w_hat) - f(w^<>) <= grad f(w^<>)'d - (c_2 / 2) ||d||_Sigma^2`,
  `c_2 = min psi''` over the margins; printed without the 1/2.
* (B.9), which follows: `(c_2 / 2) ||d||_Sigma^2 <= grad f(w^<>)'d`; printed with `-d`.
* (B.10), printed: an upper bound of `||d||^2` by `(2 / L) |grad f(w^<>)'d|`, from the smoothness L
  of f. Smoothness gives the lower one: `(L / 2) ||d||^2 >= -grad f(w^<>)'d`.

With (B.9) linear rewards have `||d||_Sigma <= (2 / c_2) ||grad f(w^<>)||_{Sigma^{-1}}` and need no
(B.10).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize

from simrlhf import testing, theory
from simrlhf.core.links import LOGISTIC
from simrlhf.study.checking import Check, Finding, Kind, Verdict, attempt, exactly, require_sound
from simrlhf.testing import Judgement

CHECK = Check(
    statement="A6",
    title="smoothness bounds from below, not from above",
    kind=Kind.AUDIT,
    claim="(B.10): ||w_hat - w^<>||^2 <= (2/L) |grad f(w^<>)'(w_hat - w^<>)|, from f(w_hat) >= "
    "f(w^<>) and the smoothness L of f",
    procedure="f in one parameter under the smooth reward w - (1 - s) sin w, whose maximum lies "
    "where the reward has the slope s = .3 to .03, true labels' law; linear rewards: logistic "
    "likelihoods of drawn designs with their maximisers, and a quadratic one with points of equal "
    "f; (B.7) and (B.9) with the 1/2 and the sign put right, the lower bound, and the bound that "
    "makes (B.10) unnecessary",
    rival="(B.7) without its 1/2; the other sign; half of the lower bound; half of the linear one",
    tolerance="relative 1e-9; equality for a quadratic f",
    source="P-ShareLoRA, Appendix B, (B.7), (B.9), (B.10); theory.md, A6",
)
_SLOPES = {
    "tiny": (0.3, 0.1, 0.03),
    "smoke": (0.3, 0.2, 0.1, 0.05, 0.03),
    "paper": tuple(np.geomspace(0.3, 0.01, 12)),
}
_DESIGNS = {"tiny": 20, "smoke": 100, "paper": 1000}
_PAIRS, _PARAMETERS = 60, 3
# parameters of the nonlinear reward, the maximum in their middle
_RANGE = np.linspace(-np.pi, np.pi, 20_001)


def measure(size: str) -> dict[str, Any]:
    """Both sides of every inequality, for nonlinear and for linear rewards."""
    bent = [row for slope in _SLOPES[size] for row in _nonlinear(slope)]
    linear = [_linear(seed) for seed in range(_DESIGNS[size])]
    return {
        "bent": pd.DataFrame(bent),
        "linear": pd.DataFrame(linear),
        "quadratic": pd.DataFrame([_quadratic(seed) for seed in range(_DESIGNS[size])]),
        "convex": pd.DataFrame([_from_a_valley(step) for step in (0.1, 0.03, 0.01)]),
    }


def _nonlinear(slope: float) -> list[dict[str, Any]]:
    """One pair whose reward difference is `w - (1 - s) sin w`; the truth `w = 0` is the maximum.

    Its slope there is s, and L hardly depends on s. The start is a step away from the maximum.
    """

    def reward(w: np.ndarray | float) -> np.ndarray:
        return np.asarray(w - (1.0 - slope) * np.sin(w))

    def first(w: np.ndarray | float) -> np.ndarray:
        return np.asarray(1.0 - (1.0 - slope) * np.cos(w))

    labels = _sigmoid(reward(_RANGE))
    bend = (0.5 - labels) * (1.0 - slope) * np.sin(_RANGE)
    bend -= labels * (1.0 - labels) * first(_RANGE) ** 2
    smoothness = float(np.abs(bend).max())
    return [
        {
            "slope": slope,
            "step": step,
            "squared": step**2,
            "L": smoothness,
            "gain": float(_fair(0.5, reward(0.0)) - _fair(0.5, reward(-step))),
            "along": float((0.5 - _sigmoid(reward(-step))) * first(-step)) * step,
        }
        for step in (0.1, 0.01)
    ]


def _fair(share: float | np.ndarray, z: np.ndarray) -> np.ndarray:
    """Mean log-likelihood of a margin where a share of the labels is 1."""
    return -share * np.logaddexp(0.0, -z) - (1.0 - share) * np.logaddexp(0.0, z)


def _sigmoid(z: np.ndarray | float) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(z))))


def _linear(seed: int) -> dict[str, Any]:
    """A logistic likelihood of linear rewards: its maximiser seen from another point."""
    rng = np.random.default_rng([6, seed])
    z = rng.standard_normal((_PAIRS, _PARAMETERS)) @ rng.standard_normal((_PARAMETERS,) * 2)
    truth = rng.standard_normal(_PARAMETERS) / np.sqrt(np.mean(np.sum(z**2, axis=1)))
    labels = (rng.random(_PAIRS) < _sigmoid(z @ truth)).astype(float)

    def gradient(w: np.ndarray) -> np.ndarray:
        return z.T @ (labels - _sigmoid(z @ w)) / _PAIRS

    fitted = scipy.optimize.root(lambda w: -gradient(w), truth, tol=1e-13)
    start = truth + rng.choice([0.05, 0.5]) * rng.standard_normal(_PARAMETERS)
    value = {name: float(np.mean(_fair(labels, z @ w))) for name, w in
             (("fit", fitted.x), ("start", start))}  # fmt: skip
    largest = float(np.abs(z @ np.stack([start, fitted.x], axis=1)).max())
    return _sides(z.T @ z / _PAIRS, fitted.x - start, gradient(start)) | {
        "gain": value["fit"] - value["start"],
        "margin": largest,
    }


def _quadratic(seed: int) -> dict[str, Any]:
    """`f(w) = g'd - d'Sigma d / 2`: c_2 is 1, and at the far edge f is what it was, `d = 2 d_max`.

    There (B.7) and the bound of linear rewards are equalities.
    """
    rng = np.random.default_rng([66, seed])
    z = rng.standard_normal((_PAIRS, _PARAMETERS))
    sigma, gradient = z.T @ z / _PAIRS, rng.standard_normal(_PARAMETERS)
    best = np.linalg.solve(sigma, gradient)
    edge = 2.0 * best
    return _sides(sigma, edge, gradient) | {
        "gain": float(gradient @ edge - 0.5 * edge @ sigma @ edge),
        "gain_of_best": float(0.5 * gradient @ best),
        "along_best": float(gradient @ best),
        "norm_of_best": float(np.sqrt(best @ sigma @ best)),
    }


def _sides(sigma: np.ndarray, moved: np.ndarray, gradient: np.ndarray) -> dict[str, float]:
    return {
        "norm": float(np.sqrt(moved @ sigma @ moved)),
        "along": float(gradient @ moved),
        "dual": float(np.sqrt(gradient @ np.linalg.solve(sigma, gradient))),
    }


def _from_a_valley(step: float) -> dict[str, Any]:
    """Reward `w^2` of one pair that is always preferred: f is convex where w is small.

    From `w = step` through the valley to `-step` f is the same, and the lower bound of smoothness
    is nearly attained: `f'' = 2 Phi(-w^2) - 4 w^2 Phi'(w^2)` is 1 at 0, and nowhere more.
    """
    start, end = step, -step
    gradient = float(_sigmoid(-(start**2)) * 2.0 * start)
    gain = float(_fair(1.0, np.asarray(end**2)) - _fair(1.0, np.asarray(start**2)))
    return {
        "squared": (end - start) ** 2,
        "L": 1.0,
        "gain": gain,
        "along": gradient * (end - start),
    }


def judge(measured: dict[str, Any]) -> Finding:
    """(B.10) as printed, what smoothness does give, and what linear rewards have without it."""
    bent, valley = measured["bent"], measured["convex"]
    printed = attempt(
        testing.never_violated,
        0.5 * bent["L"] * bent["squared"],
        bent["along"].abs(),
        rival=0.5 * bent["along"].abs(),
        statement="(B.10) as printed",
    )
    required = [_smoothness(bent, valley), *_linear_rewards(measured)]
    require_sound(required)
    factors = 0.5 * bent["L"] * bent["squared"] / bent["along"].abs()
    worst = bent.loc[factors.idxmax()]
    return Finding(
        verdict=Verdict.HOLDS if printed.holds else Verdict.REFUTED,
        quantity="largest ||d||^2 over what (B.10) allows",
        measured=exactly(float(factors.max())),
        remark=f"From {factors.min():.2g} to {factors.max():.0f} times what (B.10) allows, with L "
        f"the largest curvature of f and the reward's slope {bent['slope'].max():g} to "
        f"{worst['slope']:g} where f is largest: as the inverse square of it, without limit. "
        "Smoothness bounds the step from below. (B.7) needs its 1/2, (B.9) the other sign; for "
        "linear rewards ||d||_Sigma <= (2/c_2) ||grad f||_{Sigma^-1} follows and is attained, "
        "without (B.10).",
        judgements=[printed, *required],
        rows=bent,
        constants={"largest_factor": float(factors.max())},
    )


def _smoothness(bent: pd.DataFrame, valley: pd.DataFrame) -> Judgement:
    """`-grad f'd <= (L / 2) ||d||^2` where f does not fall; nearly attained across a valley."""
    return attempt(
        testing.never_violated,
        -bent["along"],
        0.5 * bent["L"] * bent["squared"],
        tight=(-valley["along"], 0.5 * valley["L"] * valley["squared"]),
        rival=0.25 * valley["L"] * valley["squared"],
        statement="what smoothness gives, a lower bound",
    )


def _linear_rewards(measured: dict[str, Any]) -> list[Judgement]:
    """(B.7) with its 1/2, (B.9) with its sign, and the bound that follows from them."""
    rows, edge = measured["linear"], measured["quadratic"]
    least = np.array([theory.link_constants(LOGISTIC, margin=m).eta for m in rows["margin"]])
    curved = 0.5 * least * rows["norm"] ** 2
    return [
        attempt(
            testing.never_violated,
            rows["gain"] + curved,
            rows["along"],
            tight=(edge["gain_of_best"] + 0.5 * edge["norm_of_best"] ** 2, edge["along_best"]),
            # as printed, another half of c_2 ||d||^2 has to fit
            rival=edge["along_best"] - 0.5 * edge["norm_of_best"] ** 2,
            statement="(B.7) with its 1/2",
        ),
        attempt(
            testing.assert_identity,
            edge["along"],
            0.5 * edge["norm"] ** 2,
            rival=-0.5 * edge["norm"] ** 2,
            statement="(B.9) at equality: its sign",
        ),
        attempt(
            testing.never_violated,
            curved,
            rows["along"],
            tight=(0.5 * edge["norm"] ** 2, edge["along"]),
            rival=0.5 * edge["along"],
            statement="(B.9) with its sign",
        ),
        attempt(
            testing.never_violated,
            rows["norm"],
            2.0 / least * rows["dual"],
            tight=(edge["norm"], 2.0 * edge["dual"]),
            rival=edge["dual"],
            statement="linear rewards, without (B.10)",
        ),
    ]
