"""`train_first_order`: a fit by the paper's training, with what happened on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.estimators.first_order import FIRST_ORDER, Trace, train
from simrlhf.estimators.fitting import result_of, with_base
from simrlhf.estimators.problem import PreferenceSource
from simrlhf.estimators.requests import check_request
from simrlhf.estimators.result import FitResult
from simrlhf.estimators.training_settings import TrainingSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """A trained model and its way there.

    Attributes:
        fit: as `fit` returns it; `data_passes` are the epochs done, `gradient_norm` is that of
            `share_b`, at the same parameters. Its status is CONVERGED only where that is met.
        trace: loss, gradient and subspace at the recorded times.
        settings: what was asked.
    """

    fit: FitResult
    trace: Trace
    settings: TrainingSettings


def train_first_order(
    preferences: PreferenceSource,
    settings: TrainingSettings | None = None,
    *,
    record: Sequence[float] | None = None,
    theta_init: np.ndarray | str | None = None,
    tol: float = 1e-8,
) -> Training:
    """Train `Delta_i = (alpha/k) B W_i` as the paper does: AdamW, minibatches, linear decay.

    Each step takes the gradient of the weighted mean loss of a batch of pairs drawn over all users;
    an epoch reads every pair once, in a new order.

    Args:
        preferences: the pairs.
        settings: the paper's by default; its rank 32 has to fit the features.
        record: data passes (epochs, may be fractions) at which the trace is read, besides the end;
            by default 0, 1, 2, 4, 8 ...
        theta_init: base reward `(d1, d2)`, as for `fit`.
        tol: as for `fit`; it ends nothing, and decides the status.

    Raises:
        InputError: for misuse only, before any computation.

    Fails when: the learning rate does not suit the features' scale. The paper's 5e-5 moves an entry
    by at most 5e-5 a step: on features of order one three epochs of some thousand pairs go nowhere.

    Source: P-ShareLoRA Algorithm 2 (App. D.1), Section 5 and its hyper-parameters. Only the factors
    are trained: the reward is linear, there is no head.
    """
    settings = TrainingSettings() if settings is None else settings
    checks.require(
        isinstance(settings, TrainingSettings),
        f"settings must be TrainingSettings, got {type(settings).__name__}",
    )
    if record is None:
        powers = (2.0**i for i in range(20))
        record = [0.0, *(power for power in powers if power <= settings.epochs)]
    points = checks.numbers("record", record)
    checks.shape("record", points, (None,), remedy="a list of data passes")
    checks.require(
        bool(((points >= 0) & (points <= settings.epochs)).all()),
        f"record must lie within 0 and epochs = {settings.epochs:g}, got {points.tolist()}",
    )
    request = check_request(
        preferences,
        FIRST_ORDER,
        rank=settings.rank,
        norm_bound=None,
        ridge=0.0,
        penalty=None,
        init="spectral",
        basis=None,
        theta_init=theta_init,
        max_iterations=math.ceil(settings.epochs),
        tol=tol,
        seed=settings.seed,
    )
    request = with_base(request)
    with numerics.float64_scope():
        outcome, trace = train(request, settings, points.tolist())
        return Training(
            fit=result_of(FIRST_ORDER, request, outcome), trace=trace, settings=settings
        )


def tuned(
    preferences: PreferenceSource,
    settings: TrainingSettings,
    learning_rates: Sequence[float],
    *,
    record: Sequence[float] | None = None,
) -> Training:
    """The training with the lowest final loss among `learning_rates`, all else equal.

    What a practitioner pays is the sum over the grid; the passes of the winner are reported.
    """
    checks.require(len(learning_rates) > 0, "learning_rates is empty; give at least one")
    runs = [
        train_first_order(preferences, replace(settings, learning_rate=rate), record=record)
        for rate in learning_rates
    ]
    return min(runs, key=lambda run: run.fit.neg_log_likelihood)
