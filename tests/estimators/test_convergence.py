"""The case of issue 2: N=32, n=200, d1=64, k=4, norms 2: to 1e-8 in at most 60 data passes."""

from __future__ import annotations

import pytest

from simrlhf.estimators import FitStatus, fit
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world

# sigma^2 / N = nu 4^(j/3), j = 0..3, with the sum 4 = 2^2: every user has norm 2
NU = 4 / sum(4 ** (j / 3) for j in range(4))
CONFIG = WorldConfig(n_users=32, d1=64, rank=4, nu=NU, condition=2.0, user_norms="equal")
SEEDS = range(20)


@pytest.fixture(scope="module")
def samples():
    return [sample_preferences(make_world(CONFIG, seed=s), 200, seed=s) for s in SEEDS]


@pytest.mark.parametrize("norm_bound", [4.0, 2.5])
def test_share_b_converges_to_1e_8_in_at_most_60_passes_from_each_of_20_seeds(samples, norm_bound):
    for seed, prefs in zip(SEEDS, samples, strict=True):
        result = fit(prefs, "share_b", rank=4, norm_bound=norm_bound)
        assert result.status is FitStatus.CONVERGED, seed
        assert result.gradient_norm <= 1e-8, seed
        assert result.data_passes <= 60, (seed, result.data_passes)


def test_passes_count_the_reads_of_the_features(samples):
    # spectral start, pooled Gram matrix, projection, gradient; a step reads more
    cheap = fit(samples[0], "share_b", rank=4, norm_bound=4.0, tol=1.0)
    assert (cheap.iterations, cheap.data_passes) == (0, 4)
    dear = fit(samples[0], "share_b", rank=4, norm_bound=4.0)
    # a step: at least one Hessian product of two passes, and one pass for the new gradient
    assert dear.data_passes >= 4 + 3 * dear.iterations
