"""The honest evaluation: nothing leaks, numbers equal slow references, no user is lost."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from simrlhf.core.checks import InputError
from simrlhf.data import PairTable, text
from simrlhf.estimators import load_fit
from simrlhf.study import figures, honest, honest_report, honest_splits
from simrlhf.study.honest import HonestSettings, evaluate_honestly

N_USERS, D1, RANK, N_GROUPS = 8, 6, 2, 5
SMALL = HonestSettings(ranks=(2,), ridges=(1.0, 10.0), n_splits=2)


def numeric_table(*, seed=0, per_user=60, d2=1):
    """Users who share a 2-dimensional space, with features on very different scales."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(D1, RANK)))[0]
    delta = 3.0 * np.einsum("ak,ukb->uab", basis, rng.normal(size=(N_USERS, RANK, d2)))
    user = np.repeat(np.arange(N_USERS), per_user)
    x = rng.normal(size=(user.size, D1, d2))
    z = np.einsum("pab,pab->p", x, delta[user])
    return PairTable(
        user_ids=np.array([f"u{i}" for i in user]),
        choice=(rng.random(user.size) < 1 / (1 + np.exp(-z))).astype(float),
        differences=x * np.array([1.0, 100.0, 0.01, 1.0, 1.0, 1.0])[:, None],
        groups=np.array([f"g{i}" for i in rng.integers(0, N_GROUPS, user.size)]),
    )


def text_table(*, seed=0, per_user=30):
    """Texts of random words in three groups; users disagree on whether longer is better."""
    rng = np.random.default_rng(seed)
    words = np.array(["red", "green", "blue", "one", "two", "three", "four", "five"])
    texts = tuple(" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(30))
    length = np.array([len(t.split()) for t in texts])
    user = np.repeat(np.arange(4), per_user)
    group = rng.integers(0, 3, user.size)
    pairs = 10 * group[:, None] + np.array([rng.choice(10, 2, replace=False) for _ in user])
    z = np.array([1.0, 1.0, 0.2, -1.0])[user] * (length[pairs[:, 0]] - length[pairs[:, 1]])
    return PairTable(
        user_ids=np.array([f"u{i}" for i in user]),
        choice=(rng.random(user.size) < 1 / (1 + np.exp(-z))).astype(float),
        texts=texts,
        pairs=pairs,
        groups=np.array([f"g{i}" for i in group]),
    )


@pytest.fixture(scope="module")
def table():
    return numeric_table()


@pytest.fixture(scope="module")
def evaluation(table):
    names = ("share_b", "global", "full", "local", "oracle")
    return evaluate_honestly(table, replace(SMALL, estimators=names))


def parts_of(table, settings, split):
    units = honest_splits.split_units(table)
    return honest_splits.draw_parts(
        units, fractions=settings.fractions, seed=settings.seed, split=split
    )


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize("n_groups", [3, 4, 10, 32])
def test_groups_stay_whole_and_every_part_has_one(n_groups):
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(n_groups), 7)).astype(str)
    units = honest_splits.split_units(
        PairTable(user_ids=groups, choice=np.ones(groups.size), groups=groups,
                  differences=np.ones((groups.size, 1, 1)))
    )  # fmt: skip
    drawn = [
        honest_splits.draw_parts(units, fractions=(0.6, 0.2, 0.2), seed=0, split=s)
        for s in range(9)
    ]
    for part in drawn:
        assert all(len(set(part[groups == g])) == 1 for g in np.unique(groups))
        assert set(part) == {0, 1, 2}
    assert len({part.tobytes() for part in drawn}) > 1
    again = honest_splits.draw_parts(units, fractions=(0.6, 0.2, 0.2), seed=0, split=4)
    np.testing.assert_array_equal(again, drawn[4])
    if n_groups == 32:
        assert [int((drawn[0] == p).sum()) / 7 for p in range(3)] == [20, 6, 6]


