"""Park's theorems evaluated on the rows of `park_runs`, for the judges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from simrlhf import theory
from simrlhf.core.links import LOGISTIC
from simrlhf.study.checking.park_runs import D1, DELTA


def printed_bounds(
    rows: pd.DataFrame, theorem: Callable[..., theory.Bound], *columns: str
) -> np.ndarray:
    """The theorem's value for every row, its constant 1, without a ridge.

    Args:
        theorem: `theory.park_theorem_3_1` or `theory.park_theorem_3_2`.
        columns: more arguments of it, by the names of their columns.
    """
    links = {m: theory.link_constants(LOGISTIC, margin=m) for m in rows["margin"].unique()}
    found = []
    for row in rows.to_dict("records"):
        sizes = {"n_users": int(row["N"]), "n_pairs": row["n"], "rank": int(row["k"])}
        count = theory.log_bracketing_number(
            **sizes, d1=D1, d2=1, delta=DELTA, model_class="park"
        ).value
        link = links[row["margin"]]
        bound = theorem(
            **sizes,
            log_bracketing=count,
            delta=DELTA,
            concentrability=row["concentrability"],
            xi=link.xi,
            kappa=link.kappa,
            eta=link.eta,
            **{column: row[column] for column in columns},
        )
        found.append(bound.value)
    return np.array(found)
