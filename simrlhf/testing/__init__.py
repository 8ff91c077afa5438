"""Judges: does the evidence bear a statement out, and would it have rejected a wrong one?

Four kinds of statement, one judge each: `assert_identity`, `never_violated` (a bound, for every
run or with probability `1 - delta`), `rate` (an exponent) and `limit` (an asymptotic value). Each
asks for a rival, a wrong formula that the same procedure must reject on the same evidence; name the
nearest mistake, for a rival that nobody would believe proves little. A judge returns a `Judgement`
when the claim holds and the rival is rejected. It raises `ClaimRejected` or `ControlAccepted`
otherwise, both `AssertionError` with the judgement inside, and `InputError` when the evidence is
unfit, before anything is judged. Entries are matched by position; tables with different indices
are refused. `calibrate` is for a printed bound whose constant nobody knows: it finds the smallest
that covers, and in which variables none does.

State your own bound, and hold it against a study's rows::

    import numpy as np
    import simrlhf as sim

    def my_bound(rows, constant):
        parameters = rows["rank"] * (rows["d1"] - rows["rank"])
        return constant * np.sqrt(parameters / (rows["nu"] * rows["n_users"] * rows["n_pairs"]))

    rows = sim.load_results("subspace_vs_pairs").query("estimator == 'share_b' and n_pairs >= 200")
    measured, bound, wrong = rows["subspace_distance"], my_bound(rows, 3.0), my_bound(rows, 2.0)
    judgement = sim.testing.never_violated(measured, bound, rival=wrong, statement="my bound")
    print(judgement.summary)
"""

from simrlhf.testing.calibration import Calibration, Drift, calibrate
from simrlhf.testing.identity import assert_identity
from simrlhf.testing.inequality import never_violated
from simrlhf.testing.judgement import ClaimRejected, ControlAccepted, Judgement
from simrlhf.testing.limits import limit
from simrlhf.testing.rates import rate

__all__ = [
    "Calibration",
    "ClaimRejected",
    "ControlAccepted",
    "Drift",
    "Judgement",
    "assert_identity",
    "calibrate",
    "limit",
    "never_violated",
    "rate",
]
