"""`spectral`: the basis from one singular value decomposition, factors by maximum likelihood."""

from __future__ import annotations

from simrlhf.estimators import starts
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.oracle import factors_on
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.share_b import finish_shared


def _spectral(problem: Problem, _: None, limits: Limits, model: Model) -> Answer:
    """Top left space of the users' stacked score at zero; two data passes in all.

    Its error does not vanish faster than that of the score, and rewards so large that labels are
    nearly certain bend the score away from `Delta*`: consistent for isotropic Gaussian features,
    not for others.
    """
    basis = starts.spectral_basis(problem, link=model.link, n_users=model.n_users, rank=model.rank)
    found = factors_on(problem, basis, limits, model)
    return found._replace(data_passes=found.data_passes + 1)


def _finish(request: Request, answer: Answer) -> Outcome:
    note = "the basis is that of the score at zero, not optimised; certified are the users' factors"
    return finish_shared(request, answer)._replace(note=note)


SPECTRAL = Estimator(
    "spectral",
    "B from the singular vectors of the score at zero, W_i by maximum likelihood given B.",
    "method of moments, Tripuraneni et al. 2021",
    Kernel(_spectral, _finish),
    needs_rank=True,
)
