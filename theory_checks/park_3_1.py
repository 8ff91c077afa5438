"""Park's Theorem 3.1: what pessimistic policies over design-norm sets lose, and F.1 without k.

`gap_i <= sqrt(c C_i^2 (k xi^2 kappa^2 log(N_br/delta)/(eta^2 N n) + xi^2 (k + log(N/delta))/
(eta^2 n) + lambda B^2))`, one c for every link, class and coverage.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from simrlhf import testing, theory
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, sweeps
from simrlhf.study.checking.by_hand import written_out
from simrlhf.study.checking.park_bounds import printed_bounds
from simrlhf.study.checking.park_runs import old_users, written_bracket
from simrlhf.study.checking.pessimistic_runs import calibrated_radius
from simrlhf.testing import Judgement
from simrlhf.theory import BoundStatus

# numbers that tell all parts of the formulas apart
_GIVEN: dict[str, Any] = {
    "log_bracketing": 30.0,
    "n_users": 7,
    "n_pairs": 50.0,
    "rank": 3,
    "delta": 0.1,
    "concentrability": 1.7,
    "xi": 0.9,
    "kappa": 4.5,
    "eta": 0.21,
}
_TOWARDS: dict[str, str] = dict.fromkeys(("n", "N", "k", "C", "B"), "infinity")
CHECK = Check(
    statement="Park 3.1",
    title="value gap of pessimistic policies over design-norm sets",
    kind=Kind.PRINTED,
    claim="gap_i <= sqrt(c C_i^2 (k xi^2 kappa^2 log(N_br/delta)/(eta^2 N n) + xi^2 (k + "
    "log(N/delta))/(eta^2 n) + lambda B^2)), one c",
    procedure="max-min policies over the balls of every user's own design norm, squared radius the "
    "bracket times the smallest constant that holds every truth; sweeps of n, N, k, coverage (C) "
    "and the rewards' size (B) around N = 8, d1 = 4, k = 1, n = 800, nu = B^2/k. Given the radius, "
    "S5 makes c = 4 times its constant enough, up to what Assumption A4 allows between the two "
    "designs: so the drift is that of the radius' constant, by the user who needs the largest",
    rival="a quarter of the allowed, where the gap is largest; the bracket with n for N n",
    tolerance="a drift counts from 1/4 on; all may go to infinity",
    source="Park et al., Theorem 3.1, Theorem F.1, Corollary F.1",
)


def measure(size: str) -> dict[str, Any]:
    """Errors in the design norm, gaps and coverage of every user of every fit."""
    return {"rows": old_users(size)}


def judge(measured: dict[str, Any]) -> Finding:
    """Calibrate the radius, hold gaps against it and the formula against the written-out one."""
    users = measured["rows"]
    users = users.assign(bound=printed_bounds(users, theory.park_theorem_3_1))
    printed = np.log(users["bound"])
    hand, rival = (
        np.log(users["concentrability"]) + 0.5 * np.log(written_bracket(rows, users_at_once=True))
        for rows in (users, users.assign(N=1.0))
    )
    # as logarithms, for the size of the class alone changes them by ten orders of magnitude
    formula = attempt(
        testing.assert_identity, printed, hand, rival=rival, statement="theory.park_theorem_3_1"
    )
    found = calibrated_radius(users, towards=_TOWARDS)
    acted = users[users["gap"].notna()]
    # by S5, in the design that the set is made of
    allowed = 2.0 * acted["radius"] * acted["target"]
    held = attempt(
        testing.never_violated,
        acted["gap"],
        allowed + 1e-10,
        rival=allowed / 4.0,
        statement="Park 3.1 with the constants of its proof",
    )
    filled, covering = acted["gap"] / allowed, (acted["gap"] / acted["bound"]) ** 2
    wider = float((acted["target"] / acted["concentrability"]).max())
    return sweeps.printed(
        found,
        [formula, *_formulas()],
        claims=[held],
        quantity="smallest c that covers the base class",
        measured=exactly(float(covering.max())),
        tightness=float(filled.max()),
        remark=f"c = {covering.max():.2g} covers the class of the base cell; the user who loses "
        f"most fills {filled.max():.2f} of what the proof allows, and in users' own designs their "
        f"targets have up to {wider:.2f} C_i. The radius' constant rises in "
        f"{', '.join(found.rising) or 'no variable'} and falls in "
        f"{', '.join(found.falling) or 'none'}: slopes {found.spelt()}. There is a k before a "
        "bracketing number that has one, and kappa^2/eta^2 = kappa^4 is exponential in B.",
        rows=users.assign(allowed=2.0 * users["radius"] * users["target"]),
    )


def _formulas() -> list[Judgement]:
    """Theorems 3.1 and F.1 written out, and where they make no claim."""
    theorem = theory.park_theorem_3_1(**_GIVEN, regularisation=0.3, constant=5.0)
    link = 0.9**2 / 0.21**2
    inside = link * (3 * 4.5**2 * 30.0 / (7 * 50.0) + (3 + math.log(7 / 0.1)) / 50.0)
    defaults = theory.park_theorem_3_1(
        **{name: value for name, value in _GIVEN.items() if name not in ("xi", "kappa", "eta")}
    )
    bare = 3 * 30.0 / (7 * 50.0) + (3 + math.log(7 / 0.1)) / 50.0
    flat = theory.park_theorem_3_1(**{**_GIVEN, "eta": -0.01})
    wanted = {
        name: _GIVEN[name] for name in ("log_bracketing", "n_users", "n_pairs", "concentrability")
    }
    individual, average = (
        theory.park_theorem_f_1(**wanted, kappa=4.5, case=case, constant=5.0).value
        for case in ("individual", "average")
    )
    return written_out(
        {
            "Park 3.1 written out": (theorem.value, 5.0**0.5 * 1.7 * (inside + 0.3) ** 0.5),
            "Park 3.1, defaults": (defaults.value, 1.7 * bare**0.5),
            "Park 3.1 without log-concavity": (
                float(flat.status is BoundStatus.NOT_APPLICABLE), 1.0
            ),
            "Park F.1, individual": (individual, 1.7 * (5.0 * 4.5**2 * 30.0 / 50.0) ** 0.5),
            "Park F.1, average": (average, 1.7 * (5.0 * 4.5**2 * 30.0 / (7 * 50.0)) ** 0.5),
            "Park F.1, defaults": (
                theory.park_theorem_f_1(**wanted).value, 1.7 * (30.0 / 50.0) ** 0.5
            ),
        }
    )  # fmt: skip
