"""Subspace distances: Definition A.1, its variants, and angles too small for cosines."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg

from simrlhf.core import checks, subspaces

SHAPES = [(6, 1), (6, 2), (7, 3), (5, 4), (5, 5), (40, 8)]


def random_basis(rng: np.random.Generator, d: int, k: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(d, k)))[0]


def pair_with_angles(rng: np.random.Generator, d: int, angles: np.ndarray):
    """Two bases of `R^d` whose principal angles are `angles`, in general position."""
    k = angles.size
    frame = random_basis(rng, d, d)
    first, outside = frame[:, :k], frame[:, k : 2 * k]
    second = first * np.cos(angles) + outside * np.sin(angles)
    return first @ random_basis(rng, k, k), second @ random_basis(rng, k, k)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_angles_equal_scipys(rng, d, k):
    b1, b2 = random_basis(rng, d, k), random_basis(rng, d, k)
    expected = np.sort(scipy.linalg.subspace_angles(b1, b2))
    # two independent SVD routes: each is right to a few hundred roundings
    np.testing.assert_allclose(subspaces.principal_angles(b1, b2), expected, rtol=0, atol=1e-13)


def test_angles_of_1e_8_are_right_where_cosines_are_blind(rng):
    angles = np.array([1e-12, 1e-8, 3e-8, 0.5])
    b1, b2 = pair_with_angles(rng, 12, angles)
    # the bases carry rounding of 1e-16 per entry, so angles are known to some 1e-15
    np.testing.assert_allclose(subspaces.principal_angles(b1, b2), angles, rtol=0, atol=3e-15)
    cosines = np.clip(np.linalg.svd(b1.T @ b2, compute_uv=False), -1.0, 1.0)
    wrong = np.sort(np.arccos(cosines))
    assert np.abs(wrong - angles).max() > 1e-9  # the cosine formula: off by a tenth or more at 1e-8


def test_right_angles_are_right_as_well(rng):
    angles = np.array([0.3, np.pi / 2 - 1e-9, np.pi / 2])
    b1, b2 = pair_with_angles(rng, 9, angles)
    np.testing.assert_allclose(subspaces.principal_angles(b1, b2), angles, rtol=0, atol=3e-15)
    sines = np.linalg.svd(b2 - b1 @ (b1.T @ b2), compute_uv=False)
    wrong = np.sort(np.arcsin(np.clip(sines, 0.0, 1.0)))
    assert np.abs(wrong - angles).max() > 1e-10  # the sine alone: blind at the other end


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_the_distance_is_definition_a1_in_both_its_forms(rng, d, k):
    b1, b2 = random_basis(rng, d, k), random_basis(rng, d, k)
    distance = subspaces.subspace_distance(b1, b2)
    projections = np.linalg.norm(b1 @ b1.T - b2 @ b2.T) / np.sqrt(2.0)
    outside = np.linalg.norm(b1.T @ subspaces.orthonormal_complement(b2))
    assert distance == pytest.approx(projections, abs=1e-14)  # rounding of d^2 entries
    assert distance == pytest.approx(outside, abs=1e-14)
    if k < d:  # without the root of two the projections give another number
        assert abs(distance - np.linalg.norm(b1 @ b1.T - b2 @ b2.T)) > 0.1 * distance


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_the_range_is_from_zero_to_the_root_of_min_k_and_d_minus_k(rng, d, k):
    frame = random_basis(rng, d, d)
    furthest = subspaces.subspace_distance(frame[:, :k], frame[:, d - k :])
    assert furthest == pytest.approx(np.sqrt(min(k, d - k)), abs=1e-14)
    assert subspaces.subspace_distance(frame[:, :k], frame[:, :k]) < 1e-15


@pytest.mark.parametrize("kind", subspaces.KINDS)
def test_a_distance_is_invariant_to_rotation_of_the_basis_and_of_the_space(rng, kind):
    b1, b2 = random_basis(rng, 9, 3), random_basis(rng, 9, 3)
    expected = subspaces.subspace_distance(b1, b2, kind)
    turned = subspaces.subspace_distance(
        b1 @ random_basis(rng, 3, 3), b2 @ random_basis(rng, 3, 3), kind
    )
    space = random_basis(rng, 9, 9)
    moved = subspaces.subspace_distance(space @ b1, space @ b2, kind)
    assert turned == pytest.approx(expected, abs=1e-14)
    assert moved == pytest.approx(expected, abs=1e-14)
    # a distance of bases, not of spaces, fails this test
    assert abs(np.linalg.norm(b1 @ random_basis(rng, 3, 3) - b2) - np.linalg.norm(b1 - b2)) > 1e-3


@pytest.mark.parametrize("kind", subspaces.KINDS)
def test_a_distance_is_a_metric(rng, kind):
    bases = [random_basis(rng, 8, 3) for _ in range(6)]
    distance = {
        (i, j): subspaces.subspace_distance(bases[i], bases[j], kind)
        for i, j in itertools.product(range(6), repeat=2)
    }
    for i, j, m in itertools.product(range(6), repeat=3):
        assert distance[i, j] == pytest.approx(distance[j, i], abs=1e-14)
        assert distance[i, m] <= distance[i, j] + distance[j, m] + 1e-14


def test_each_kind_is_its_function_of_the_angles(rng):
    angles = np.array([1e-9, 0.2, 1.1])
    b1, b2 = pair_with_angles(rng, 10, angles)
    expected = {
        "frobenius": np.sqrt((np.sin(angles) ** 2).sum()),
        "spectral": np.sin(1.1),
        "procrustes": np.sqrt((4 * np.sin(angles / 2) ** 2).sum()),
        "geodesic": np.sqrt((angles**2).sum()),
    }
    assert set(expected) == set(subspaces.KINDS)
    for kind, value in expected.items():
        assert subspaces.subspace_distance(b1, b2, kind) == pytest.approx(value, abs=1e-14)


def test_procrustes_is_the_smallest_distance_over_rotations(rng):
    b1, b2 = random_basis(rng, 7, 3), random_basis(rng, 7, 3)
    best = scipy.linalg.orthogonal_procrustes(b2, b1)[0]
    smallest = np.linalg.norm(b1 - b2 @ best)
    assert subspaces.subspace_distance(b1, b2, "procrustes") == pytest.approx(smallest, abs=1e-14)
    others = [np.linalg.norm(b1 - b2 @ random_basis(rng, 3, 3)) for _ in range(200)]
    assert min(others) > smallest


def test_procrustes_lies_between_the_distance_and_root_two_times_it(rng):
    for _ in range(50):
        b1, b2 = random_basis(rng, 8, 3), random_basis(rng, 8, 3)
        chordal = subspaces.subspace_distance(b1, b2)
        procrustes = subspaces.subspace_distance(b1, b2, "procrustes")
        assert chordal <= procrustes + 1e-14  # audit A5
        assert procrustes <= np.sqrt(2.0) * chordal + 1e-14


def test_a_basis_with_the_rounding_of_float32_is_at_distance_zero_from_itself(rng):
    single = random_basis(rng, 30, 5).astype(np.float32)
    # single's columns are orthonormal to 1e-7 only; one projection would leave a distance of 1e-7
    assert subspaces.subspace_distance(single, single) < 1e-12
    double = single.astype(np.float64)
    assert np.linalg.norm(double - double @ (double.T @ double)) > 1e-9


@pytest.mark.parametrize(
    ("b1", "b2", "message"),
    [
        (np.ones((4, 2)), np.eye(4)[:, :2], r"columns of b1 are not orthonormal.*np\.linalg\.qr"),
        (np.eye(4)[:, :2], 1.001 * np.eye(4)[:, :2], r"columns of b2 .*0\.002.*limit 1e-06"),
        (np.eye(4)[:, :2], np.eye(4)[:, :3], r"b1 \(4, 2\) and b2 \(4, 3\)"),
        (np.eye(4)[:, :2], np.eye(5)[:, :2], r"b1 \(4, 2\) and b2 \(5, 2\)"),
        (np.eye(4)[:, 0], np.eye(4)[:, :2], r"b1 must be a \(d, k\) matrix"),
        (np.eye(4)[:, :2], np.full((4, 2), np.nan), r"b2 holds 8 values that are not finite"),
        (np.ones((2, 4)), np.ones((2, 4)), r"not orthonormal"),
    ],
)
def test_bad_bases_are_refused_with_the_reason(b1, b2, message):
    for measure in (subspaces.principal_angles, subspaces.subspace_distance):
        with pytest.raises(checks.InputError, match=message):
            measure(b1, b2)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(checks.InputError, match=r"'spectral_norm'.*frobenius.*geodesic"):
        subspaces.subspace_distance(np.eye(3), np.eye(3), "spectral_norm")


def test_the_top_space_is_the_span_of_the_largest_singular_directions(rng):
    left, right = random_basis(rng, 6, 4), random_basis(rng, 15, 4)
    matrix = left * [4.0, 3.0, 0.2, 0.1] @ right.T
    found = subspaces.top_left_space(matrix, 2)
    assert subspaces.subspace_distance(found, left[:, :2]) < 1e-14
    assert subspaces.subspace_distance(found, left[:, 2:]) > 1
    with pytest.raises(checks.InputError, match="rank = 7 must be at most 6"):
        subspaces.top_left_space(matrix, 7)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1)])
def test_the_aggregate_puts_the_users_side_by_side_and_folds_back(rng, shape):
    delta = rng.normal(size=shape)
    aggregate = subspaces.unfold(delta)
    np.testing.assert_array_equal(aggregate, np.hstack(list(delta)))
    np.testing.assert_array_equal(subspaces.fold(aggregate, shape[0]), delta)


@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_a_basis_and_its_complement_make_up_the_space(rng, d, k):
    basis = random_basis(rng, d, k)
    whole = np.hstack([basis, subspaces.orthonormal_complement(basis)])
    np.testing.assert_allclose(whole.T @ whole, np.eye(d), rtol=0, atol=1e-14)
