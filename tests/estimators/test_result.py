"""Saving, loading, rewards and evaluation of a fit."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitStatus, fit, load_fit

ESTIMATORS = ["share_b", "local", "global", "full", "oracle"]
SCALARS = (
    "estimator", "neg_log_likelihood", "gradient_norm", "status", "message", "iterations",
    "data_passes", "rank", "norm_bound", "ridge", "link",
)  # fmt: skip


def run(case, estimator, **settings):
    if estimator in ("share_b", "local"):
        settings["rank"] = 2 if estimator == "share_b" else 1
    if estimator == "oracle":
        settings["basis"] = case.world.basis
    return fit(case.prefs, estimator, norm_bound=1.2, **settings)


@pytest.fixture
def result(wide):
    return run(wide, "share_b", theta_init=0.1 * np.ones((5, 3)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_saved_fit_is_read_back_as_it_was(wide, estimator, tmp_path):
    result = run(wide, estimator, theta_init=0.1 * np.ones((5, 3)))
    path = result.save(tmp_path / "deep" / "fit.v1")
    assert path.name == "fit.v1.npz"
    loaded = load_fit(path)
    for name in SCALARS:
        assert getattr(loaded, name) == getattr(result, name), name
    for name in ("delta", "basis", "multipliers", "theta_init", "user_ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(result, name))
    assert type(loaded.factors) is type(result.factors)
    for name, value in vars(result.factors).items():
        np.testing.assert_array_equal(getattr(loaded.factors, name), value)


@pytest.mark.parametrize(
    "names",
    [["a", "b", "c", "d"], [10, 7, 8, 9], np.array(["x", "yy", "z", "w"], dtype=object),
     np.array([4, 3, 2, 1], dtype=object)],
)  # fmt: skip
def test_users_keep_their_names_through_a_file(wide, names, tmp_path):
    prefs = wide.prefs
    named = Preferences.from_pairs(np.asarray(names)[prefs.users], prefs.features, prefs.labels)
    result = fit(named, "full", ridge=1.0)
    loaded = load_fit(result.save(tmp_path / "fit.npz"))
    assert loaded.user_ids.tolist() == result.user_ids.tolist() == sorted(names)
    np.testing.assert_array_equal(
        loaded.evaluate(named).neg_log_likelihood, result.evaluate(named).neg_log_likelihood
    )


def test_numpy_scalars_as_settings_can_be_saved(narrow, tmp_path):
    result = fit(
        narrow.prefs, "share_b", rank=np.int64(2), norm_bound=np.float32(1.5), ridge=np.float64(1)
    )
    assert load_fit(result.save(tmp_path / "fit.npz")).norm_bound == 1.5


def damaged_files(good: bytes, folder):
    yield "empty", b""
    yield "text", b"user_id,choice\n"
    yield "cut short", good[: len(good) // 2]
    yield "bit flips", good[:200] + bytes(200) + good[400:]
    single = folder / "single.npy"
    np.save(single, np.arange(3))
    yield "an array", single.read_bytes()
    other = folder / "other.npz"
    np.savez(other, delta=np.arange(3))
    yield "another archive", other.read_bytes()
    np.savez(other, header=np.asarray('{"format": 1}'), delta=np.arange(3))
    yield "an archive without the rest", other.read_bytes()
    np.savez(other, header=np.asarray("[1]"))
    yield "a header that is a list", other.read_bytes()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("header.npy", b"no array")
    yield "a header that is no array", other.read_bytes()


def test_a_damaged_file_is_named_in_one_line(result, tmp_path):
    good = result.save(tmp_path / "good.npz").read_bytes()
    for kind, content in damaged_files(good, tmp_path):
        path = tmp_path / "bad.npz"
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"bad\.npz is not a saved fit .*fit and save"
        ) as caught:
            load_fit(path)
        assert "\n" not in str(caught.value), kind


def test_a_missing_file_and_another_format_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no fit at .*nothing\.npz: give the \.npz file"):
        load_fit(tmp_path / "nothing.npz")
    np.savez(tmp_path / "new.npz", header=np.asarray('{"format": 9}'))
    with pytest.raises(InputError, match=r"has format 9, this version reads 1"):
        load_fit(tmp_path / "new.npz")


def test_evaluation_equals_a_loop_over_users_and_pairs(wide, result):
    prefs = wide.soft.reweighted(np.random.default_rng(0).uniform(0.1, 2, wide.soft.n_total))
    found = result.evaluate(prefs)
    for user in range(prefs.n_users):
        losses, hits, weights = [], [], []
        for pair in range(*prefs.offsets[user : user + 2]):
            theta = result.theta_init + result.delta[user]
            z, y = np.sum(theta * prefs.features[pair]), prefs.labels[pair]
            losses.append(-y * np.log(1 / (1 + np.exp(-z))) - (1 - y) * np.log(1 / (1 + np.exp(z))))
            hits.append(y if z > 0 else 1 - y)
            weights.append(prefs.weights[pair])
        assert found.neg_log_likelihood[user] == pytest.approx(
            np.average(losses, weights=weights), rel=1e-12
        )
        assert found.accuracy[user] == pytest.approx(np.average(hits, weights=weights), rel=1e-12)
        assert found.n_pairs[user] == 100


def test_a_tie_in_score_counts_one_half(wide, result):
    prefs = wide.prefs
    tied = Preferences.from_pairs(prefs.users, 0 * prefs.features, prefs.labels)
    np.testing.assert_array_equal(result.evaluate(tied).accuracy, 0.5)


def test_the_training_loss_is_the_evaluation_on_the_training_pairs(wide, result):
    found = result.evaluate(wide.prefs)
    assert np.average(found.neg_log_likelihood, weights=found.n_pairs) == pytest.approx(
        result.neg_log_likelihood, rel=1e-12
    )


def test_regression_has_a_loss_and_no_accuracy(regression):
    result = fit(regression.prefs, "full")
    found = result.evaluate(regression.prefs)
    assert np.isnan(found.accuracy).all()
    assert found.neg_log_likelihood.mean() == pytest.approx(result.neg_log_likelihood, rel=1e-12)


def test_users_are_matched_by_name_in_any_order_and_number(wide):
    prefs = wide.prefs
    names = np.array(["ann", "bob", "cy", "di"])
    named = Preferences.from_pairs(names[prefs.users], prefs.features, prefs.labels)
    result = fit(named, "full", ridge=1.0)
    whole = result.evaluate(named)
    some = np.isin(prefs.users, [3, 1])
    part = Preferences.from_pairs(
        names[prefs.users[some]], prefs.features[some], prefs.labels[some], users=["di", "bob"]
    )
    found = result.evaluate(part)
    np.testing.assert_allclose(
        found.neg_log_likelihood, whole.neg_log_likelihood[[3, 1]], rtol=1e-14
    )
    stranger = Preferences.from_pairs(["eve"] * 3, prefs.features[:3], prefs.labels[:3])
    with pytest.raises(InputError, match=r"1 users of the data are not in this fit .*eve.*; keep"):
        result.evaluate(stranger)
    values = Preferences.from_pairs(
        names[prefs.users], prefs.features, 5 * prefs.labels, link="identity"
    )
    with pytest.raises(InputError, match=r"fit has the logistic link, the data the identity link"):
        result.evaluate(values)


def test_rewards_are_inner_products(wide, result):
    random = np.random.default_rng(0)
    features, users = random.normal(size=(7, 5, 3)), random.integers(0, 4, 7)
    expected = [
        np.sum((result.theta_init + result.delta[u]) * x)
        for u, x in zip(users, features, strict=True)
    ]
    np.testing.assert_allclose(result.rewards(users, features), expected, rtol=1e-12, atol=1e-14)
    one = result.rewards(2, features)
    np.testing.assert_array_equal(one, result.rewards([2] * 7, features))
    assert result.rewards([], np.zeros((0, 5, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("users", "shape", "message"),
    [
        ([4], (1, 5, 3), r"user index 4 is outside 0\.\.3"),
        ([-1], (1, 5, 3), r"user index -1 is outside 0\.\.3"),
        ([0, 1], (3, 5, 3), r"users must be one index or 3 indices \(integers\), got shape \(2,\)"),
        (["ann"], (1, 5, 3), r"users must be .*user_ids gives the name of each index"),
        ([0.0], (1, 5, 3), r"users must be .* of float64"),
        ([0], (1, 3, 5), r"features has shape \(1, 3, 5\), expected \(any, 5, 3\)"),
        ([0], (1, 5), r"features has shape \(1, 5, 1\), expected \(any, 5, 3\)"),
    ],
)
def test_rewards_of_the_wrong_users_or_features_are_refused(result, users, shape, message):
    with pytest.raises(InputError, match=message):
        result.rewards(users, np.zeros(shape))


def test_every_status_is_a_sentence_with_a_remedy_where_one_is_needed():
    for status in FitStatus:
        assert len(status.sentence) > 40
        assert (status is FitStatus.CONVERGED) or ";" in status.sentence
