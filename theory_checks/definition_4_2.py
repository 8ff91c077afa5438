"""Definition 4.2: brackets that are listed, and do what brackets must.

A bracket `(g1, g2)` has `g1 <= P_r <= g2` for all users, labels and pairs, and `||g1 - g2||_1 <=
epsilon` over users and labels; the bracketing number is how many hold the whole class.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import scipy.special

from simrlhf import testing, theory
from simrlhf.core import links
from simrlhf.study.checking import Check, Finding, Kind, attempt, exactly, proved

CHECK = Check(
    statement="Definition 4.2",
    title="brackets of the class of reward vectors",
    kind=Kind.DEFINITION,
    claim="brackets of L1 size epsilon over all users and both labels hold every member of the "
    "class on every pair",
    procedure="share-B with d1 = 2, k = 1, one and two users: theory's list of brackets; random "
    "members, a third of them of the largest norm, on pairs around the sphere of radius X: how "
    "far each is from the nearest middle, against the half-width epsilon/(4N); sizes added up; "
    "numbers against the explicit bound",
    rival="half-width epsilon/(16N); a size that forgets a label; numbers against the bound "
    "of one dimension in the place of 2 + N",
    tolerance="rounding: a definition",
    source="P-ShareLoRA, Definition 4.2; C.1",
)
# not 1: a factor that is left out must show
_R, _X = 1.3, 0.9
_SIZES = {
    "tiny": ((1, 0.5), (2, 2.0)),
    "smoke": ((1, 0.3), (2, 1.5)),
    "paper": ((1, 0.1), (2, 0.8)),
}
_MEMBERS = {"tiny": 200, "smoke": 400, "paper": 1000}
_PROBES = 16


def measure(size: str) -> dict[str, Any]:
    """Members and pairs, and the label probabilities of the members on the pairs."""
    random = np.random.default_rng(2)
    angles = 2.0 * np.pi * np.arange(_PROBES) / _PROBES
    probes = _X * np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, :, None]
    cases = []
    for n_users, epsilon in _SIZES[size]:
        members = _members(random, n_users, _MEMBERS[size])
        rewards = np.einsum("tnpq,mpq->tnm", members, probes)
        chance = scipy.special.expit(np.stack([-rewards, rewards], axis=-1))
        cases.append({"N": n_users, "epsilon": epsilon, "members": members, "chance": chance})
    return {"cases": cases, "probes": probes}


def _members(random: np.random.Generator, n_users: int, count: int) -> np.ndarray:
    """`b w_i'` with `||w_i|| <= R`; a third of them on the ball's surface."""
    angle = random.uniform(0.0, np.pi, count)
    heads = random.uniform(-_R, _R, (count, n_users))
    heads[::3] = _R * np.sign(heads[::3])
    basis = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.einsum("tp,tn->tnp", basis, heads)[..., None]


def judge(measured: dict[str, Any]) -> Finding:
    """Build the brackets of every case and see whether they are brackets."""
    found = [_case(case, measured["probes"]) for case in measured["cases"]]
    rows = pd.concat([rows for rows, _ in found], ignore_index=True)
    counts = pd.DataFrame([count for _, count in found])
    holds = attempt(
        testing.never_violated,
        rows["distance"],
        rows["half_width"],
        rival=rows["half_width"] / 4.0,
        statement="members lie inside",
    )
    said = attempt(
        testing.assert_identity,
        rows["held"].astype(float),
        1.0,
        rival=(rows["distance"] <= rows["half_width"] / 4.0).astype(float),
        statement="theory.brackets_cover",
    )
    size = attempt(
        testing.assert_identity,
        counts["size"],
        counts["epsilon"],
        rival=counts["epsilon"] / 2.0,
        statement="L1 size",
    )
    number = attempt(
        testing.never_violated,
        np.log(counts["count"]),
        counts["log_bound"],
        rival=counts["log_bound"] / (2.0 + counts["N"]),
        statement="number of brackets",
    )
    explicit = attempt(
        testing.assert_identity,
        counts["log_count_bound"],
        counts["log_bound"],
        rival=(1.0 + counts["N"]) / (2.0 + counts["N"]) * counts["log_bound"],
        statement="the explicit bound",
    )
    filled = float((rows["distance"] / rows["half_width"]).max())
    listed = ", ".join(
        f"{c:.0f} for N = {n}" for n, c in zip(counts["N"], counts["count"], strict=True)
    )
    return proved(
        [holds, said, size, number, explicit],
        quantity="largest distance from a middle over the half-width",
        measured=exactly(filled),
        tightness=filled,
        remark=f"{len(rows)} members lie inside one of the brackets ({listed}), by {filled:.2f} of "
        "the half-width at most; the explicit bound allows e^"
        f"{(counts['log_bound'] - np.log(counts['count'])).max():.1f} times as many.",
        rows=rows,
    )


def _case(case: dict[str, Any], probes: np.ndarray) -> tuple[pd.DataFrame, dict[str, float]]:
    """Distances of the members from the nearest middle, and the brackets' size and number."""
    n_users, epsilon = case["N"], case["epsilon"]
    brackets = theory.construct_brackets(
        links.get_link("logistic"),
        n_users=n_users,
        d2=1,
        norm_bound=_R,
        feature_norm=_X,
        size=epsilon,
    )
    lower, upper = theory.bracket_ends(brackets, probes)
    middle = (0.5 * (lower + upper)).reshape(lower.shape[0], -1)
    nearest = [np.abs(middle - one.reshape(-1)).max(axis=1).min() for one in case["chance"]]
    rows = pd.DataFrame(
        {
            "N": n_users,
            "epsilon": epsilon,
            "distance": nearest,
            "half_width": epsilon / (4.0 * n_users),
            "held": theory.brackets_cover(brackets, case["members"], probes),
        }
    )
    # the printed L1 norm: over users and both labels, at the pair where it is largest
    size = float((upper - lower).sum(axis=(1, 3)).max())
    # k (d1 + N d2) log(1 + 16 N C_R X R / epsilon), with C_R = 1/4 for the logistic link
    bound = (2.0 + n_users) * math.log1p(4.0 * n_users * _X * _R / epsilon)
    return rows, {
        "N": n_users,
        "epsilon": epsilon,
        "size": size,
        "count": float(lower.shape[0]),
        "log_bound": bound,
        "log_count_bound": brackets.log_count_bound,
    }
