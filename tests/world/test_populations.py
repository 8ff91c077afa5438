"""Regimes: who shares what, exactly, while the spectrum stays the one asked for."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world, spectra

# a dense SVD is right to some 1e-14 of sigma_1
EXACT = 1e-10


def random_config(index: int) -> WorldConfig:
    """Every population, with tails, deficiencies, unequal groups and norms."""
    random = np.random.default_rng([index, 23])
    population = ("haar", "clusters", "mixture", "minority")[index % 4]
    d1, d2, users = (int(random.integers(low, high)) for low, high in ((3, 20), (1, 4), (6, 30)))
    rank = int(random.integers(1, min(d1, users) // 2 + 1))
    deficiency = int(random.integers(0, rank)) if index % 3 == 0 else 0
    unequal = population == "clusters" and index % 8 == 1
    return WorldConfig(
        n_users=users, d1=d1, d2=d2, rank=rank, deficiency=deficiency, population=population,
        nu=float(10 ** random.uniform(-2, 2)), condition=float(10 ** random.uniform(0, 1)),
        tail=0.0 if deficiency else 0.02, n_groups=rank + 1, concentration=0.8,
        minority_share=1.01 / users if unequal else None if population == "clusters" else 0.2,
        user_norms="lognormal" if population == "haar" else "random",
    )  # fmt: skip


def worst_error(config: WorldConfig, delta: np.ndarray, basis: np.ndarray) -> float:
    """Largest relative error of singular values and of the left space, by an SVD."""
    left, values, _ = np.linalg.svd(np.hstack(list(delta)), full_matrices=False)
    k = config.true_rank
    wanted = np.zeros(values.size)
    found = spectra.singular_values(config)
    wanted[: found.size] = found
    gap = left[:, :k] - basis @ (basis.T @ left[:, :k])
    return max(np.abs(values - wanted).max() / wanted[0], float(np.linalg.norm(gap, 2)))


def test_spectra_are_exact_over_100_random_regimes():
    worst = 0.0
    for index in range(100):
        config = random_config(index)
        world = make_world(config, seed=index)
        assert world.basis.shape == (config.d1, config.true_rank)
        worst = max(worst, worst_error(config, world.delta, world.basis))
        assert worst <= EXACT, (index, config)
    # the same judge rejects a user whose Delta is 1e-7 too large
    world.delta[0] *= 1 + 1e-7
    assert worst_error(config, world.delta, world.basis) > EXACT


def test_with_a_core_users_share_their_right_space_and_else_they_do_not():
    core, haar = (
        make_world(WorldConfig(n_users=9, d1=7, d2=5, rank=2, population=name), seed=3)
        for name in ("core", "haar")
    )
    ranks = [np.linalg.matrix_rank(np.vstack(list(w.delta)), tol=1e-10) for w in (core, haar)]
    assert ranks == [2, 5]
    values = np.linalg.svd(np.hstack(list(core.delta)), compute_uv=False)[:2]
    np.testing.assert_allclose(values, core.singular_values, rtol=1e-12)


@pytest.mark.parametrize("population", ["clusters", "mixture"])
@pytest.mark.parametrize("d2", [1, 3])
def test_memberships_explain_every_delta(population, d2):
    config = WorldConfig(
        n_users=23, d1=9, d2=d2, rank=3, population=population, n_groups=5, concentration=0.5
    )

    def unexplained(config: WorldConfig) -> float:
        world = make_world(config, seed=4)
        flat = world.delta.reshape(23, -1)
        components = np.linalg.lstsq(world.memberships, flat, rcond=None)[0]
        return float(np.abs(flat - world.memberships @ components).max())

    assert unexplained(config) < 1e-12
    # with a tail users deviate from their groups
    assert unexplained(dataclasses.replace(config, tail=0.1)) > 1e-3
    assert make_world(WorldConfig(n_users=4, d1=3, rank=1)).memberships is None


def test_users_of_a_cluster_are_equal_and_clusters_as_even_as_asked():
    even = make_world(WorldConfig(n_users=11, d1=8, rank=3, population="clusters"))
    assert sorted(even.memberships.sum(axis=0)) == [3, 4, 4]
    for column in even.memberships.T > 0:
        assert (even.delta[column] == even.delta[column][:1]).all()
    small = WorldConfig(n_users=40, d1=8, rank=3, population="clusters", minority_share=0.05)
    assert sorted(make_world(small).memberships.sum(axis=0)) == [2, 19, 19]


def test_the_last_direction_belongs_to_the_minority_alone():
    config = WorldConfig(n_users=30, d1=9, d2=2, rank=3, population="minority", minority_share=0.1)
    world = make_world(config, seed=2)
    few = world.memberships[:, 1] > 0
    assert few.sum() == 3
    along = np.linalg.norm(np.einsum("a,nab->nb", world.basis[:, -1], world.delta), axis=1)
    assert along[~few].max() < 1e-13
    assert along[few].min() > 0.1
    others = np.linalg.norm(np.einsum("ak,nab->nkb", world.basis[:, :2], world.delta), axis=2)
    assert others.min() > 1e-3  # the other directions are everybody's


def test_mixtures_have_dirichlet_moments():
    config = WorldConfig(
        n_users=6000, d1=5, rank=3, population="mixture", n_groups=3, concentration=0.7
    )
    shares = make_world(config, seed=1).memberships
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    total = 3 * 0.7
    variance = (1 / 3) * (2 / 3) / (total + 1)
    assert np.abs(shares.mean(axis=0) - 1 / 3).max() < 4 * np.sqrt(variance / 6000)
    squares = (shares - 1 / 3) ** 2
    error = squares.std(axis=0) / np.sqrt(6000)
    assert (np.abs(squares.mean(axis=0) - variance) < 4 * error).all()
    uniform = (1 / 3) * (2 / 3) / (3 + 1)  # concentration 1 is told apart
    assert (np.abs(squares.mean(axis=0) - uniform) > 4 * error).all()


def test_lognormal_norms_spread_as_asked_and_obey_a_bound():
    def spread(**settings) -> float:
        world = make_world(WorldConfig(n_users=400, d1=10, rank=3, nu=0.3, **settings), seed=3)
        return float(np.log(np.linalg.norm(world.delta, axis=(1, 2))).std())

    wide = spread(user_norms="lognormal", norm_spread=1.5)
    assert 1.2 < wide < 1.8  # the Gaussian part adds, orthonormality takes away
    assert spread() < 0.7
    assert spread(user_norms="lognormal", norm_spread=0.0) < 0.7
    bounded = WorldConfig(
        n_users=400, d1=10, rank=3, nu=0.3, user_norms="lognormal", norm_bound=2.0
    )
    assert np.linalg.norm(make_world(bounded).delta, axis=(1, 2)).max() <= 2.0 * (1 + 1e-11)


def test_unequal_counts_are_nested_and_have_the_mean_asked_for():
    config = WorldConfig(n_users=50, d1=4, rank=2, count_spread=1.0)
    world = make_world(config, seed=3)
    sizes = [world.counts(n) for n in (1, 2, 5, 30, 200)]
    assert all((less <= more).all() for less, more in itertools.pairwise(sizes))
    assert sizes[0].min() == 1
    assert sizes[-1].mean() == pytest.approx(200, abs=0.5)  # half a pair of rounding
    # a sample standard deviation of 50 logs has standard error 0.1
    assert abs(np.log(sizes[-1]).std() - 1.0) < 0.4
    plain = make_world(dataclasses.replace(config, count_spread=0.0), seed=3)
    np.testing.assert_array_equal(plain.counts(7), np.full(50, 7))
    np.testing.assert_array_equal(plain.delta, world.delta)
    long, short = (sample_preferences(world, n, seed=1) for n in (60, 20))
    np.testing.assert_array_equal(short.counts, world.counts(20))
    place = np.arange(long.n_total) - long.offsets[long.users]
    first = place < world.counts(20)[long.users]
    np.testing.assert_array_equal(long.features[first], short.features)
    np.testing.assert_array_equal(long.labels[first], short.labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": "clan"}, r"population 'clan': choose one of haar, core, clusters"),
        ({"population": "core", "d2": 2, "rank": 2}, r"needs rank < d2, got 2 and 2"),
        ({"population": "clusters", "norm_bound": 3.0}, r"norm_bound = 3\.0 needs population = "),
        ({"population": "mixture", "user_norms": "equal"}, r"user_norms = 'equal' needs populat"),
        ({"population": "minority", "user_norms": "lognormal"}, r"set user_norms = 'random'"),
        ({"population": "minority", "minority_share": 0.01}, r"is nobody; raise it to at least"),
        ({"population": "clusters", "n_groups": 3}, r"at least rank / d2 = 4 groups and at most"),
        ({"population": "mixture", "n_groups": 33}, r"at most N = 32; change n_groups"),
        ({"population": "clusters", "minority_share": 0.4}, r"makes 13 of N = 32 .* 1 to 8"),
        ({"deficiency": 4}, r"deficiency = 4 must be at most 3; rank - 1"),
        ({"deficiency": 1, "tail": 0.1}, r"tail = 0\.1 must be 0 with deficiency = 1"),
        ({"features": "degenerate", "d1": 4}, r"need a direction outside .* lower rank"),
        ({"feature_condition": 0.5}, r"feature_condition = 0\.5 must be at least 1"),
        ({"count_spread": -1.0}, r"count_spread = -1 must be at least 0"),
    ],
)
def test_regimes_that_cannot_exist_are_refused_when_written_down(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        WorldConfig(**settings)
    assert "\n" not in str(caught.value)


def test_memberships_that_cannot_be_told_apart_are_refused():
    config = WorldConfig(n_users=6, d1=6, rank=3, population="mixture", concentration=1e14)
    with pytest.raises(InputError, match=r"gave no independent memberships in 100 draws"):
        make_world(config)
