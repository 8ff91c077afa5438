"""`fit` with a function of the user's own in the place of a name."""

from __future__ import annotations

import numpy as np
import pytest

import simrlhf as sim
from simrlhf.core.checks import InputError
from simrlhf.estimators import ESTIMATORS, FitStatus, fit, fit_many


def halved(request):
    pooled = sim.fit(request.source, "global", theta_init=request.theta_init)
    return 0.5 * pooled.delta


def test_a_function_that_returns_deviations_gets_their_likelihood_and_no_certificate(
    narrow, reference
):
    base = np.linspace(-0.2, 0.2, 6)[:, None]
    result = fit(narrow.prefs, halved, rank=2, theta_init=base)
    pooled = fit(narrow.prefs, "global", theta_init=base)
    np.testing.assert_array_equal(result.delta, 0.5 * pooled.delta)
    assert result.neg_log_likelihood == pytest.approx(
        reference.loss(narrow.prefs, result.delta, base), rel=1e-12
    )
    assert result.neg_log_likelihood > pooled.neg_log_likelihood
    assert result.estimator == "halved"
    assert result.status is FitStatus.UNCERTIFIED
    assert np.isnan(result.gradient_norm)
    assert result.basis.shape == (6, 2)
    loaded = fit_many([narrow.prefs], halved, rank=2, theta_inits=[base])[0]
    np.testing.assert_array_equal(loaded.delta, result.delta)


def test_a_function_may_return_an_outcome_with_a_certificate_of_its_own(narrow):
    named, own = (
        fit(narrow.prefs, way, rank=2, norm_bound=2.0)
        for way in ("share_b", ESTIMATORS["share_b"].run)
    )
    np.testing.assert_array_equal(own.delta, named.delta)
    assert own.status is FitStatus.CONVERGED


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros((5, 6)), r"what mine returned .*\(5, 6\)"),
        (np.full((5, 6, 1), np.nan), r"what mine returned"),
    ],
)
def test_a_function_that_returns_something_else_is_named(narrow, answer, message):
    def mine(_):
        return answer

    with pytest.raises(InputError, match=message):
        fit(narrow.prefs, mine)


def test_what_a_class_does_not_take_is_refused(narrow):
    with pytest.raises(InputError, match="share_b takes no penalty"):
        fit(narrow.prefs, "share_b", rank=2, penalty=1.0)