def test_without_groups_equal_pairs_stay_together_and_a_warning_is_given():
    table = replace(text_table(), groups=None)
    units = honest_splits.split_units(table)
    assert "no group column" in units.warning
    flipped = np.sort(np.asarray(table.pairs), axis=1)
    for unit in np.unique(units.index):
        assert len(np.unique(flipped[units.index == unit], axis=0)) == 1
    named = replace(table, pair_ids=np.arange(table.n_pairs) // 2)
    assert honest_splits.split_units(named).n_units == table.n_pairs // 2
    found = evaluate_honestly(table, replace(SMALL, n_splits=1, dimensions=2, estimators=()))
    assert any("may leak" in note for note in found.notes)


def test_fewer_than_three_groups_are_refused(table):
    two = replace(table, groups=np.where(table.groups == "g0", "a", "b"))
    with pytest.raises(
        InputError, match=r"at least 3 groups \(training, validation, test\), got 2"
    ):
        evaluate_honestly(two, SMALL)


# ---------------------------------------------------------------- nothing leaks


def test_test_labels_change_no_choice_and_no_validation_loss(table, evaluation):
    part = parts_of(table, SMALL, 0)
    one_split = replace(SMALL, n_splits=1)

    def after_flipping(which):
        choice = np.where(part == which, 1 - table.choice, table.choice)
        return evaluate_honestly(replace(table, choice=choice), one_split)

    first = evaluation.choices.query("split == 0")
    flipped_test = after_flipping(honest_splits.TEST)
    np.testing.assert_array_equal(flipped_test.choices.validation_nll, first.validation_nll)
    # controls: the same change of the other parts must show, and the test scores must turn round
    for which in (honest_splits.TRAIN, honest_splits.VALIDATION):
        other = after_flipping(which).choices.validation_nll
        assert np.abs(other.to_numpy() - first.validation_nll.to_numpy()).min() > 1e-3
    before = evaluation.per_user.query("split == 0 and estimator == 'full'").accuracy
    after = flipped_test.per_user.query("estimator == 'full'").accuracy
    np.testing.assert_allclose(after, 1 - before.to_numpy())


def test_words_of_held_out_texts_change_no_choice():
    table = text_table()
    settings = replace(SMALL, n_splits=1, dimensions=2, estimators=("global",))
    part, all_texts = parts_of(table, settings, 0), table.texts or ()

    def nll(which):
        named = set(table.used_items(part == which).tolist())
        texts = tuple(t + " extra words" if i in named else t for i, t in enumerate(all_texts))
        return evaluate_honestly(replace(table, texts=texts), settings).choices.validation_nll

    untouched = evaluate_honestly(table, settings).choices.validation_nll
    np.testing.assert_array_equal(nll(honest_splits.TEST), untouched)
    assert not np.allclose(nll(honest_splits.TRAIN), untouched)


# ---------------------------------------------------------------- numbers


def reference_scores(table, part, user, ridge):
    """Scores of `full` for one user by scikit-learn, with scales from the training rows."""
    x = table.differences[:, :, 0]
    x = x / np.sqrt(np.mean(x[part == 0] ** 2, axis=0))
    mine = table.user_ids == user
    fit_on, test = mine & (part != 2), mine & (part == 2)
    model = LogisticRegression(C=1 / ridge, fit_intercept=False, tol=1e-10, max_iter=1000)
    z = model.fit(x[fit_on], table.choice[fit_on]).decision_function(x[test])
    y = table.choice[test]
    return np.mean((z > 0) == (y == 1)), np.mean(np.logaddexp(0, np.where(y == 1, -z, z)))


def test_full_is_logistic_regression_on_training_and_validation(table, evaluation):
    rows = evaluation.per_user.query("estimator == 'full'")
    assert len(rows) == SMALL.n_splits * N_USERS
    chosen = evaluation.choices.query("chosen and estimator == 'full'").set_index("split").ridge
    parts = [parts_of(table, SMALL, split) for split in range(SMALL.n_splits)]
    for row in rows.itertuples():
        expected = reference_scores(table, parts[row.split], row.user_id, chosen[row.split])
        # scikit-learn stops at 1e-10 of the gradient, the fit at 1e-8 of the mean loss's
        np.testing.assert_allclose((row.accuracy, row.nll), expected, atol=1e-6)
    one = rows.iloc[0]
    wrong = reference_scores(table, parts[0], one.user_id, 11.0 - chosen[0])  # the other ridge
    assert abs(wrong[1] - one.nll) > 1e-3


def test_the_choice_minimises_the_mean_over_users_on_validation(evaluation):
    for _, grid in evaluation.choices.groupby(["split", "estimator"]):
        assert grid.chosen.sum() == 1
        assert grid.validation_nll[grid.chosen].item() == grid.validation_nll.min()
    assert set(evaluation.choices.final_status) == {"CONVERGED"}


def test_sharing_helps_where_users_share_a_space():
    # 8 users, 2 directions out of 6: full has 48 parameters, share_b 2 (8 + 6 - 2) = 24
    found = evaluate_honestly(numeric_table(seed=3), replace(SMALL, n_splits=4))
    nll = honest_report.summarise(found).set_index("estimator").nll
    assert nll["share_b"] < nll["full"]
    assert nll["share_b"] < nll["global"]


def test_local_is_full_at_d2_1_and_is_not_fitted_twice(evaluation):
    assert evaluation.same_as == {"local": "full"}
    columns = ["split", "user_id", "accuracy", "nll"]
    local, full = (
        evaluation.per_user.query(f"estimator == '{n}'")[columns] for n in ("local", "full")
    )
    np.testing.assert_array_equal(local.to_numpy(), full.to_numpy())
    assert any(note.startswith("local is full") for note in evaluation.notes)
    assert any(note.startswith("oracle is left out") for note in evaluation.notes)
    assert "oracle" not in set(evaluation.per_user.estimator)


def test_local_is_another_estimator_when_d2_exceeds_the_rank():
    settings = replace(SMALL, n_splits=1, ranks=(1, 5), ridges=(1.0,), estimators=("local", "full"))
    found = evaluate_honestly(numeric_table(d2=2), settings)
    assert found.same_as == {}
    assert found.choices.query("estimator == 'local'")["rank"].tolist() == [1]  # 5 > min(d1, d2)
    nll = found.per_user.groupby("estimator").nll.mean()
    assert abs(nll["local"] - nll["full"]) > 1e-3


def test_deviations_from_a_global_base_vanish_under_a_huge_ridge(table):
    settings = replace(SMALL, n_splits=1, base="global", ridges=(1.0, 1e9))
    found = evaluate_honestly(table, settings).choices.set_index(["estimator", "ridge"])
    base = found.validation_nll["global"].min()
    # deviations of size 1/ridge
    for name in ("share_b", "full"):
        assert found.validation_nll[name, 1e9] == pytest.approx(base, abs=1e-6)
        assert found.validation_nll[name, 1.0] < base - 1e-3


def test_final_fits_deviate_from_the_final_base():
    # users who agree: validation prefers no deviation, and then the scores are those of global
    table = numeric_table()
    x = np.asarray(table.differences)
    z = x[:, 0, 0] - 0.02 * x[:, 1, 0]
    noise = np.random.default_rng(5).logistic(size=table.n_pairs)
    agreed = replace(table, choice=(z + noise > 0).astype(float))
    settings = replace(SMALL, n_splits=1, base="global", estimators=("full",), ridges=(1.0, 1e9))
    found = evaluate_honestly(agreed, settings)
    assert found.choices.query("chosen and estimator == 'full'").ridge.item() == 1e9
    full, pooled = (found.per_user.query(f"estimator == '{n}'").nll for n in ("full", "global"))
    np.testing.assert_allclose(full, pooled, atol=1e-6)  # deviations of size 1/ridge


# ---------------------------------------------------------------- users


def test_users_with_too_few_pairs_are_counted_and_left_out(table):
    part = parts_of(table, SMALL, 0)
    user = table.user_ids
    nth = np.zeros(table.n_pairs, int)  # running number within (user, part)
    for p in range(3):
        for name in np.unique(user):
            mine = (part == p) & (user == name)
            nth[mine] = np.arange(mine.sum())
    weights = np.ones(table.n_pairs)
    weights[(user == "u0") & (part == 0) & (nth >= 9)] = 0  # nine training pairs of some weight
    weights[(user == "u1") & (part == 2) & (nth >= 4)] = 0  # four test pairs
    weights[(user == "u2") & (part == 0) & (nth >= 10)] = 0  # just enough
    found = evaluate_honestly(
        replace(table, weights=weights), replace(SMALL, n_splits=1, estimators=("global",))
    )
    assert set(found.per_user.user_id) == set(np.unique(user)) - {"u0", "u1"}
    size = found.splits.iloc[0]
    assert (size.users_fitted, size.users_scored, size.users_not_scored) == (7, 6, 2)
    assert found.per_user.set_index("user_id").n_fitted["u2"] == 10 + sum(
        (user == "u2") & (part == 1)
    )
    assert any("2 to 2 of 8 users are not scored" in note for note in found.notes)


def test_too_few_users_to_compare_are_refused(table):
    with pytest.raises(InputError, match="only 0 of 8 users have 500 training and 5 validation"):
        evaluate_honestly(table, replace(SMALL, min_train=500))
    one = table.select(table.user_ids == "u0")
    with pytest.raises(InputError, match="only 1 of 1 users"):
        evaluate_honestly(one, replace(SMALL, min_test=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimators": ("share_c",)}, "unknown estimator 'share_c'.*did you mean 'share_b'"),
        ({"base": "zero"}, "unknown base 'zero'"),
        ({"ridges": ()}, "ridges is empty"),
        ({"ranks": ()}, "ranks is empty"),
        ({"n_splits": 0}, "n_splits = 0 must be at least 1"),
        ({"fractions": (0.5, 0.5, 0.5)}, "must be positive and add up to 1"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        HonestSettings(**change)


# ---------------------------------------------------------------- report


def test_summary_pairs_users_after_averaging_their_splits():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            {"split": s, "estimator": e, "user_id": f"u{i}", "n_fitted": 9, "n_test": 9,
             "accuracy": rng.random(), "nll": rng.random()}
            for s in range(3) for e in ("global", "share_b") for i in range(5)
            if not (s == 1 and i == 4)  # a user who is not scored in one split
        ]
    )  # fmt: skip
    made = honest.HonestEvaluation(
        per_user=frame, choices=frame, splits=frame, same_as={}, notes=(), settings=SMALL
    )
    row = honest_report.summarise(made).set_index("estimator").loc["share_b"]
    value = frame.set_index(["estimator", "user_id", "split"]).accuracy
    gains = []
    for i in range(5):
        scored = [s for s in range(3) if not (s == 1 and i == 4)]
        both = [(value["share_b", f"u{i}", s], value["global", f"u{i}", s]) for s in scored]
        gains.append(np.mean([a - b for a, b in both]))
    assert row.accuracy_difference == pytest.approx(np.mean(gains), abs=1e-14)
    error = np.std(gains, ddof=1) / np.sqrt(5)
    assert row.accuracy_difference_se == pytest.approx(error, abs=1e-14)
    by_user = value.groupby(["estimator", "user_id"]).mean()
    unpaired = np.hypot(*(by_user[e].std() / np.sqrt(5) for e in ("share_b", "global")))
    assert abs(unpaired - error) > 1e-3
    by_split = value["share_b"].groupby("split").mean()
    assert row.accuracy_split_sd == pytest.approx(by_split.std(), abs=1e-14)


def test_the_kept_model_is_fitted_to_everything_at_the_best_setting(table, evaluation):
    model, scales = honest.fit_chosen(table, evaluation, "share_b")
    assert model.n_users == N_USERS
    mean = evaluation.choices.query("estimator == 'share_b'").groupby("ridge").validation_nll.mean()
    assert model.ridge == mean.idxmin()
    np.testing.assert_allclose(
        np.asarray(scales), np.sqrt(np.mean(np.asarray(table.differences) ** 2, axis=0))
    )
    local, _ = honest.fit_chosen(table, evaluation, "local")
    assert local.estimator == "full"


def test_a_run_is_written_and_read_back(table, evaluation, tmp_path):
    model, scales = honest.fit_chosen(table, evaluation, "share_b")
    written = honest_report.write(
        evaluation, tmp_path / "run", data="toy data", model=model, features=scales
    )
    names = {path.name for path in written}
    assert names >= {"per_user.parquet", "summary.csv", "choices.csv", "splits.csv", "summary.md"}
    assert names >= {"model.npz", "features.npz", "settings.json", "accuracy_per_user.png"}
    assert all(path.stat().st_size > 0 for path in written)
    np.testing.assert_array_equal(load_fit(tmp_path / "run/model.npz").delta, model.delta)
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "run/per_user.parquet"), evaluation.per_user, check_dtype=False
    )
    page = (tmp_path / "run/summary.md").read_text()
    assert "toy data" in page
    assert "local is full on these data" in page
    for note in evaluation.notes:
        assert note in page


