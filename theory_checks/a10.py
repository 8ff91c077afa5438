"""A10: Park prints `kappa = eta` for the sigmoid; by the definitions `kappa = 1 / eta`.

`kappa = 1 / min Phi'` and `eta = min (Phi'^2 - Phi'' Phi) / Phi^2` over `|z| <= m`, `m = 2 R_max`.
For the sigmoid `(Phi'^2 - Phi'' Phi) / Phi^2 = Phi'`, smallest at the ends:
`eta = 1 / (2 + e^m + e^-m)`, which is the printed number, and `kappa = 2 + e^m + e^-m`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.core import links
from simrlhf.core.statistics import log_log_slope
from simrlhf.study.checking import Check, Finding, Kind, Verdict, attempt, exactly, require_sound

CHECK = Check(
    statement="A10",
    title="two constants of the sigmoid are reciprocal, not equal",
    kind=Kind.AUDIT,
    claim="kappa = eta = 1 / (2 + e^(-2 R_max) + e^(2 R_max)) for the sigmoid (Park et al.)",
    procedure="both constants from their definitions on a dense grid, derivatives by complex "
    "steps, for m = 2 R_max from 0.5 to 8; identity of kappa eta with 1",
    rival="kappa = eta, whose product is eta^2; as control, the printed number must pass for eta",
    tolerance="1e-10 of each value: a complex step has no cancellation",
    source="Park et al., Section 3 (kappa, xi, eta)",
)
_SIZES = {"tiny": 4, "smoke": 16, "paper": 64}
_GRID = 20001
_STEP = 1e-30


def measure(size: str) -> dict[str, Any]:
    """`kappa` and `eta` by their definitions."""
    rows = []
    for margin in np.linspace(0.5, 8.0, _SIZES[size]):
        z = np.linspace(-margin, margin, _GRID)
        value = _sigmoid(z)
        slope = np.imag(_sigmoid(z + 1j * _STEP)) / _STEP
        bend = np.imag(_slope(z + 1j * _STEP)) / _STEP
        rows.append(
            {
                "margin": margin,
                "kappa": 1.0 / slope.min(),
                "eta": ((slope**2 - bend * value) / value**2).min(),
            }
        )
    return {"rows": pd.DataFrame(rows)}


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def _slope(z: np.ndarray) -> np.ndarray:
    return np.exp(-z) / (1.0 + np.exp(-z)) ** 2


def judge(measured: dict[str, Any]) -> Finding:
    """The product is 1; the theory's two constants are the measured ones."""
    table = measured["rows"]
    constants = [theory.link_constants(links.LOGISTIC, margin=m) for m in table["margin"]]
    rows = table.assign(
        printed=1.0 / (2.0 + np.exp(-table["margin"]) + np.exp(table["margin"])),
        product=table["kappa"] * table["eta"],
        theory_kappa=[one.kappa for one in constants],
        theory_eta=[one.eta for one in constants],
    )
    # as ratios, so that every margin counts alike
    product = attempt(
        testing.assert_identity,
        rows["product"],
        1.0,
        rival=rows["eta"] ** 2,
        statement="kappa eta = 1",
    )
    control = attempt(
        testing.assert_identity,
        rows["eta"] / rows["printed"],
        1.0,
        rival=1.0 / rows["printed"] ** 2,
        statement="A10, control: eta is the printed number",
    )
    ours = [
        attempt(
            testing.assert_identity,
            rows[f"theory_{name}"] / rows[name],
            1.0,
            rival=rows[other] / rows[name],
            statement=f"link_constants, {name}",
        )
        for name, other in (("kappa", "printed"), ("eta", "kappa"))
    ]
    judgements = [product, control, *ours]
    off = rows["kappa"] / rows["printed"]
    power = log_log_slope(rows["eta"], rows["kappa"]).estimate
    last = rows.iloc[-1]
    require_sound(judgements)
    return Finding(
        verdict=Verdict.REFUTED,
        quantity="exponent of kappa in eta (printed: 1)",
        measured=exactly(power),
        remark=f"The two are reciprocal. The printed number is eta; as kappa it is too small by "
        f"kappa^2, from {off.min():.3g} at m = {rows['margin'].min():g} to {off.max():.3g} at m = "
        f"{last['margin']:g}, so bounds with kappa^2/eta^2 carry kappa^4 = {last['kappa'] ** 4:.2g}"
        " there, where the printed equality would make it 1.",
        judgements=judgements,
        rows=rows,
        constants={"largest_kappa_over_printed": float(off.max())},
    )
