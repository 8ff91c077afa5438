"""Park's Theorem 3.2: a user who comes later, on the representation that others have learnt.

Theorem 3.1's formula with `log(1 / delta)` for `log(N / delta)`. It is printed with one number of
pairs; where his own differ, the second term has them and the first does not: no number of his pairs
mends the old users' basis.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import testing, theory
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, sweeps
from simrlhf.study.checking.by_hand import written_out
from simrlhf.study.checking.park_bounds import printed_bounds
from simrlhf.study.checking.park_runs import new_users, written_bracket
from simrlhf.study.checking.pessimistic_runs import calibrated_radius
from simrlhf.testing import Judgement
from simrlhf.theory import BoundStatus

_TOWARDS: dict[str, str] = dict.fromkeys(("n", "own_pairs", "N"), "infinity")
CHECK = Check(
    statement="Park 3.2",
    title="value gap of users who come later",
    kind=Kind.PRINTED,
    claim="gap_0 <= sqrt(c C_0^2 (k xi^2 kappa^2 log(N_br/delta)/(eta^2 N n) + xi^2 (k + "
    "log(1/delta))/(eta^2 n_0) + lambda B^2)), one c; printed with n_0 = n",
    procedure="eight users adapted on the basis of a fit of N = 8 (d1 = 4, k = 1) old users; "
    "max-min policies over the balls of their own design norm, as in Park 3.1; sweeps of their own "
    "pairs n_0 at n = 50, of n = n_0 as printed, and of N at n = 50, their own label noise off",
    rival="own pairs in both terms, of which no constant covers both few and many; a basis that "
    "old pairs do not mend (n^0); a quarter of the allowed gap",
    tolerance="a drift counts from 1/4 on; all may go to infinity",
    source="Park et al., Theorem 3.2; theory.md, S6, L5",
)


def measure(size: str) -> dict[str, Any]:
    """Errors in the design norm, gaps and coverage of every new user."""
    return {"rows": new_users(size)}


def judge(measured: dict[str, Any]) -> Finding:
    """Calibrate the radius, find the floor, hold gaps and the formula."""
    users = measured["rows"]
    users = users.assign(bound=printed_bounds(users, theory.park_theorem_3_2, "own_pairs"))
    formula = attempt(
        testing.assert_identity,
        users["bound"] / users["concentrability"],
        np.sqrt(users["bracket"]),
        rival=np.sqrt(written_bracket(users, users_at_once=True)),
        statement="theory.park_theorem_3_2",
    )
    found = calibrated_radius(users, towards=_TOWARDS)
    allowed = 2.0 * users["radius"] * users["target"]
    held = attempt(
        testing.never_violated,
        users["gap"],
        allowed + 1e-10,
        rival=allowed / 4.0,
        statement="Park 3.2 with the constants of its proof",
    )
    floor, both = _floor(users), _both_terms(users)
    filled, covering = users["gap"] / allowed, (users["gap"] / users["bound"]) ** 2
    own = users[users["swept"] == "own_pairs"]
    errors = own.groupby("own_pairs")["error"].median()
    return sweeps.printed(
        found,
        [formula, *_formulas()],
        claims=[held, floor, both],
        quantity="smallest c that covers",
        measured=exactly(float(covering.max())),
        tightness=float(filled.max()),
        remark=f"c = {covering.max():.2g} covers, and the user who loses most fills "
        f"{filled.max():.2f} of what the proof allows. From {errors.index[0]:g} to "
        f"{errors.index[-1]:g} pairs of their own the median error of new users falls from "
        f"{errors.iloc[0]:.2f} to {errors.iloc[-1]:.2f} only; what the basis misses falls with the "
        f"old users' pairs, as n^{floor.measured.estimate:.2f} ({floor.measured.low:.2f} to "
        f"{floor.measured.high:.2f}). The radius' constant falls in "
        f"{', '.join(found.falling) or 'no variable'}: slopes {found.spelt()}. The first term "
        "counts the k N factors of the old users, which a new one does not need.",
        rows=users.assign(allowed=allowed),
    )


def _floor(users: pd.DataFrame) -> Judgement:
    """What the basis misses of a new user's truth is the old users' affair."""
    mine = users[users["swept"] == "n"]
    table = mine.groupby(["n", "repetition"], as_index=False)["missed"].mean()
    return attempt(
        testing.rate,
        table["n"],
        table["missed"],
        exponent=-0.5,
        rival=0.0,
        repetition=table["repetition"],
        statement="the part of a new user's reward that the basis misses",
    )


def _both_terms(users: pd.DataFrame) -> Judgement:
    """The constant that few own pairs need covers many; not so with own pairs in both terms."""
    mine = users[users["swept"] == "own_pairs"]
    many = mine["own_pairs"] == mine["own_pairs"].max()
    roots = [
        np.sqrt(written_bracket(rows, users_at_once=False))
        for rows in (mine, mine.assign(n=mine["own_pairs"]))
    ]
    claim, rival = ((mine["error"] / root)[~many].max() * root[many] for root in roots)
    return attempt(
        testing.never_violated,
        mine["error"][many],
        claim,
        rival=rival,
        statement="own pairs stand in the second term alone",
    )


def _formulas() -> list[Judgement]:
    """The formula written out, as printed and with pairs of his own."""
    link: dict[str, Any] = {"xi": 0.9, "kappa": 4.5, "eta": 0.21}
    given: dict[str, Any] = {
        "log_bracketing": 30.0,
        "n_users": 7,
        "n_pairs": 50.0,
        "rank": 3,
        "delta": 0.1,
        "concentrability": 1.7,
    }

    def by_hand(own: float, xi: float, kappa: float, eta: float) -> float:
        first = 3 * xi**2 * kappa**2 * 30.0 / (eta**2 * 7 * 50.0)
        return first + xi**2 * (3 + math.log(1 / 0.1)) / (eta**2 * own)

    theorem = theory.park_theorem_3_2(
        **given, **link, own_pairs=11.0, regularisation=0.3, constant=5.0
    )
    flat = theory.park_theorem_3_2(**given, **{**link, "eta": -0.01})
    return written_out(
        {
            "Park 3.2 written out": (
                theorem.value, 1.7 * (5.0 * (by_hand(11.0, **link) + 0.3)) ** 0.5
            ),
            "Park 3.2 as printed": (
                theory.park_theorem_3_2(**given).value, 1.7 * by_hand(50.0, 1.0, 1.0, 1.0) ** 0.5
            ),
            "Park 3.2 without log-concavity": (
                float(flat.status is BoundStatus.NOT_APPLICABLE), 1.0
            ),
        }
    )  # fmt: skip
