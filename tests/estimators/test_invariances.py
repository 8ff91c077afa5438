"""What must not change the fit, or must change it in a known way."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit

ESTIMATORS = ["share_b", "local", "global", "full", "oracle"]
BOUND = 1.2
# fits stop at a gradient of 1e-10; the curvature of the mean loss here is above 1e-3
CLOSE = 1e-6


def run(prefs, estimator, basis, **settings):
    settings = {"norm_bound": BOUND, "tol": 1e-10} | settings
    if estimator in ("share_b", "local"):
        settings["rank"] = 2 if estimator == "share_b" else 1
    if estimator == "oracle":
        settings["basis"] = basis
    return fit(prefs, estimator, **settings)


def rebuilt(prefs, *, features=None, labels=None, weights=None, users=None):
    return Preferences.from_pairs(
        prefs.users if users is None else users,
        prefs.features if features is None else features,
        prefs.labels if labels is None else labels,
        weights,
        link=prefs.link,
    )


@pytest.fixture
def turn(reference):
    return reference.random_basis(np.random.default_rng(3), 5, 5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rotating_the_features_rotates_the_fit(wide, turn, estimator):
    base = run(wide.prefs, estimator, wide.world.basis)
    turned = np.einsum("ac,ncb->nab", turn, wide.prefs.features)
    moved = run(rebuilt(wide.prefs, features=turned), estimator, turn @ wide.world.basis)
    expected = np.einsum("ac,ncb->nab", turn, base.delta)
    np.testing.assert_allclose(moved.delta, expected, rtol=0, atol=CLOSE)
    assert np.abs(moved.delta - base.delta).max() > 0.01
    assert moved.neg_log_likelihood == pytest.approx(base.neg_log_likelihood, abs=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_renaming_users_permutes_the_fit(narrow, estimator):
    base = run(narrow.prefs, estimator, narrow.world.basis)
    order = np.array([3, 0, 4, 1, 2])
    moved = run(rebuilt(narrow.prefs, users=order[narrow.prefs.users]), estimator,
                narrow.world.basis)  # fmt: skip
    np.testing.assert_allclose(moved.delta[order], base.delta, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(moved.multipliers[order], base.multipliers, rtol=0, atol=1e-4)


def test_moving_the_origin_of_item_features_changes_nothing(narrow):
    """Only differences of items are seen; that differences are taken at all is the rival."""
    prefs = narrow.prefs
    random = np.random.default_rng(5)
    second = random.normal(size=prefs.features.shape)
    items = np.concatenate([prefs.features + second, second])
    pairs = np.arange(prefs.n_total)[:, None] + [0, prefs.n_total]
    fits = [
        run(
            Preferences.from_pairs(
                prefs.users, items=items + shift, pairs=pairs, labels=prefs.labels
            ),
            "share_b",
            narrow.world.basis,
        )
        for shift in (0.0, 3.0 * random.normal(size=(1, 6, 1)))
    ]
    np.testing.assert_allclose(fits[1].delta, fits[0].delta, rtol=0, atol=CLOSE)
    alone = run(rebuilt(prefs, features=items[: prefs.n_total]), "share_b", narrow.world.basis)
    assert np.abs(alone.delta - fits[0].delta).max() > 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_pair_of_weight_two_is_two_pairs(narrow, estimator):
    prefs = narrow.prefs
    place = np.arange(prefs.n_total) - prefs.offsets[prefs.users]
    source = prefs.offsets[prefs.users] + place // 2  # the first twenty pairs, each one twice
    twice = rebuilt(prefs, features=prefs.features[source], labels=prefs.labels[source])
    weighted = prefs.reweighted(np.where(place < 20, 2.0, 0.0))
    a, b = (run(p, estimator, narrow.world.basis) for p in (twice, weighted))
    np.testing.assert_allclose(a.delta, b.delta, rtol=0, atol=CLOSE)
    assert a.neg_log_likelihood == pytest.approx(b.neg_log_likelihood, abs=1e-12)
    wrong = run(prefs.reweighted(np.where(place < 20, 2.0, 1e-1)), estimator, narrow.world.basis)
    assert np.abs(wrong.delta - a.delta).max() > 100 * CLOSE


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_swapping_the_items_with_the_label_changes_nothing(narrow, estimator):
    prefs = narrow.prefs
    base = run(prefs, estimator, narrow.world.basis)
    sign = np.where(np.arange(prefs.n_total) % 3 == 0, -1.0, 1.0)
    swapped = rebuilt(
        prefs, features=prefs.features * sign[:, None, None],
        labels=np.where(sign < 0, 1 - prefs.labels, prefs.labels),
    )  # fmt: skip
    same = run(swapped, estimator, narrow.world.basis)
    np.testing.assert_allclose(same.delta, base.delta, rtol=0, atol=CLOSE)
    mirrored = run(rebuilt(prefs, labels=1 - prefs.labels), estimator, narrow.world.basis)
    np.testing.assert_allclose(mirrored.delta, -base.delta, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scale", [1e-3, 10.0, 1e6])
def test_features_in_other_units_give_the_rewards_in_the_inverse_units(narrow, estimator, scale):
    base = run(narrow.prefs, estimator, narrow.world.basis, ridge=0.5)
    scaled = rebuilt(narrow.prefs, features=scale * narrow.prefs.features)
    # the gradient in W has the features' units, so small units ask for a smaller tolerance
    other = run(
        scaled, estimator, narrow.world.basis, norm_bound=BOUND / scale, ridge=0.5 * scale**2,
        tol=1e-10 * min(1.0, scale),
    )  # fmt: skip
    np.testing.assert_allclose(scale * other.delta, base.delta, rtol=0, atol=CLOSE)
    np.testing.assert_allclose(other.multipliers / scale**2, base.multipliers, rtol=0, atol=1e-4)


def test_a_base_reward_shifts_the_full_model_against_itself(wide):
    random = np.random.default_rng(0)
    base_reward = 0.3 * random.normal(size=(5, 3))
    base = fit(wide.prefs, "full", tol=1e-11)
    shifted = fit(wide.prefs, "full", theta_init=base_reward, tol=1e-11)
    # steep directions of a user with few pairs: the smallest curvature here is some 1e-4
    np.testing.assert_allclose(shifted.delta + base_reward, base.delta, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(shifted.theta_init, base_reward)
    assert shifted.neg_log_likelihood == pytest.approx(base.neg_log_likelihood, abs=1e-12)


def test_a_base_reward_is_a_shift_of_regression_labels(regression):
    prefs, base_reward = regression.prefs, np.linspace(-1, 1, 6)
    moved = rebuilt(prefs, labels=prefs.labels + prefs.features[:, :, 0] @ base_reward)
    plain = fit(prefs, "share_b", rank=2, tol=1e-10)
    based = fit(moved, "share_b", rank=2, tol=1e-10, theta_init=base_reward)
    np.testing.assert_allclose(based.delta, plain.delta, rtol=0, atol=CLOSE)
    ignored = fit(moved, "share_b", rank=2, tol=1e-10)
    assert np.abs(ignored.delta - plain.delta).max() > 0.1


# two groups of similar size, tiles with and without padding; and one group, for `local`
SIZES = {"full": np.array([100, 9, 64, 70]), "local": np.array([100, 55, 64, 70])}


@pytest.mark.parametrize(
    ("estimator", "rank", "settings"),
    [
        ("full", None, {"norm_bound": 1.2}),
        ("full", None, {"ridge": 0.5}),
        ("local", 1, {"norm_bound": 1.2}),
    ],
)
def test_users_of_unequal_sizes_are_fitted_as_if_alone(wide, estimator, rank, settings):
    counts = SIZES[estimator]
    prefs = wide.prefs
    place = np.arange(prefs.n_total) - prefs.offsets[prefs.users]
    uneven = prefs.select(place < counts[prefs.users])
    together = fit(uneven, estimator, rank=rank, tol=1e-10, **settings)
    for user in range(prefs.n_users):
        # alone: the others' pairs replaced by weight zero but for one pair each
        mine = (prefs.users == user) & (place < counts[user])
        others = (prefs.users != user) & (place == 0)
        alone = prefs.reweighted((mine | others).astype(float))
        single = fit(alone, estimator, rank=rank, tol=1e-10, **settings)
        np.testing.assert_allclose(together.delta[user], single.delta[user], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("estimator", ["share_b", "oracle", "full"])
def test_a_weight_of_zero_removes_a_pair_and_tiles_are_only_storage(narrow, reference, estimator):
    counts = np.array([40, 9, 25, 40, 3])
    prefs = narrow.prefs
    place = np.arange(prefs.n_total) - prefs.offsets[prefs.users]
    keep = place < counts[prefs.users]
    uneven, masked = prefs.select(keep), prefs.reweighted(keep.astype(float))
    assert next(uneven.chunks()).labels.shape != next(masked.chunks()).labels.shape
    a, b = (run(p, estimator, narrow.world.basis, ridge=0.1) for p in (uneven, masked))
    np.testing.assert_allclose(a.delta, b.delta, rtol=0, atol=CLOSE)
    assert a.neg_log_likelihood == pytest.approx(reference.loss(uneven, a.delta), rel=1e-12)


def test_a_source_in_chunks_of_different_heights_is_the_same_source(narrow):
    prefs = narrow.prefs

    class Source:
        n_users, d1, d2, link = prefs.n_users, prefs.d1, prefs.d2, prefs.link
        user_ids = prefs.user_ids

        def chunks(self):
            tiles = next(prefs.chunks())
            for users, height in (((0, 1), 40), ((2, 3, 4), 40)):
                part = type(tiles)(*(array[list(users)] for array in tiles))
                yield type(tiles)(part.users, *(a[:, :height] for a in part[1:]))

    np.testing.assert_array_equal(
        fit(Source(), "share_b", rank=2, norm_bound=BOUND).delta,
        fit(prefs, "share_b", rank=2, norm_bound=BOUND).delta,
    )


def test_the_callers_precision_and_promotion_change_nothing_and_stay(narrow):
    inside = fit(narrow.prefs, "share_b", rank=2, norm_bound=BOUND)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        outside = fit(narrow.prefs, "share_b", rank=2, norm_bound=BOUND)
        assert not jax.config.jax_enable_x64
    assert outside.delta.dtype == np.float64
    np.testing.assert_array_equal(outside.delta, inside.delta)
