"""What is known against the standard errors of a fit, in words."""

from __future__ import annotations

from collections import Counter

import numpy as np

from simrlhf.core import links
from simrlhf.data.preferences import Preferences
from simrlhf.estimators.fisher import FisherErrors
from simrlhf.estimators.result import FitResult, FitStatus


def notes_of_fit(result: FitResult) -> list[str]:
    """What a fit itself tells against its errors."""
    notes, active = [], int((result.multipliers > 0).sum())
    if result.status in (FitStatus.MAX_ITERATIONS, FitStatus.STALLED):
        notes.append(f"the fit ended as {result.status.name}, not at an optimum")
    if active:
        notes.append(
            f"the norm bound is active for {active} of {result.n_users} users: their errors are "
            "not those of a maximum inside the ball, and intervals need not cover"
        )
    if result.ridge > 0:
        notes.append("with a ridge: spread around a shrunken mean, without the shrinkage")
    return notes


def notes_of_fisher(result: FitResult, parts: FisherErrors, with_basis: bool) -> list[str]:
    notes, lost = [], int(parts.infinite.sum())
    if lost:
        whom = "all users" if parts.pooled else f"{lost} of {result.n_users} users"
        notes.append(
            f"infinite for {whom}: separated labels, or too few pairs for their parameters"
        )
    basis = parts.basis_errors
    if basis is not None and basis.covariance is None:
        notes.append("infinite for all users: the pairs do not identify the basis; lower the rank")
    if parts.pooled:
        notes.append("one matrix for all: holds where the users agree, not for what they differ in")
    if result.estimator == "adapted" and not with_basis:
        notes.append("the basis counts as known; pass basis_errors to add its error")
    return notes


def notes_of_redraws(
    result: FitResult, preferences: Preferences, counts: Counter[str], parameters: int | None
) -> list[str]:
    notes, total = [], sum(counts.values())
    good = counts[FitStatus.CONVERGED.name] + counts[FitStatus.UNCERTIFIED.name]
    if good < total:
        others = {FitStatus.CONVERGED.name, FitStatus.UNCERTIFIED.name}
        ends = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if name not in others)
        notes.append(f"{total - good} of {total} refits did not converge ({ends})")
    if result.status is FitStatus.SEPARATED:
        notes.append("the fit is SEPARATED: labels were redrawn from arbitrary rewards")
    weights, preference = preferences.weights, links.get_link(result.link).is_preference
    if preference and not (weights == np.rint(weights)).all():
        notes.append("weights are not whole numbers: one label was drawn for each pair")
    if not preference and parameters is None:
        notes.append("the noise is the mean square residual: the parameters are not counted")
    if result.estimator == "adapted":
        notes.append("the basis counts as known")
    return notes
