"""Sets around fits: each radius against the formula or the redraws it claims to come from."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import simrlhf as sim
from simrlhf import policy
from simrlhf.metrics import SET_KINDS, fit_sets
from simrlhf.metrics.confidence import SetsOfFit

BOUND = 4.0


def plain_world(seed: int = 0, **changes) -> sim.World:
    decision = sim.DecisionConfig(mdp="bandit", n_states=12, behaviour="contrast")
    config = {"n_users": 8, "d1": 4, "rank": 2, "condition": 1.3, "user_norms": "equal"} | changes
    return sim.make_world(
        sim.WorldConfig(**config, features="trajectories", decision=decision), seed=seed
    )


def fitted(world: sim.World, n_pairs: int, estimator: str = "share_b", seed: int = 0):
    sample = sim.sample_preferences(world, n_pairs, seed=seed)
    settings = {"basis": world.basis} if estimator == "oracle" else {"rank": world.config.rank}
    return sample, sim.fit(sample, estimator=estimator, norm_bound=BOUND, **settings)


@pytest.mark.parametrize("kind", ["ball_oracle", "design_oracle"])
def test_the_true_error_is_the_smallest_radius_that_holds_the_truth(kind):
    world = plain_world()
    sample, result = fitted(world, 60)
    sets = fit_sets(sample, result, kind=kind, world=world)
    assert sets.holds(world.theta).all()
    smaller = dataclasses.replace(sets, radius=(1.0 - 1e-6) * sets.radius)
    assert not smaller.holds(world.theta).any()


def test_the_printed_radius_is_b_1_with_every_users_own_bias():
    world = plain_world(tail=0.2)
    sample, result = fitted(world, 60)
    sets = fit_sets(sample, result, kind="ball_printed", confidence=0.9, world=world, constant=3.0)
    values = np.linalg.svd(np.hstack(list(world.delta)), compute_uv=False)
    nu, tail, log = values[1] ** 2 / 8, np.sum(values[2:] ** 2), math.log(8 * 60 / 0.1)
    common = 2 * (4 + 8) * log / (8 * 60 * nu) + math.sqrt(tail / 8) / nu
    common += (2 + math.log(8 / 0.1)) / 60
    own = np.sum((world.delta - world.truncated) ** 2, axis=(1, 2))
    np.testing.assert_allclose(sets.radius, np.sqrt(1.5 * (own + common)))
    assert np.ptp(sets.radius) > 0.01  # users differ


@pytest.mark.parametrize("estimator", ["share_b", "full"])
def test_a_bootstrap_radius_is_the_quantile_of_redrawn_errors(estimator):
    world = plain_world()
    sample, result = fitted(world, 80, estimator)
    given = {"confidence": 0.8, "n_bootstrap": 30, "seed": 3}
    ball = fit_sets(sample, result, kind="ball_bootstrap", **given)
    design = fit_sets(sample, result, kind="design_bootstrap", **given)
    redrawn = sim.standard_errors(result, sample, method="bootstrap", n_bootstrap=30, seed=3)
    units = np.eye(4).reshape(4, 4, 1)
    for user in range(3):
        x = sample.features[sample.user(user)].reshape(-1, 4)
        rows = redrawn.parts._rewards(np.full(4, user), units) - result.delta[user].ravel()
        sizes = np.sort(np.linalg.norm(rows, axis=1))
        assert ball.radius[user] == pytest.approx(sizes[24])  # the 25th of 30: .8 of the 29 steps
        metric = x.T @ x / 80 + np.eye(4) / (80 * BOUND**2)
        sizes = np.sort(np.sqrt(np.einsum("rp,pq,rq->r", rows, metric, rows)))
        assert design.radius[user] == pytest.approx(sizes[24])


def test_the_explicit_radius_is_that_of_the_scores_and_never_above_the_class():
    world = plain_world(n_users=2, d1=2, rank=1, nu=0.05)
    radii = {}
    for n_pairs in (20, 2000, 200_000):
        sample = sim.sample_preferences(world, n_pairs, seed=1)
        result = sim.fit(sample, rank=1, norm_bound=1.0)
        sets = fit_sets(sample, result, kind="ball_explicit")
        assert sets.holds(world.theta).all()
        radii[n_pairs] = sets.radius[0]
    assert radii[20] == 2.0
    x = sample.features.reshape(2, -1, 2)
    values = np.linalg.eigvalsh(np.einsum("njp,njq->npq", x, x))
    margin = np.linalg.norm(x, axis=2).max()
    bend = 1.0 / (2.0 + 2.0 * math.cosh(margin))
    # S2 with S3's nets, both users at once: 2 a / (s m), a = sqrt(r) ||G||
    norm = math.sqrt(2.0 * values.max() * (4 * math.log(9.0) - math.log(0.025)))
    by_scores = 2.0 * math.sqrt(2.0) * norm / (bend * values.min())
    # S4: a cover of k (d1 + N d2) = 4 numbers
    cover = 4.0 * math.log1p(4.0 * 400_000 * margin)
    laws = 1.0 / (1.0 + math.exp(-margin)) + 2.0 * (cover - math.log(0.025))
    laws = (math.sqrt(laws) + math.sqrt(0.25 / 1_600_000)) ** 2
    by_laws = math.pi * math.sqrt(laws / (2.0 * bend * values.min()))
    assert radii[200_000] == pytest.approx(min(by_scores, by_laws))
    assert radii[200_000] < 0.4 < radii[2000]


@pytest.mark.slow
def test_nominal_and_actual_coverage_agree_where_the_basis_is_known_or_nothing_is():
    """The likelihood ratio and the ellipsoid have as many degrees as the set has dimensions."""
    held: dict[tuple[str, str], list[float]] = {}
    for seed in range(40):
        world = plain_world(seed)
        for estimator in ("oracle", "full"):
            sample, result = fitted(world, 600, estimator, seed)
            for kind in ("fisher", "likelihood"):
                sets = fit_sets(sample, result, kind=kind, confidence=0.9)
                held.setdefault((estimator, kind), []).append(sets.holds(world.theta).mean())
    for key, shares in held.items():
        error = np.std(shares, ddof=1) / math.sqrt(len(shares))
        # the law of four degrees would hold the oracle's truth in .968 of the users
        assert error < 0.02, key
        assert np.mean(shares) == pytest.approx(0.9, abs=3.0 * error), key


def test_a_likelihood_set_on_a_fitted_basis_never_holds_the_truth():
    world = plain_world()
    sample, result = fitted(world, 2000)
    sets = fit_sets(sample, result, kind="likelihood", confidence=0.999)
    assert not sets.holds(world.theta).any()
    assert sets.holds(result.delta).all()


def test_a_fit_has_the_kinds_that_it_can_have():
    world = plain_world()
    sample, result = fitted(world, 60)
    assert list(SetsOfFit(sample, result, world).kinds()) == list(SET_KINDS)
    without_truth = {"ball_printed", "ball_oracle", "design_oracle"}
    assert set(SetsOfFit(sample, result).kinds()) == set(SET_KINDS) - without_truth
    free = dataclasses.replace(result, norm_bound=None)
    assert {"likelihood", "ball_explicit"}.isdisjoint(SetsOfFit(sample, free, world).kinds())
    flat = dataclasses.replace(plain_world(link="label_flip"))
    flipped = sim.sample_preferences(flat, 60, seed=0)
    rough = sim.fit(flipped, rank=2, norm_bound=BOUND)
    assert "likelihood" not in SetsOfFit(flipped, rough, flat).kinds()
    for kind in SetsOfFit(flipped, rough, flat).kinds():
        assert isinstance(fit_sets(flipped, rough, kind=kind, world=flat), policy.Ellipsoids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ball"}, "unknown kind of set 'ball': choose one of fisher"),
        ({"kind": "ball_oracle"}, "this radius asks for the truth; give the world"),
        ({"kind": "ball_printed"}, "this radius asks for the truth; give the world"),
        ({"kind": "fisher", "confidence": 1.0}, "confidence = 1 must be at most"),
    ],
)
def test_sets_that_cannot_be_are_refused(change, message):
    sample, result = fitted(plain_world(), 60)
    with pytest.raises(sim.InputError, match=message):
        fit_sets(sample, result, **change)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("likelihood", "a likelihood-ratio set is unbounded where pairs separate"),
        ("ball_explicit", "an explicit radius needs the norm bound R"),
    ],
)
def test_sets_that_need_a_norm_bound_say_so(kind, message):
    sample, result = fitted(plain_world(), 60)
    free = dataclasses.replace(result, norm_bound=None)
    with pytest.raises(sim.InputError, match=message):
        fit_sets(sample, free, kind=kind)
