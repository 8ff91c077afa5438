"""Separation: every kind is recognised, as many linear programs would, and whatever the scale."""

from itertools import product

import numpy as np
import pytest
import scipy.optimize
from scipy.special import expit

from simrlhf.data import separation
from simrlhf.data.separation import COMPLETE, NOT_EXAMINED, OVERLAP, QUASI, find_separation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def examine(x, labels):
    return find_separation(separation.row_space(np.asarray(x, float)), np.asarray(labels, float))


def by_one_program_for_each_label(x, labels):
    """Labels that some recession direction gets strictly right: theta in a box, one at a time."""
    hard = np.isin(labels, (0, 1))
    sided = x[hard] * np.where(labels[hard] == 1, 1, -1)[:, None]
    counted = 0
    for row in sided:
        found = scipy.optimize.linprog(
            -row, A_ub=-sided, b_ub=np.zeros(len(sided)),
            A_eq=x[~hard] if (~hard).any() else None,
            b_eq=np.zeros((~hard).sum()) if (~hard).any() else None, bounds=(-1, 1),
        )  # fmt: skip
        counted += -found.fun > 1e-7
    moved = (x != 0).any(axis=1)
    kind = QUASI if counted else OVERLAP
    return COMPLETE if counted == moved.sum() and counted else kind, counted


def small_data(rng, *, soft):
    """Whole numbers, so that ties in a direction are exact and all three kinds occur."""
    n, d = rng.integers(3, 14), rng.integers(1, 5)
    x = rng.integers(-2, 3, (n, d)).astype(float)
    labels = (x @ rng.normal(size=d) + 0.7 * rng.normal(size=n) > 0).astype(float)
    if soft:
        labels[rng.random(n) < 0.15] = rng.choice([0.5, 0.9])
    return x, labels


@pytest.mark.parametrize("soft", [False, True])
def test_kind_and_count_are_those_of_one_linear_program_for_each_label(rng, soft):
    kinds = []
    for _ in range(80):
        x, labels = small_data(rng, soft=soft)
        found = examine(x, labels)
        assert tuple(found) == by_one_program_for_each_label(x, labels)
        kinds.append(found.kind)
    assert min(kinds.count(kind) for kind in (COMPLETE, QUASI, OVERLAP)) >= 8


def test_newtons_proofs_and_the_linear_program_agree(rng, monkeypatch):
    data = [small_data(rng, soft=True) for _ in range(60)]
    proved = [examine(*d) for d in data]
    monkeypatch.setattr(
        separation, "_prove", lambda sided: (NOT_EXAMINED, np.full(len(sided), 0.5))
    )
    assert [examine(*d) for d in data] == proved


def test_constructed_data_have_the_kind_they_were_built_for(rng):
    x = rng.normal(size=(60, 4))
    theta = np.array([1.0, -2.0, 0.5, 0.0])
    sorted_labels = (x @ theta > 0).astype(float)
    assert examine(x, sorted_labels) == (COMPLETE, 60)
    # a feature that only five rows have, and always on the side of their label
    rare = np.column_stack([x, np.zeros(60)])
    rare[:5, 4] = np.where(sorted_labels[:5] == 1, 1, -1)
    noisy = sorted_labels.copy()
    noisy[5:20] = 1 - noisy[5:20]
    assert examine(rare, noisy) == (QUASI, 5)
    # controls: one of the five on the other side; the same rows without the feature
    rare[0, 4] *= -1
    assert examine(rare, noisy).kind == OVERLAP
    assert examine(x, noisy) == (OVERLAP, 0)


def test_a_row_asked_twice_with_both_answers_overlaps_and_one_soft_label_is_not_complete(rng):
    x = rng.normal(size=(10, 20))  # fewer rows than features: any hard labels separate
    labels = rng.integers(0, 2, 10).astype(float)
    assert examine(x, labels) == (COMPLETE, 10)
    both = examine(np.vstack([x, x[:1]]), [*labels, 1 - labels[0]])
    assert both == (QUASI, 9)
    labels[3] = 0.9
    assert examine(x, labels) == (QUASI, 9)
    assert examine(x, np.full(10, 0.7)) == (OVERLAP, 0)


def test_separation_means_a_likelihood_without_maximum(rng):
    # a ridge a thousand times smaller lets the fit grow where it has no maximum, and only there
    for _ in range(30):
        x, labels = small_data(rng, soft=False)
        side = np.where(labels == 1, 1, -1)

        def loss(theta, ridge, x=x, side=side):
            z = side * (x @ theta)
            slope = -(side / (1 + np.exp(z))) @ x
            return np.logaddexp(0, -z).sum() + ridge / 2 * theta @ theta, slope + ridge * theta

        sizes = [
            np.linalg.norm(
                scipy.optimize.minimize(
                    loss, np.zeros(x.shape[1]), ridge, jac=True, options={"gtol": 1e-9}
                ).x
            )
            for ridge in (1e-3, 1e-6)
        ]
        assert (sizes[1] > 1.2 * sizes[0]) == (examine(x, labels).kind != OVERLAP)


