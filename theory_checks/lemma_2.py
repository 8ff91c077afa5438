"""Lemma 2: from likelihood to the L1 distance of the labels' law, for one reward.

`E ||P_r - P_r*||_1^2 <= (C_2 / M) (sum_j log P_r*/P_r + log(N_br(1/M) / delta))`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import metrics, testing
from simrlhf.study.checking import (
    Check,
    Draw,
    Finding,
    Kind,
    attempt,
    exactly,
    fitted_draws,
    sweeps,
)
from simrlhf.study.checking.sweeps import Swept
from simrlhf.world import WorldConfig

DELTA = 0.05
_ONE = WorldConfig(n_users=1, d1=6, d2=1, rank=1, nu=1.0)
_NORM_BOUND = 4.0
_SIZES = {
    "tiny": ((100, 400, 6400), (), 12),
    "smoke": ((100, 400, 1600, 6400), (12,), 20),
    "paper": ((100, 200, 400, 800, 1600, 3200, 6400, 12800), (12, 24, 48), 100),
}
_AT = 400
# for r = 0 against this small a truth the bound is fullest
_SMALL_NU = 0.1
CHECK = Check(
    statement="Lemma 2",
    title="L1 distance of the label law of one reward",
    kind=Kind.PRINTED,
    claim="E||P_r - P_r*||_1^2 <= C_2/M (sum log P_r*/P_r + log(N_br(1/M)/delta)), all r",
    procedure="one user, all of R^d1 as the class; left side by quadrature over fresh features; "
    "the MLE at M from 100 on and over d1 at M = 400, and r = 0 at nu = 0.1 and the same M; "
    "smallest C_2 that covers, drift at the MLE and, at r = 0, in M",
    rival="C_2 = 1/2, against r = 0; 0.2 of the MLE's covering constant; d1 + 1 parameters",
    tolerance="a drift counts from a power of 1/2 on, half of a factor; C_2 = 2 is the constant "
    "of Pinsker's inequality; loose if the MLE never fills half of it",
    source="P-ShareLoRA, Lemma 2; Liu et al. 2022, Proposition 14",
)


def measure(size: str) -> dict[str, Any]:
    """Both sides but for the bracketing number, at the MLE and at a reward of zero."""
    pairs, dimensions, repetitions = _SIZES[size]
    fits = _draws(_ONE, pairs, repetitions)
    rows = [_row("n", draw.n_pairs, draw, "mle") for draw in fits]
    for d1 in (_ONE.d1, *dimensions):
        draws = fits if d1 == _ONE.d1 else _draws(replace(_ONE, d1=d1), (_AT,), repetitions)
        rows += [_row("d1", d1, draw, "mle") for draw in draws if draw.n_pairs == _AT]
    for draw in _draws(replace(_ONE, nu=_SMALL_NU), pairs, repetitions):
        zero = replace(draw.result, delta=np.zeros_like(draw.world.delta))
        rows.append(_row("n at zero", draw.n_pairs, draw._replace(result=zero), "zero"))
    return {"rows": pd.DataFrame(rows)}


def _draws(config: WorldConfig, pairs: tuple[int, ...], repetitions: int) -> list[Draw]:
    return fitted_draws(config, pairs, repetitions, estimator="full", norm_bound=_NORM_BOUND)


def _row(axis: str, value: float, draw: Draw, estimate: str) -> dict[str, Any]:
    return {
        **sweeps.labels_of(Swept(axis, value, draw)),
        "estimate": estimate,
        "squared_l1": 4.0 * float(sweeps.mean_square(draw.world, draw.result.delta).mean()),
        "deficit": metrics.measure_instance(
            draw.world, draw.preferences, draw.result
        ).excess_over_truth,
    }


def judge(measured: dict[str, Any]) -> Finding:
    """Calibrate C_2 at the MLE and over the class."""
    rows = measured["rows"].copy()
    rows["log_bracketing"] = sweeps.log_bracketing(rows, DELTA, model_class="full")
    rows["bound"] = (rows["deficit"] + rows["log_bracketing"]) / rows["n"]
    factor = np.log(rows["n"] / DELTA)
    formula = attempt(
        testing.assert_identity,
        rows["log_bracketing"],
        rows["d1"] * factor,
        rival=(rows["d1"] + 1) * factor,
        statement="theory.log_bracketing_number",
    )
    fits, zeros = rows[rows["estimate"] == "mle"], rows[rows["estimate"] == "zero"]
    several = [axis for axis, mine in fits.groupby("swept") if mine["value"].nunique() > 1]
    found = testing.calibrate(
        fits["squared_l1"],
        fits["bound"],
        variables={axis: sweeps.variables(fits)[str(axis)] for axis in several},
        repetition=fits["repetition"],
        tolerance=sweeps.HALF_A_FACTOR,
    )
    covers = sweeps.held_out_constant(
        fits,
        fits["squared_l1"],
        fits["bound"],
        delta=DELTA,
        rival=0.2,
        statement="Lemma 2, held-out seeds",
    )
    pinsker = attempt(
        testing.never_violated,
        rows["squared_l1"],
        2.0 * rows["bound"],
        tight=(zeros["squared_l1"], 2.0 * zeros["bound"]),
        rival=0.5 * zeros["bound"],
        statement="Lemma 2 with C_2 = 2",
    )
    needed = float((rows["squared_l1"] / rows["bound"]).max())
    tightness = found.constant / 2.0
    return sweeps.printed(
        found,
        [formula, pinsker],
        claims=[covers],
        quantity="smallest C_2 that covers",
        measured=exactly(needed),
        tightness=tightness,
        remark=f"r = 0 needs C_2 = {needed:.2f} at M = {int(zeros['n'].max())}, at most Pinsker's "
        f"2 in the limit; the MLE needs {found.constant:.3f}, {1.0 / tightness:.0f} times less; "
        f"slopes at the MLE {found.spelt()}.",
        rows=rows,
        more={"constant_at_zero": needed},
    )
