"""`local_then_svd`: every user alone, then the best rank-k approximation of what they found."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from simrlhf.core import subspaces
from simrlhf.estimators.alone import FULL
from simrlhf.estimators.canonical import canonical
from simrlhf.estimators.custom import mean_loss
from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides
from simrlhf.estimators.kernels import tally_of
from simrlhf.estimators.result import SharedFactors


def _local_then_svd(request: Request) -> Outcome:
    """`full`, then Eckart and Young on `[Delta_1 ... Delta_N]`: `Delta_i -> B B' Delta_i`.

    Norms shrink, so a norm bound keeps holding. Fails where users have fewer pairs than `d1 d2`:
    what each finds alone is then mostly noise, which the truncation cannot take back.
    """
    alone = FULL.run(request)
    basis = subspaces.top_left_space(subspaces.unfold(alone.delta), request.rank)
    basis, weights = canonical(basis, np.einsum("ak,nab->nkb", basis, alone.delta))
    delta = np.einsum("ak,nkb->nab", basis, weights)
    loss = mean_loss(request.problem, jnp.asarray(delta), request.link)
    return alone._replace(
        delta=delta,
        basis=basis,
        factors=SharedFactors(basis, weights),
        neg_log_likelihood=float(loss),
        data_passes=alone.data_passes + 1,
        # truncated, a separated user's labels need not be right any more
        tally=alone.tally or tally_of(request, alone.delta),
        note="certified are the users' separate fits, before the truncation",
    )


LOCAL_THEN_SVD = Estimator(
    "local_then_svd",
    "Every user alone without structure, then the best rank-k approximation of all.",
    "Eckart and Young 1936",
    _local_then_svd,
    needs_rank=True,
    side=both_sides,
)