def test_kind_survives_scaling_rotation_and_redundant_features(rng):
    for _ in range(30):
        x, labels = small_data(rng, soft=True)
        d = x.shape[1]
        mixed = x @ rng.normal(size=(d, d + 2)) * 1e6
        flip = rng.choice([-1, 1], len(x))
        turned = np.where(flip > 0, labels, 1 - labels)
        expected = examine(x, labels)
        assert examine(mixed, labels) == expected
        assert examine(x * flip[:, None], turned) == expected
    # control: turning a label alone is another problem
    x = np.eye(3)[[0, 0, 1]]
    assert examine(x, [1, 1, 0]).kind != examine(x, [1, 0, 0]).kind


def test_rows_of_rounding_size_take_no_part():
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1e-20], [0.0, 0.0]])
    space = separation.row_space(x)
    assert space.rank == 1
    np.testing.assert_array_equal(space.empty, [False, False, True, True])
    assert find_separation(space, np.array([1.0, 1.0, 0.0, 0.0])) == (COMPLETE, 2)
    assert find_separation(space, np.array([1.0, 0.0, 0.0, 0.0])) == (OVERLAP, 0)


def test_rank_and_condition_number_are_those_of_the_features(rng):
    x = rng.normal(size=(30, 6)) @ np.diag([1, 2, 3, 4, 5, 0])
    space = separation.row_space(x)
    values = np.linalg.svd(x[:, :5], compute_uv=False)
    assert space.rank == np.linalg.matrix_rank(x) == 5
    assert space.condition == pytest.approx(values[0] / values[-1])
    assert np.isnan(separation.row_space(np.zeros((3, 2))).condition)


def test_a_large_quasi_separated_table_needs_no_linear_program(rng, monkeypatch):
    monkeypatch.setattr(separation, "_LARGEST_PROGRAM", 0)
    x = rng.normal(size=(4000, 10))
    labels = (rng.random(4000) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    x[:, 9] = 0
    x[:7, 9] = np.where(labels[:7] == 1, rng.random(7), -rng.random(7))
    assert examine(x, labels) == (QUASI, 7)


def test_large_rewards_are_no_separation_and_need_no_linear_program(rng, monkeypatch):
    monkeypatch.setattr(separation, "_LARGEST_PROGRAM", 0)
    x = rng.normal(size=(3000, 8))
    reward = x @ rng.normal(size=8) * 8
    labels = (rng.random(3000) < expit(reward)).astype(float)
    against = labels != (reward > 0)
    assert np.abs(reward).max() > 23
    assert against.sum() > 20
    assert examine(x, labels) == (OVERLAP, 0)
    # control: the same rewards without an answer against their sign
    assert examine(x, labels != against) == (COMPLETE, 3000)


def test_the_program_decides_alike_for_rows_of_any_length(rng, monkeypatch):
    data = [small_data(rng, soft=False) for _ in range(60)]
    expected = [examine(*d) for d in data]
    monkeypatch.setattr(
        separation, "_prove", lambda sided: (NOT_EXAMINED, np.full(len(sided), 0.5))
    )
    stretched = [x * 10.0 ** rng.uniform(-5, 5, (len(x), 1)) for x, _ in data]
    found = [examine(x, labels) for x, (_, labels) in zip(stretched, data, strict=True)]
    assert found == expected


def test_a_wrong_guess_of_the_separated_labels_changes_nothing(monkeypatch):
    prove = separation._prove
    # two features that separate a label each, and two that are asked twice, with both answers
    x, labels = np.eye(4)[[0, 1, 2, 2, 3, 3]], np.array([1, 1, 1, 0, 1, 0])
    for guess in product([0.0, 1.0], repeat=6):
        answers = iter([(NOT_EXAMINED, np.array(guess))])
        monkeypatch.setattr(separation, "_prove", lambda s, a=answers: next(a, None) or prove(s))
        assert examine(x, labels) == (QUASI, 2)


def test_what_no_proof_decides_within_the_limit_is_not_examined(monkeypatch):
    monkeypatch.setattr(separation, "_LARGEST_PROGRAM", 0)
    monkeypatch.setattr(separation, "_NEWTON_STEPS", 0)
    assert examine([[1.0], [2.0]], [1, 1]) == (NOT_EXAMINED, 0)


def test_a_program_that_does_not_finish_decides_nothing(monkeypatch):
    monkeypatch.setattr(separation, "_NEWTON_STEPS", 0)
    assert examine([[1.0], [2.0]], [1, 1]) == (COMPLETE, 2)
    unfinished = scipy.optimize.OptimizeResult(status=1, fun=-2.0)
    monkeypatch.setattr(scipy.optimize, "linprog", lambda *a, **k: unfinished)
    assert examine([[1.0], [2.0]], [1, 1]) == (NOT_EXAMINED, 0)
