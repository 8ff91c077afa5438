"""`full` and `local`: every user alone, without structure or with a LoRA of his own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from simrlhf.estimators import users_apart
from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides
from simrlhf.estimators.kernels import Answer, Kernel
from simrlhf.estimators.result import FreeFactors, LocalFactors


def _finish_full(_: Request, answer: Answer) -> Outcome:
    return answer.outcome(FreeFactors(np.asarray(answer.delta)))


def _finish_local(request: Request, answer: Answer) -> Outcome:
    side = min(request.source.d1, request.source.d2)
    if request.rank >= side:
        note = f"rank {request.rank} >= min(d1, d2) = {side}: local is the full model"
        return _finish_full(request, answer)._replace(note=note)
    return answer.outcome(LocalFactors(*answer.parts))


def _apart(
    each: users_apart.Each, finish: Callable[[Request, Answer], Outcome], *, ranked: bool
) -> Kernel:
    """A kernel for users who share nothing; many or unequal ones are solved in groups."""
    return Kernel(
        solve=partial(users_apart.solve_together, each=each),
        finish=finish,
        ranked=ranked,
        takes=users_apart.is_one_group,
        otherwise=partial(users_apart.solve_in_groups, each=each),
        memory=users_apart.bytes_of_users,
    )


LOCAL = Estimator(
    "local",
    "Delta_i = B_i W_i: one rank-k LoRA per user, nothing shared.",
    "P-ShareLoRA Algorithm 4",
    _apart(users_apart.local_each, _finish_local, ranked=True),
    needs_rank=True,
)
FULL = Estimator(
    "full",
    "Delta_i free: every user alone, no rank constraint.",
    "full fine-tuning, P-ShareLoRA Remark 3",
    _apart(users_apart.full_each, _finish_full, ranked=False),
    side=both_sides,
)
