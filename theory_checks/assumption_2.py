"""Assumption 2: from how many pairs on the empirical squared difference is within a tenth.

`0.9 D <= D_hat <= 1.1 D` for all pairs of rewards at once, with probability `1 - delta`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from simrlhf import sample_preferences, testing
from simrlhf.core import statistics
from simrlhf.study.checking import Check, Finding, Kind, attempt, proved
from simrlhf.world import WorldConfig, make_world

DELTA = 0.05
_ROOM = 0.1
# what a tenth leaves for the root of an eigenvalue; below 1 there is a little more
_NARROWER = math.sqrt(1.0 + _ROOM) - 1.0
# dimensions, designs of a group (a group gives one N_unif) and groups
_SIZES = {
    "tiny": ((2, 4, 8), 40, 4),
    "smoke": ((2, 4, 8), 40, 6),
    "paper": ((2, 4, 8, 16, 32), 40, 20),
}
# the grid of n, from this share of the closed form on
_START, _STEP = 0.05, 1.05
_FEWEST = 10
CHECK = Check(
    statement="Assumption 2",
    title="pairs for uniform concentration",
    kind=Kind.PRINTED,
    claim="some N_unif has 0.9 D <= D_hat <= 1.1 D for all rewards of the class, w.p. 1 - delta; "
    "it grows no faster than d1 d2 (Park)",
    procedure="one user, linear rewards, Gaussian features: all differences of rewards together "
    "are the eigenvalues of the whitened design; smallest n from which a share 1 - delta of the "
    "designs stays within a tenth, over p = d1 d2; a bound in closed form against it. n*: N_unif "
    "at p = 4",
    rival="n = 10 is enough; a closed form with a tenth for the root of an eigenvalue instead of "
    "sqrt(1.1) - 1; growth as sqrt(p)",
    tolerance="99 % interval of the share of designs that are off; N_unif is found on a grid in "
    "steps of 5 %, and grows as (sqrt(p) + const)^2, so by less than p over the whole range of p "
    "and by more than sqrt(p)",
    source="P-ShareLoRA, Assumption 2; Park et al., Assumption 4",
)


def measure(size: str) -> dict[str, Any]:
    """N_unif of every group of designs, and the deviations at the closed form's n."""
    dimensions, designs, groups = _SIZES[size]
    rows, late = [], []
    for p in dimensions:
        for group in range(groups):
            table = _deviations(p, designs, seed=group)
            rows.append({"p": p, "group": group, "n_unif": _first_kept(table)})
            late.append(table[table["n"] == table["n"].max()])
    return {"rows": pd.DataFrame(rows), "late": pd.concat(late)}


def _deviations(p: int, designs: int, *, seed: int) -> pd.DataFrame:
    """`max |lambda - 1|` over the eigenvalues of `sum_j x x' / n`, nested in n."""
    last = math.ceil(_closed_form(p))
    steps = int(-math.log(_START) / math.log(_STEP))
    grid = np.unique((last * _STEP ** -np.arange(steps + 1.0)).astype(int))
    # users are independent designs; rewards do not matter here
    world = make_world(WorldConfig(n_users=designs, d1=p, d2=1, rank=1))
    features = sample_preferences(world, last, seed=seed).features.reshape(designs, last, p)
    grams, start = np.zeros((designs, p, p)), 0
    rows = []
    for n in grid:
        part = features[:, start:n]
        grams += np.swapaxes(part, 1, 2) @ part
        start = int(n)
        values = np.linalg.eigvalsh(grams / n)
        off = np.maximum(values[:, -1] - 1.0, 1.0 - values[:, 0])
        rows.append(pd.DataFrame({"n": start, "off": off}))
    return pd.concat(rows, ignore_index=True)


def _first_kept(table: pd.DataFrame) -> float:
    """Smallest n of the grid from which on the share of designs off by a tenth is at most delta."""
    off = (table["off"] > _ROOM).groupby(table["n"]).mean()
    bad = off.index[off.to_numpy() > DELTA]
    later = off.index[off.index > bad.max()] if len(bad) else off.index
    return float(later.min()) if len(later) else math.inf


def _closed_form(p: float, *, room: float = _NARROWER) -> float:
    """`sqrt(lambda)` lies within `1 +- (sqrt(p/n) + sqrt(2 log(2/delta)/n))` w.p. `1 - delta`.

    Davidson and Szarek, for Gaussian features.
    """
    return ((math.sqrt(p) + math.sqrt(2.0 * math.log(2.0 / DELTA))) / room) ** 2


def judge(measured: dict[str, Any]) -> Finding:
    """It holds from N_unif on; how N_unif grows, and how near the closed form is."""
    rows, late = measured["rows"].copy(), measured["late"]
    rows["closed_form"] = [_closed_form(p) for p in rows["p"]]
    holds = attempt(
        testing.never_violated,
        late["off"],
        np.full(len(late), _ROOM),
        # if n = 10 were enough for a tenth, this n would be for that much
        rival=_ROOM * np.sqrt(_FEWEST / late["n"]),
        delta=DELTA,
        statement="Assumption 2 at the closed form's n",
    )
    enough = attempt(
        testing.never_violated,
        rows["n_unif"],
        rows["closed_form"],
        rival=[_closed_form(p, room=_ROOM) for p in rows["p"]],
        statement="N_unif against its closed form",
    )
    slopes = _slopes(rows)
    per_p = rows.groupby("p")["n_unif"].mean()
    times = per_p.index[-1] / per_p.index[0]
    growth = attempt(
        testing.never_violated,
        [per_p.iloc[-1]],
        [times * per_p.iloc[0]],
        rival=[math.sqrt(times) * per_p.iloc[0]],
        statement="N_unif grows no faster than p",
    )
    at_four = rows.loc[rows["p"] == 4, "n_unif"]
    return proved(
        [holds, enough, growth],
        quantity="N_unif at p = 4",
        measured=statistics.mean_interval(at_four.to_numpy(), confidence=0.99),
        n_star=float(at_four.mean()),
        remark="N_unif is "
        + ", ".join(f"{n:.0f} at p = {p}" for p, n in per_p.items())
        + f": {per_p.iloc[-1] / per_p.index[-1]:.0f} pairs for each of a user's d1 d2 parameters "
        f"at the largest p, {_NARROWER**-2:.0f} in the limit; every user needs so many himself, "
        f"however many share. Its root grows by {slopes.mean():.1f} for 1 of sqrt(p), "
        f"{1.0 / _NARROWER:.1f} in the limit; the closed form asks for up to "
        f"{(rows['closed_form'] / rows['n_unif']).max():.1f} times as many.",
        rows=rows,
    )


def _slopes(rows: pd.DataFrame) -> np.ndarray:
    """Slope of `sqrt(N_unif)` on `sqrt(p)` of every group."""
    return np.array(
        [
            np.polyfit(np.sqrt(mine["p"]), np.sqrt(mine["n_unif"]), 1)[0]
            for _, mine in rows.groupby("group")
        ]
    )
