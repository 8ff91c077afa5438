"""Covers and brackets: by hand, against covers that are really built, and against volumes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from simrlhf import theory
from simrlhf.core import checks, links

SIZES = {"n_users": 5, "d1": 6, "d2": 3, "rank": 2}
BALL = {"norm_bound": 2.0, "resolution": 0.1}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def draw_members(rng, count: int, n_users: int, d2: int, radius: float) -> np.ndarray:
    """Members near the edge of the ball, where a cover is tried hardest."""
    angles = rng.uniform(0.0, 2.0 * math.pi, count)
    heads = rng.normal(size=(count, n_users, d2))
    heads *= (
        radius
        * rng.uniform(0.4, 1.0, (count, n_users, 1))
        / np.linalg.norm(heads, axis=-1, keepdims=True)
    )
    return np.einsum("tp,tnq->tnpq", np.stack([np.cos(angles), np.sin(angles)], axis=1), heads)


def draw_probes(rng, count: int, d2: int, length: float) -> np.ndarray:
    probes = rng.normal(size=(count, 2, d2))
    return length * probes / np.linalg.norm(probes, axis=(1, 2), keepdims=True)


def test_cover_numbers_equal_a_hand_calculation():
    for model_class, dimension, factor in (
        ("share_b", 2 * (6 + 15), 81.0),
        ("full", 90, 41.0),
        ("local", 5 * 2 * 9, 81.0),
    ):
        bound = theory.log_cover_number(model_class, **SIZES, **BALL)
        assert bound.terms["dimension"] == dimension
        assert bound.value == pytest.approx(dimension * math.log(factor), rel=1e-14)


def test_park_is_share_b_for_vectors():
    vectors = SIZES | {"d2": 1}
    park = theory.log_cover_number("park", **vectors, **BALL)
    assert park.value == theory.log_cover_number("share_b", **vectors, **BALL).value
    assert park.terms["dimension"] == 2 * (6 + 5)
    printed = theory.log_bracketing_number(**vectors, n_pairs=9, delta=0.1, model_class="park")
    assert printed.terms["dimension"] == 2 * (6 + 5)
    with pytest.raises(checks.InputError, match="d2 = 3 must be at most 1"):
        theory.log_cover_number("park", **SIZES, **BALL)


def test_a_disc_needs_seven_half_discs_and_the_bound_allows_them():
    sizes = {"n_users": 1, "d1": 2, "d2": 1, "rank": 1}
    bound = theory.log_cover_number("full", **sizes, norm_bound=1.0, resolution=0.5)
    assert math.exp(bound.value) >= 7.0
    # the rival counts volumes only: four half discs have the disc's area and do not cover it
    assert math.exp(2 * math.log(1.0 / 0.5)) < 7.0


def test_the_two_halves_of_a_product_add_up_to_the_resolution(rng):
    """B within rho / (2 R) and W within rho / 2: B W within rho, and more than that is not so."""
    radius, rho, worst = 2.0, 0.3, 0.0
    for _ in range(300):
        basis = np.linalg.qr(rng.normal(size=(4, 2)))[0]
        head = np.outer(rng.normal(size=2), rng.normal(size=3))
        head *= radius / np.linalg.norm(head)
        # shorter by a factor, in both: the errors point the same way
        near = basis * (1.0 - rho / (2 * radius) * rng.random())
        other = head * (1.0 - rho / (2 * radius) * rng.random())
        distance = np.linalg.norm(basis @ head - near @ other)
        assert distance <= rho
        worst = max(worst, distance / rho)
    assert worst > 0.8  # the halves do add up: their larger one alone, 1 / 2, is no bound


def test_the_bracketing_bound_is_the_cover_at_the_resolution_of_a_bracket():
    given = SIZES | {"norm_bound": 2.0, "feature_norm": 3.0, "lipschitz_mean": 0.25}
    bound = theory.log_bracketing_bound(**given, n_pairs=20)
    rho = (1 / 100) / (4 * 5 * 0.25 * 3.0)
    cover = theory.log_cover_number(**SIZES, norm_bound=2.0, resolution=rho)
    assert bound.terms["resolution"] == pytest.approx(rho, rel=1e-14)
    assert bound.value == pytest.approx(cover.value, rel=1e-14)
    assert bound.value == pytest.approx(
        42 * math.log(1 + 16 * 5**2 * 20 * 0.25 * 3.0 * 2.0), rel=1e-14
    )
    # log(1 / delta) is added once, where the printed form multiplies it by the dimension
    both = theory.log_bracketing_bound(**given, n_pairs=20, delta=0.01)
    assert both.value - bound.value == pytest.approx(math.log(100.0), rel=1e-12)


def test_the_explicit_bound_does_not_depend_on_the_unit_of_features():
    def value(scale: float) -> float:
        return theory.log_bracketing_bound(
            **SIZES, n_pairs=20, norm_bound=2.0 / scale, feature_norm=scale, lipschitz_mean=0.25
        ).value

    assert value(0.01) == pytest.approx(value(100.0), rel=1e-13)


@pytest.mark.parametrize(
    ("name", "n_users", "d2", "size"),
    [
        ("probit", 1, 1, 0.15),
        ("logistic", 2, 1, 0.5),
        ("laplace", 1, 2, 1.0),
        ("label_flip", 1, 1, 0.2),
    ],
)
def test_brackets_hold_every_member_and_half_as_wide_ones_do_not(rng, name, n_users, d2, size):
    found = theory.construct_brackets(
        links.get_link(name), n_users=n_users, d2=d2, norm_bound=1.5, feature_norm=0.8, size=size
    )
    members = draw_members(rng, 250, n_users, d2, 1.5)
    probes = np.concatenate([draw_probes(rng, 20, d2, 0.8), draw_probes(rng, 4, d2, 0.3)])
    lower, upper = theory.bracket_ends(found, probes)
    np.testing.assert_allclose((upper - lower).sum(axis=(1, 3)), size, rtol=1e-12)
    assert math.log(len(found.members)) <= found.log_count_bound
    assert np.linalg.norm(found.members, axis=(2, 3)).max() <= 1.5 * (1 + 1e-12)
    assert theory.brackets_cover(found, members, probes).all()
    if d2 == 1:
        half = dataclasses.replace(found, half_width=found.half_width / 2)
        assert not theory.brackets_cover(half, members, probes).all()
    else:  # a disc of heads is covered with more room to spare
        third = dataclasses.replace(found, half_width=found.half_width / 3)
        assert not theory.brackets_cover(third, members, probes).all()


def test_a_bracket_is_recognised_by_probabilities_computed_apart(rng):
    found = theory.construct_brackets(
        links.PROBIT, n_users=2, d2=1, norm_bound=1.0, feature_norm=1.0, size=1.5
    )
    members, probes = draw_members(rng, 15, 2, 1, 1.0), draw_probes(rng, 8, 1, 1.0)
    narrow = dataclasses.replace(found, half_width=found.half_width / 3)

    def probabilities(member: np.ndarray) -> np.ndarray:
        return np.array([[scipy.stats.norm.cdf(np.sum(u * x)) for x in probes] for u in member])

    listed = np.stack([probabilities(member) for member in found.members])
    slow = [
        np.abs(listed - probabilities(member)).max(axis=(1, 2)).min() <= narrow.half_width
        for member in members
    ]
    answers = theory.brackets_cover(narrow, members, probes)
    assert list(answers) == slow
    assert 0 < sum(slow) < 15


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"resolution": -1.0}, "resolution"),
        ({"norm_bound": -1.0}, "norm_bound"),
        ({"rank": 0}, "rank"),
        ({"model_class": "share_a"}, "model_class"),
    ],
)
def test_bad_covers_are_refused(wrong, match):
    with pytest.raises(checks.InputError, match=match):
        theory.log_cover_number(**SIZES | BALL | wrong)


def test_no_resolution_is_vacuous():
    bound = theory.log_cover_number(**SIZES, norm_bound=1.0, resolution=0.0)
    assert bound.status is theory.BoundStatus.VACUOUS


def test_bad_brackets_are_refused(rng):
    given = {"n_users": 1, "d2": 1, "norm_bound": 1.0, "feature_norm": 1.0, "size": 0.5}
    with pytest.raises(checks.InputError, match="raise the size"):
        theory.construct_brackets(links.LOGISTIC, **given | {"size": 1e-6})
    with pytest.raises(checks.InputError, match="no probabilities"):
        theory.construct_brackets(links.IDENTITY, **given)
    with pytest.raises(checks.InputError, match="feature_norm"):
        theory.log_bracketing_bound(
            **SIZES, n_pairs=5, norm_bound=1.0, feature_norm=0.0, lipschitz_mean=0.25
        )
    found = theory.construct_brackets(links.LOGISTIC, **given)
    member, probes = draw_members(rng, 1, 1, 1, 1.0), draw_probes(rng, 4, 1, 1.0)
    with pytest.raises(checks.InputError, match="probes have norm"):
        theory.brackets_cover(found, member, 2.0 * probes)
    with pytest.raises(checks.InputError, match="thetas has shape"):
        theory.brackets_cover(found, member[0], probes)