def test_the_saved_features_are_those_the_saved_model_reads(tmp_path):
    table = text_table()
    settings = replace(SMALL, n_splits=1, dimensions=2, estimators=("global",))
    found = evaluate_honestly(table, settings)
    model, features = honest.fit_chosen(table, found, "global")
    honest_report.write(found, tmp_path, data="texts", model=model, features=features)
    items = text.transform(text.load(tmp_path / "features.npz"), table.texts or ())
    scores = load_fit(tmp_path / "model.npz").evaluate(table.to_preferences(item_features=items))
    mean = np.average(scores.neg_log_likelihood, weights=scores.n_pairs)
    assert mean == pytest.approx(model.neg_log_likelihood, abs=1e-12)


def test_regression_has_losses_but_no_accuracy(tmp_path):
    table = numeric_table()
    real = replace(table, choice=table.choice + 3.0, link="identity")
    found = evaluate_honestly(real, replace(SMALL, n_splits=1, estimators=()))
    summary = honest_report.summarise(found)
    assert summary.accuracy.isna().all()
    assert np.isfinite(summary[["nll", "nll_difference_se"]]).all(axis=None)
    written = honest_report.write(found, tmp_path, data="real responses")
    assert not [path for path in written if path.suffix == ".png"]
    assert "choices right" not in (tmp_path / "summary.md").read_text()
    with pytest.raises(InputError, match="regression, which has no accuracy"):
        figures.draw_figure("accuracy_per_user", tmp_path, tmp_path)


