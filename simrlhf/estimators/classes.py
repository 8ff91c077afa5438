"""The estimators: classes of `Delta = [Delta_1 ... Delta_N]`, each in a file of its own.

A new estimator is one function from `Request` to `Outcome` in an `Estimator`, and its name here.
Where its work is one function of arrays, a `Kernel` in the function's place lets batches run at
once.
"""

from __future__ import annotations

from simrlhf.estimators.alone import FULL, LOCAL
from simrlhf.estimators.cluster import CLUSTER
from simrlhf.estimators.estimator import Estimator
from simrlhf.estimators.first_order import FIRST_ORDER
from simrlhf.estimators.global_plus_local import GLOBAL_PLUS_LOCAL
from simrlhf.estimators.least_squares import LEAST_SQUARES
from simrlhf.estimators.local_then_svd import LOCAL_THEN_SVD
from simrlhf.estimators.nuclear import NUCLEAR
from simrlhf.estimators.one_for_all import GLOBAL
from simrlhf.estimators.oracle import ORACLE
from simrlhf.estimators.share_a import SHARE_A
from simrlhf.estimators.share_b import SHARE_B
from simrlhf.estimators.shared_core import SHARED_CORE
from simrlhf.estimators.shared_diag import SHARED_DIAG
from simrlhf.estimators.shared_rep import SHARED_REP
from simrlhf.estimators.simplex import SIMPLEX
from simrlhf.estimators.spectral import SPECTRAL

ESTIMATORS: dict[str, Estimator] = {
    entry.name: entry
    for entry in (
        *(SHARE_B, LOCAL, GLOBAL, FULL, ORACLE),
        *(SHARE_A, SHARED_CORE, SHARED_DIAG, GLOBAL_PLUS_LOCAL, SHARED_REP),
        *(CLUSTER, SIMPLEX, NUCLEAR),
        *(SPECTRAL, LEAST_SQUARES, LOCAL_THEN_SVD, FIRST_ORDER),
    )
}
