"""Lemma 1: by how much any reward of the class can beat the truth's likelihood.

`sum_ij log P_r / P_r* <= C_1 log(N_br(1 / (N n)) / delta)` for every r of the class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from simrlhf import metrics, testing
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, sweeps

DELTA = 0.05
_AXES = ("n", "N", "d1", "d2", "k", "nu")
CHECK = Check(
    statement="Lemma 1",
    title="excess of the likelihood over the truth's",
    kind=Kind.PRINTED,
    claim="sum log P_r/P_r* <= C_1 log(N_br(1/(N n))/delta) for all r of the class",
    procedure="the largest excess is the MLE's: share-B fits in sweeps of one variable around "
    "N = 10, d1 = 12, k = 2, n = 400, no tail; smallest C_1 that covers and its drift; "
    "C_1 of the even seeds on the odd ones of the cell that needs it most; the proof's own "
    "constant in every row. "
    "Wilks' p/2, p = k(N d2 + d1 - k), is given beside it",
    rival="a bracket without the class' size, log(N n/delta) + 1; half of the covering C_1; a "
    "dimension without the users",
    tolerance="a drift counts from a power of 1/2 on, half of a factor; loose if the C_1 of the "
    "bracket argument, 1 + 1/log(N_br/delta), is never filled by half",
    source="P-ShareLoRA, Lemma 1; Zhan et al. 2023, Lemma 1",
)


def measure(size: str) -> dict[str, Any]:
    """`sum log P_hat / P_*` of every fit."""
    rows = []
    for one in sweeps.swept_draws(size, _AXES):
        draw = one.draw
        instance = metrics.measure_instance(draw.world, draw.preferences, draw.result)
        rows.append({**sweeps.labels_of(one), "excess": -instance.excess_over_truth})
    return {"rows": pd.DataFrame(rows)}


def judge(measured: dict[str, Any]) -> Finding:
    """Calibrate C_1, and compare with what the excess really is."""
    rows = measured["rows"].copy()
    rows["bound"] = sweeps.log_bracketing(rows, DELTA)
    count = rows["k"] * (rows["d1"] + rows["N"] * rows["d2"])
    factor = np.log(rows["N"] * rows["n"] / DELTA)
    formula = attempt(
        testing.assert_identity,
        rows["bound"],
        count * factor,
        rival=rows["k"] * (rows["d1"] + rows["d2"]) * factor,
        statement="theory.log_bracketing_number",
    )
    found = testing.calibrate(
        rows["excess"],
        rows["bound"],
        variables=sweeps.variables(rows),
        repetition=rows["repetition"],
        towards=sweeps.towards(rows),
        tolerance=sweeps.HALF_A_FACTOR,
    )
    covers = sweeps.held_out_constant(
        rows, rows["excess"], rows["bound"], delta=DELTA, statement="Lemma 1, held-out seeds"
    )
    explicit = attempt(
        testing.never_violated,
        rows["excess"],
        1.0 + rows["bound"],
        rival=1.0 + factor,
        statement="Lemma 1 with the constant of its proof",
    )
    return sweeps.printed(
        found,
        [formula, explicit],
        claims=[covers],
        quantity="smallest C_1 that covers",
        measured=exactly(found.constant),
        tightness=explicit.tightness,
        remark=f"C_1 = {found.constant:.3f} covers. The excess is {_over_wilks(rows):.2f} times "
        "Wilks' p/2 in the mean, without a log: the bracket is some 2 log(N n/delta) too large, "
        f"{2.0 * factor.min():.0f} to {2.0 * factor.max():.0f} here; slopes {found.spelt()}.",
        rows=rows,
    )


def _over_wilks(rows: pd.DataFrame) -> float:
    """Mean of the excess over `p / 2`, half the parameters of the shared class."""
    parameters = rows["k"] * (rows["N"] * rows["d2"] + rows["d1"] - rows["k"])
    return float((rows["excess"] / (parameters / 2.0)).mean())