@pytest.mark.parametrize("names", [("share_b", "full"), ("share_b", "full", "local")])
def test_the_figure_shows_every_user_under_every_estimator(
    names, evaluation, tmp_path, monkeypatch
):
    rows = evaluation.per_user
    rows = rows[rows.estimator.isin({"global", *names})]
    same_as = {name: twin for name, twin in evaluation.same_as.items() if name in names}
    honest_report.write(replace(evaluation, per_user=rows, same_as=same_as), tmp_path, data="toy")
    monkeypatch.setattr(plt, "close", lambda figure: None)
    figures.draw_figure("accuracy_per_user", tmp_path, tmp_path)
    figure = plt.gcf()
    monkeypatch.undo()
    drawn = {str(line.get_label()): np.asarray(line.get_ydata()) for line in figure.axes[0].lines}
    plt.close(figure)
    for name in ("global", "share_b", "full"):
        mean = rows[rows.estimator == name].groupby("user_id").accuracy.mean()
        np.testing.assert_allclose(np.sort(drawn[name]), np.sort(100 * mean))
    assert "local" not in drawn  # the same as full here: the caption says so


def test_the_figure_names_what_it_misses(tmp_path):
    with pytest.raises(InputError, match=r"holds no per_user\.parquet; run: simrlhf fit DATA"):
        figures.draw_figure("accuracy_per_user", tmp_path, tmp_path)


def test_progress_rises_to_its_end(table):
    seen = []
    settings = replace(SMALL, n_splits=2, estimators=("global", "full"), ridges=(1.0,))
    evaluate_honestly(table, settings, progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == [0, 1, 2, 3, 4]
    assert {total for _, total, _ in seen} == {4}
    assert seen[0][2] == "split 1 of 2: global"
