"""The estimators: classes of `Delta = [Delta_1 ... Delta_N]`, each in a file of its own.

A new estimator is one function from `Request` to `Outcome` in an `Estimator`, and its name here.
Where its work is one function of arrays, a `Kernel` in the function's place lets batches run at
once.
"""

from __future__ import annotations

from simrlhf.estimators.alone import FULL, LOCAL
from simrlhf.estimators.estimator import Estimator
from simrlhf.estimators.first_order import FIRST_ORDER
from simrlhf.estimators.one_for_all import GLOBAL
from simrlhf.estimators.oracle import ORACLE
from simrlhf.estimators.share_b import SHARE_B

ESTIMATORS: dict[str, Estimator] = {
    entry.name: entry for entry in (SHARE_B, LOCAL, GLOBAL, FULL, ORACLE, FIRST_ORDER)
}
