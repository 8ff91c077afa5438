"""S4 and S4b: every step of the proof on enumerated laws, and the bound on whole data sets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from simrlhf import theory
from simrlhf.core import checks, links

NAMES = ("logistic", "probit", "laplace", "label_flip")
GIVEN = {"log_cover": 30.0, "delta": 0.1, "xi": 1.0, "largest_information": 0.25}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(21)


def affinity(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.sqrt(p * q) + np.sqrt((1 - p) * (1 - q))


def outcomes(count: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=count)))


def log_likelihood(labels: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (labels * np.log(p) + (1 - labels) * np.log1p(-p)).sum(axis=-1)


@pytest.mark.parametrize("name", NAMES)
def test_squares_are_those_of_the_definitions(rng, name):
    link = links.get_link(name)
    a, b = rng.normal(size=(2, 200)) * 2.0
    p, q = np.asarray(link.mean(a)), np.asarray(link.mean(b))
    expected = 2.0 - 2.0 * affinity(p, q)
    np.testing.assert_allclose(theory.hellinger_squares(link, a, b), expected, atol=1e-14)
    chi = (p - q) ** 2 / q + (p - q) ** 2 / (1 - q)
    np.testing.assert_allclose(theory.chi_squares(link, a, b), chi, rtol=1e-9)
    # chi-square is not symmetric, and the halved distance is another number
    assert not np.allclose(theory.chi_squares(link, b, a), chi, rtol=1e-2)
    assert not np.allclose(theory.hellinger_squares(link, a, b), expected / 2, rtol=1e-2)


def test_close_and_extreme_rewards_keep_their_digits():
    z = np.array([-30.0, -2.0, 0.0, 2.0, 30.0])
    for step in (1e-4, 1e-9):
        small = theory.hellinger_squares(links.LOGISTIC, z, z + step)
        leading = scipy.special.expit(z) * scipy.special.expit(-z) * step**2 / 4
        np.testing.assert_allclose(small, leading, rtol=3e-4)
    p = scipy.special.expit(z[2:3])
    by_affinity = 2.0 - 2.0 * affinity(p, scipy.special.expit(z[2:3] + 1e-9))
    assert by_affinity[0] != pytest.approx(1e-18 / 16, rel=0.5, abs=0.0)
    far = np.array([-1e4, 1e4, 0.0])
    squares = theory.hellinger_squares(links.LOGISTIC, far, far[::-1])
    assert np.isfinite(squares).all()
    assert theory.hellinger_squares(links.LOGISTIC, far[:1], far[1:2]) == pytest.approx(2.0)
    assert not theory.chi_squares(links.LOGISTIC, far, far).any()
    assert theory.chi_squares(links.LOGISTIC, np.zeros(1), far[:1]) == math.inf


@pytest.mark.parametrize("name", NAMES)
def test_the_distance_lies_between_chord_and_arc(name):
    link = links.get_link(name)
    for margin in (0.2, 1.5, 5.0):
        known = theory.link_constants(link, margin=margin)
        grid = np.linspace(-margin, margin, 61)
        a, b = (side.ravel() for side in np.meshgrid(grid, grid))
        squares, gap = theory.hellinger_squares(link, a, b), (a - b) ** 2
        low = 2.0 * known.smallest_information / math.pi**2 * gap
        high = known.largest_information / 4.0 * gap
        assert (squares >= low * (1 - 1e-9)).all()
        assert (squares <= high * (1 + 1e-9)).all()
        near = gap == np.unique(gap)[1]
        if margin == 0.2:  # both sides are nearly attained: I / 4 is the local value
            assert (squares[near] / high[near]).max() > 0.99
            assert (squares[near] / low[near]).min() < 1.01 * math.pi**2 / 8
            # halving the distance, a common slip, breaks the lower side
            assert (squares[near] / 2 < low[near]).any()


def test_the_chord_is_half_of_pi_squared_quarters_at_the_end_of_the_circle():
    """The constant 8 / pi^2 of the chord is attained as the two laws become disjoint."""
    angle = np.linspace(1e-3, math.pi / 2, 50)
    chord = 4 * np.sin(angle / 2) ** 2
    assert (chord >= 8 / math.pi**2 * angle**2 * (1 - 1e-12)).all()
    assert chord[-1] == pytest.approx(8 / math.pi**2 * angle[-1] ** 2, rel=1e-12)


def test_moments_of_the_likelihood_ratios_by_enumeration(rng):
    true = rng.normal(size=8)
    other = 2.0 * true
    p, q = scipy.special.expit(true), scipy.special.expit(other)
    labels = outcomes(8)
    chance = np.exp(log_likelihood(labels, p))
    ratio = log_likelihood(labels, q) - log_likelihood(labels, p)
    squares = theory.hellinger_squares(links.LOGISTIC, true, other)
    half = float(chance @ np.exp(0.5 * ratio))
    assert half == pytest.approx(np.prod(1 - squares / 2), rel=1e-12)
    assert half <= math.exp(-squares.sum() / 2)
    chi = theory.chi_squares(links.LOGISTIC, true, other)
    assert float(chance @ np.exp(-ratio)) == pytest.approx(np.prod(1 + chi), rel=1e-12)
    # with the arguments exchanged the moment is another one
    swapped = theory.chi_squares(links.LOGISTIC, other, true)
    assert np.prod(1 + swapped) != pytest.approx(np.prod(1 + chi), rel=1e-2)


def test_the_union_over_a_finite_class_holds_with_its_exact_probability(rng):
    """All labels of 8 pairs; the class moves every reward up or down, in all 256 ways."""
    n, delta = 8, 0.1
    true = 0.3 * rng.normal(size=n)
    labels, p = outcomes(n), scipy.special.expit(true)
    others = true + 2.0 * (2.0 * labels - 1.0)
    chance = np.exp(log_likelihood(labels, p))
    excess = np.full(len(labels), -np.inf)
    for other in others:
        squares = theory.hellinger_squares(links.LOGISTIC, true, other).sum()
        ratio = log_likelihood(labels, p) - log_likelihood(labels, scipy.special.expit(other))
        excess = np.maximum(excess, squares - ratio)
        assert chance @ (squares - ratio > 2 * math.log(1 / delta)) <= delta
    assert chance @ (excess > 2 * math.log(len(others) / delta)) <= delta
    # the rival keeps the bound of one law for the best of many
    assert chance @ (excess > 2 * math.log(1 / delta)) > delta


def fitted_instance(rng, tail: float = 0.0) -> dict[str, object]:
    """N = 3 users in R^2 with one shared direction, and the fit over `||Delta_i|| <= R`."""
    x = rng.normal(size=(3, 60, 2))
    truth = np.outer([1.0, -0.8, 0.6], [1.0, 0.0]) + tail * np.outer([1.0, 1.0, -1.0], [0.0, 1.0])
    z = np.einsum("nij,nj->ni", x, truth)
    labels = (rng.random(z.shape) < scipy.special.expit(z)).astype(float)

    def loss(z: np.ndarray) -> float:
        return float((np.logaddexp(0.0, z) - labels * z).sum())

    def member(parameters: np.ndarray) -> np.ndarray:
        angle = parameters[0]
        return np.outer(np.clip(parameters[1:], -2.0, 2.0), [math.cos(angle), math.sin(angle)])

    fit = scipy.optimize.minimize(
        lambda v: loss(np.einsum("nij,nj->ni", x, member(v))), [0.1, 1.0, -0.8, 0.6], method="BFGS"
    )
    estimate = member(fit.x)
    return {
        "x": x,
        "truth": truth,
        "estimate": estimate,
        "z": z,
        "z_hat": np.einsum("nij,nj->ni", x, estimate),
        "loss": loss,
    }


@pytest.mark.parametrize("tail", [0.0, 0.2])
def test_the_bounds_hold_for_fits_and_are_loose_by_a_known_factor(rng, tail):
    run = fitted_instance(rng, tail)
    x, truth, z, z_hat = run["x"], run["truth"], run["z"], run["z_hat"]
    total, radius, length = z.size, 2.0, float(np.linalg.norm(x, axis=-1).max())
    known = theory.link_constants(links.LOGISTIC, margin=radius * length)
    cover = theory.log_cover_number(
        n_users=3, d1=2, d2=1, rank=1, norm_bound=radius, resolution=1 / (total * length)
    )
    u, s, v = np.linalg.svd(truth.T)
    z_cut = np.einsum("nij,nj->ni", x, (s[0] * np.outer(u[:, 0], v[0])).T)
    chi = theory.chi_squares(links.LOGISTIC, z.ravel(), z_cut.ravel())
    reference = z if tail == 0.0 else z_cut
    bound = theory.hellinger_bound(
        log_cover=cover.value,
        delta=0.05,
        xi=known.xi,
        largest_information=known.largest_information,
        total_pairs=total,
        slack=max(run["loss"](z_hat) - run["loss"](reference), 0.0),
        log_chi_square=None if tail == 0.0 else float(np.log1p(chi).sum()),
    )
    squares = theory.hellinger_squares(links.LOGISTIC, z_hat.ravel(), z.ravel()).sum()
    assert squares <= bound.value
    assert bound.status is theory.BoundStatus.INFORMATIVE
    assert 5.0 < bound.value / squares < 5000.0
    designs = np.einsum("nij,nik->njk", x, x)
    step = theory.squared_error_bound(
        float(squares),
        smallest_information=known.smallest_information,
        smallest_design=float(np.linalg.eigvalsh(designs).min()),
        sigma_k=float(s[0]),
        ceiling=1.0,
    )
    error = np.linalg.norm(run["estimate"] - truth)
    assert error <= step.terms["error"]
    assert error**2 <= step.terms["squared_error"]


def test_the_value_is_the_triangle_inequality_and_below_its_doubled_form():
    bound = theory.hellinger_bound(**GIVEN, total_pairs=100, slack=0.5)
    a = 0.5 + 1.0 + 2 * (30.0 + math.log(10.0))
    b = 0.25 / 400
    assert bound.value == pytest.approx(a + b + 2 * math.sqrt(a * b), rel=1e-13)
    doubled = 2 * 0.5 + 2 * 1.0 + 4 * (30.0 + math.log(10.0)) + 0.25 / 200
    assert 0.5 * doubled < bound.value < 0.51 * doubled
    assert bound.value > a  # without b the estimate would have to be a point of the cover


def test_a_misspecified_truth_pays_twice_for_delta_and_for_chi_square():
    bound = theory.hellinger_bound(**GIVEN, total_pairs=100, log_chi_square=3.0)
    assert bound.statement == "S4b"
    a = 1.0 + 2 * (30.0 + math.log(20.0)) + 3.0 + math.log(20.0)
    assert bound.value == pytest.approx((math.sqrt(a) + math.sqrt(0.25 / 400)) ** 2, rel=1e-13)
    well = theory.hellinger_bound(**GIVEN, total_pairs=100)
    assert bound.value > well.value + 3.0 + math.log(20.0)


def test_the_price_of_a_tail_is_quadratic_and_lemma_4s_is_linear(rng):
    z, off = rng.normal(size=(2, 500))
    tails = np.array([0.003, 0.01, 0.03])

    def slope(values: list[float]) -> float:
        return float(np.polyfit(np.log(tails), np.log(values), 1)[0])

    chi = [float(np.log1p(theory.chi_squares(links.LOGISTIC, z, z + t * off)).sum()) for t in tails]
    linear = [
        float(np.abs(np.logaddexp(0, -z) - np.logaddexp(0, -z - t * off)).sum()) for t in tails
    ]
    assert slope(chi) == pytest.approx(2.0, abs=0.02)
    assert slope(linear) == pytest.approx(1.0, abs=0.02)


def test_numbers_that_say_nothing_are_vacuous():
    status = theory.BoundStatus
    assert theory.hellinger_bound(**GIVEN, total_pairs=10).status is status.VACUOUS
    assert theory.hellinger_bound(**GIVEN, total_pairs=100).ceiling == 200.0
    infinite = theory.hellinger_bound(**GIVEN | {"xi": math.inf}, total_pairs=100)
    assert infinite.status is status.VACUOUS
    given = {"smallest_information": 0.1, "smallest_design": 50.0, "sigma_k": 2.0, "ceiling": 1.0}
    bound = theory.squared_error_bound(1.0, **given)
    assert bound.value == pytest.approx(math.sqrt(math.pi**2 / (2 * 0.1 * 50.0)) / 2.0, rel=1e-14)
    assert bound.status is status.INFORMATIVE
    for name in ("smallest_information", "smallest_design", "sigma_k"):
        assert theory.squared_error_bound(1.0, **given | {name: 0.0}).status is status.VACUOUS


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"delta": 0.0}, "delta"),
        ({"xi": -1.0}, "xi"),
        ({"slack": -1.0}, "slack"),
        ({"log_chi_square": -1.0}, "log_chi_square"),
        ({"total_pairs": 0}, "total_pairs"),
    ],
)
def test_bad_numbers_are_refused(wrong, match):
    with pytest.raises(checks.InputError, match=match):
        theory.hellinger_bound(**GIVEN | {"total_pairs": 100} | wrong)


def test_bad_rewards_are_refused():
    with pytest.raises(checks.InputError, match="no probabilities"):
        theory.hellinger_squares(links.IDENTITY, np.zeros(2), np.zeros(2))
    with pytest.raises(checks.InputError, match="z_b"):
        theory.chi_squares(links.LOGISTIC, np.zeros(2), np.zeros(3))
