"""`rank="auto"`: the smallest rank within one standard error of the best held-out likelihood."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import fit, rank_choice
from simrlhf.sampling import sample_preferences
from simrlhf.world import WorldConfig, make_world


def sample(rank: int, soft: bool = True):
    # the shapes of the fixture `narrow`: its compiled solvers serve here too
    config = WorldConfig(n_users=5, d1=6, rank=rank, nu=2.0, condition=1.5)
    return sample_preferences(make_world(config, seed=3), 40, seed=4, soft=soft)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_true_rank_is_found_where_labels_have_no_noise(rank):
    result = fit(sample(rank), "share_b", rank="auto")
    assert result.rank == rank
    assert result.basis.shape == (6, rank)


def test_noise_never_asks_for_more_than_the_truth_by_much():
    result = fit(sample(1, soft=False), "share_b", rank="auto", ridge=1.0)
    assert result.rank == 1


def test_the_same_seed_makes_the_same_folds():
    prefs = sample(2, soft=False)
    first, again, other = (rank_choice._folds(prefs, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("counts", [[2, 2, 2], [2, 3, 40, 7], [5], [11, 4]])
def test_every_fold_holds_pairs_out_and_leaves_every_user_some(counts):
    users = np.repeat(np.arange(len(counts)), counts)
    prefs = Preferences.from_pairs(users, np.ones((users.size, 2)), np.ones(users.size))
    for seed in range(20):
        fold = rank_choice._folds(prefs, seed)
        assert set(fold) == set(range(5))
        sizes = np.bincount(fold)
        assert np.ptp(sizes) <= 1
        for user in range(len(counts)):
            assert len(set(fold[prefs.user(user)])) >= 2


def test_with_groups_a_fold_holds_whole_groups_out():
    prefs = sample(2)
    groups = np.arange(prefs.n_total) % 8
    grouped = Preferences.from_pairs(
        prefs.users, prefs.features, prefs.labels, groups=[f"g{g}" for g in groups]
    )
    fold = rank_choice._folds(grouped, 0)
    for group in range(8):
        assert len(set(fold[groups == group])) == 1
    assert fit(grouped, "share_b", rank="auto").rank == 2


def test_the_choice_is_the_smallest_rank_within_one_paired_standard_error(monkeypatch):
    level = np.array([1.0, -1.0, 0.5, 2.0, -0.5])  # of each fold, common to all ranks
    gaps = {
        1: np.array([0.3, 0.4, 0.3, 0.2, 0.3]),
        2: np.array([0.01, -0.01, 0.02, -0.01, 0.0]),
        3: np.zeros(5),
        4: np.array([0.5, 0.6, 0.5, 0.6, 0.5]),
    }
    prefs = sample(3)
    fold_of = rank_choice._folds(prefs, 0)

    def held_out(prefs, held, fit_rank, rank):
        fold = fold_of[np.argmax(held)]
        return float(level[fold] + gaps[rank][fold])

    monkeypatch.setattr(rank_choice, "_held_out", held_out)
    choice = rank_choice.choose_rank(prefs, lambda *a, **k: None, seed=0)
    assert choice.rank == 2
    np.testing.assert_array_equal(choice.ranks, [1, 2, 3, 4])
    np.testing.assert_allclose(choice.errors[1], np.std(gaps[2], ddof=1) / np.sqrt(5), rtol=1e-12)
    # without pairing the folds' own level is the error, and rank 1 would pass
    assert np.std(level + gaps[1], ddof=1) / np.sqrt(5) > gaps[1].mean()


def test_the_held_out_loss_is_that_of_the_pairs_left_out(reference):
    prefs = sample(2, soft=False)
    held = np.arange(prefs.n_total) % 4 == 0

    def fit_rank(data, *, rank):
        return fit(data, "share_b", rank=rank, ridge=1.0)

    found = rank_choice._held_out(prefs, held, fit_rank, 2)
    trained = fit(prefs.reweighted(~held), "share_b", rank=2, ridge=1.0)
    assert found == pytest.approx(reference.loss(prefs.reweighted(held), trained.delta), rel=1e-12)
    assert found > trained.neg_log_likelihood


def pairs(users, groups=None):
    x = np.random.default_rng(0).normal(size=(len(users), 3))
    return Preferences.from_pairs(users, x, np.arange(len(users)) % 2, groups=groups)


@pytest.mark.parametrize(
    ("prefs", "message"),
    [
        (pairs([0] * 9 + [1]), r"at least 2 of every user and 5 in all, got 1 and 10; give a rank"),
        (pairs([0, 0, 1, 1]), r"at least 2 of every user and 5 in all, got 2 and 4; give a rank"),
        (pairs([0, 1] * 6, groups=[1, 2, 3, 4] * 3), r"needs at least 5, got 4; give a rank"),
        (pairs(list(range(6)) * 2, groups=list(range(6)) * 2), r"a fold with nothing to hold out"),
    ],
)
def test_too_little_to_hold_out_is_refused(prefs, message):
    with pytest.raises(InputError, match=message) as caught:
        fit(prefs, "share_b", rank="auto", norm_bound=1.0)
    assert "\n" not in str(caught.value)


def test_a_streamed_source_cannot_be_split(narrow):
    class Source:
        n_users, d1, d2, link = 5, 6, 1, "logistic"
        user_ids, chunks = narrow.prefs.user_ids, narrow.prefs.chunks

    with pytest.raises(InputError, match=r"needs the pairs in memory .* give a number"):
        fit(Source(), "share_b", rank="auto")


@pytest.mark.parametrize("estimator", ["full", "global", "oracle"])
def test_an_estimator_without_a_rank_does_not_choose_one(narrow, estimator):
    basis = narrow.world.basis if estimator == "oracle" else None
    with pytest.raises(InputError, match=rf"{estimator} has none to choose: leave rank out"):
        fit(narrow.prefs, estimator, rank="auto", basis=basis)
