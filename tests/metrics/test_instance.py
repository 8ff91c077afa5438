"""The ingredients of the bounds, against loops over pairs."""

import numpy as np
import pytest

import simrlhf as sim
from simrlhf.metrics.instance import Instance, measure_instance


@pytest.fixture(scope="module")
def case() -> tuple[sim.World, sim.Preferences, sim.FitResult]:
    config = sim.WorldConfig(n_users=4, d1=5, d2=2, rank=2, nu=0.4, tail=0.2, base_norm=0.5)
    world = sim.make_world(config, seed=3)
    prefs = sim.sample_preferences(world, np.array([30, 45, 25, 60]), seed=4)
    weights = np.ones(prefs.n_total)
    weights[::7] = 0.0  # switched off, as a smaller nested sample is
    weights[1::7] = 2.0
    prefs = prefs.reweighted(weights)
    return world, prefs, sim.fit(prefs, rank=2, norm_bound=5.0, theta_init=world.theta_init)


@pytest.fixture(scope="module")
def found(case: tuple[sim.World, sim.Preferences, sim.FitResult]) -> Instance:
    return measure_instance(*case)


def _loss(z: float, y: float) -> float:
    return float(y * np.log1p(np.exp(-z)) + (1 - y) * np.log1p(np.exp(z)))


def _total(case: tuple, theta: np.ndarray) -> float:
    _, prefs, _ = case
    return sum(
        prefs.weights[p]
        * _loss(float(np.sum(theta[prefs.users[p]] * prefs.features[p])), prefs.labels[p])
        for p in range(prefs.n_total)
    )


def _truncated(world: sim.World) -> np.ndarray:
    flat = np.concatenate(list(world.delta), axis=1)
    u, s, vt = np.linalg.svd(flat)
    best = (u[:, :2] * s[:2]) @ vt[:2]
    return np.stack(np.split(best, world.n_users, axis=1))


def test_scores_are_the_gradient_of_the_loss_at_the_truth(case: tuple, found: Instance) -> None:
    world, _, _ = case
    step = 1e-5
    for user, row, column in ((0, 0, 0), (1, 3, 1), (3, 4, 0)):
        up, down = world.theta.copy(), world.theta.copy()
        up[user, row, column] += step
        down[user, row, column] -= step
        slope = (_total(case, up) - _total(case, down)) / (2 * step)
        # central differences: error step^2 times a third derivative of order 100
        assert found.scores[row, 2 * user + column] == pytest.approx(slope, abs=1e-6)


def test_divergences_are_bregman_divergences(case: tuple, found: Instance) -> None:
    world, _, result = case
    gradient = np.stack(np.split(found.scores, world.n_users, axis=1))
    for delta, value in (
        (result.delta, found.divergence),
        (_truncated(world), found.truncation_divergence),
    ):
        direct = (
            _total(case, world.theta_init + delta)
            - _total(case, world.theta)
            - float(np.sum(gradient * (delta - world.delta)))
        )
        # sums of 160 losses of order 1
        assert value == pytest.approx(direct, abs=1e-11)
        assert value > 0


def test_errors_excess_and_margins(case: tuple, found: Instance) -> None:
    world, prefs, result = case
    truncated = _truncated(world)
    assert found.error_norm == pytest.approx(np.linalg.norm(result.delta - world.delta), rel=1e-12)
    assert found.truncated_error_norm == pytest.approx(
        np.linalg.norm(result.delta - truncated), rel=1e-10
    )
    base = world.theta_init
    excess = _total(case, base + result.delta) - _total(case, base + truncated)
    assert found.excess == pytest.approx(excess, abs=1e-10)
    assert found.excess < 0  # the truncation is feasible, the fit a minimiser
    seen = prefs.weights > 0
    margins = [
        abs(float(np.sum(theta[prefs.users[p]] * prefs.features[p])))
        for theta in (world.theta, base + result.delta)
        for p in np.flatnonzero(seen)
    ]
    assert found.largest_reward == pytest.approx(max(margins), rel=1e-12)
    sizes = np.linalg.norm(prefs.features, axis=(1, 2))
    assert found.largest_feature == pytest.approx(sizes[seen].max(), rel=1e-12)


def test_design_extremes_are_over_users_and_weighted(case: tuple, found: Instance) -> None:
    _, prefs, _ = case
    values = []
    for user in range(prefs.n_users):
        gram = np.zeros((10, 10))
        for p in range(prefs.offsets[user], prefs.offsets[user + 1]):
            gram += prefs.weights[p] * np.outer(
                prefs.features[p].ravel(), prefs.features[p].ravel()
            )
        values.append(np.linalg.eigvalsh(gram))
    assert found.smallest_design == pytest.approx(min(v[0] for v in values), rel=1e-10)
    assert found.largest_design == pytest.approx(max(v[-1] for v in values), rel=1e-10)


def test_measurement_and_theory_agree_though_they_share_no_code(
    case: tuple, found: Instance
) -> None:
    world, prefs, result = case
    extremes = sim.theory.design_extremes(prefs.features, prefs.offsets, prefs.weights)
    # eigenvalues of a Gram matrix against squared singular values: 1e-16 of the largest
    assert extremes == pytest.approx((found.smallest_design, found.largest_design), rel=1e-10)
    z_hat = result.rewards(prefs.users, prefs.features)
    z_star = np.einsum("pab,pab->p", prefs.features, world.theta[prefs.users])
    divergence = sim.theory.bregman_divergence(
        world.link, point=z_hat, reference=z_star, labels=prefs.labels, weights=prefs.weights
    )
    assert divergence == pytest.approx(found.divergence, rel=1e-10)


def test_regression_scales_limits_and_wilks_by_the_noise() -> None:
    rows = []
    for noise in (0.5, 2.0):
        config = sim.WorldConfig(n_users=6, d1=5, rank=2, link="identity", noise=noise, nu=noise**2)
        world = sim.make_world(config, seed=1)
        prefs = sim.sample_preferences(world, 200, seed=2)
        rows.append(sim.metrics.bounds_of_fit(world, prefs, sim.fit(prefs, rank=2), n_pairs=200))
    # noise and rewards scaled together: the same problem in other units
    for name in ("limit", "wilks", "s1", "s2_a_posteriori"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-6)
    assert rows[1]["reward_limit"] == pytest.approx(4 * rows[0]["reward_limit"], rel=1e-6)


def test_bounds_of_another_base_or_estimator_are_refused() -> None:
    config = sim.WorldConfig(n_users=4, d1=6, rank=2, nu=0.3, base_norm=6.0)
    world = sim.make_world(config, seed=1)
    prefs = sim.sample_preferences(world, 60, seed=2)
    with pytest.raises(sim.InputError, match=r"another theta_init than the world"):
        sim.metrics.bounds_of_fit(world, prefs, sim.fit(prefs, rank=2, ridge=1.0), n_pairs=60)
    alone = sim.fit(prefs, "full", rank=2, ridge=1.0, theta_init=world.theta_init)
    with pytest.raises(sim.InputError, match=r"bounds are those of share_b, the fit is of full"):
        sim.metrics.bounds_of_fit(world, prefs, alone, n_pairs=60)
