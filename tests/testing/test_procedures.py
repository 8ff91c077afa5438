"""The judges: true claims pass, planted wrong ones do not, and evidence without power is refused.

Effect sizes at which 200 simulated bodies of evidence are judged stand in the tests' names and
constants; "accepted" means that the claim held and the rival was rejected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from simrlhf import testing
from simrlhf.testing import ClaimRejected, ControlAccepted, Judgement

BODIES = 200
SIZES = np.array([100, 200, 400, 800, 1600, 3200])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(29)


def verdict(call: Callable[[], Judgement]) -> str:
    try:
        call()
    except ClaimRejected:
        return "claim rejected"
    except ControlAccepted:
        return "control accepted"
    return "accepted"


def verdicts(judge: Callable[[bool], Judgement]) -> tuple[Counter[str], Counter[str]]:
    """Counts over bodies of evidence, of the true claim and of the wrong one."""
    return (
        Counter(verdict(lambda: judge(True)) for _ in range(BODIES)),
        Counter(verdict(lambda: judge(False)) for _ in range(BODIES)),
    )


def assert_powerful(judge: Callable[[bool], Judgement]) -> None:
    """At least 95 % of true claims are accepted and at least 95 % of wrong ones rejected."""
    true, wrong = verdicts(judge)
    assert true["accepted"] >= 0.95 * BODIES, true
    assert wrong["claim rejected"] >= 0.95 * BODIES, wrong


# --- power ---------------------------------------------------------------------------------------


def test_an_identity_tells_rounding_from_one_entry_that_is_off_by_1e_8(rng):
    def judge(true: bool) -> Judgement:
        values = rng.normal(size=(6, 5)) * np.logspace(-8, 2, 5)
        found = values + 1e-14 * np.abs(values).max() * rng.normal(size=values.shape)
        mutated = values.copy()
        mutated[2, 3] += 1e-8 * np.abs(values).max()
        right, wrong = (values, mutated) if true else (mutated, values)
        return testing.assert_identity(found, right, rival=wrong)

    assert_powerful(judge)


def test_an_inequality_tells_a_bound_from_95_percent_of_it_on_100_rows_near_it(rng):
    def judge(true: bool) -> Judgement:
        bound = np.exp(rng.normal(size=100))
        found = bound * rng.beta(8.0, 1.0, size=100)  # 8 / 9 of the bound in the mean
        right, wrong = (bound, 0.95 * bound) if true else (0.95 * bound, 0.9 * bound)
        return testing.never_violated(found, right, rival=wrong)

    assert_powerful(judge)


def test_a_loose_inequality_gets_its_power_from_tight_instances(rng):
    def loose(true: bool, **options) -> Judgement:
        found = rng.uniform(size=500)
        edge = np.array([0.4, 2.0])
        constant = 1.0 if true else 0.9
        return testing.never_violated(
            found,
            constant * 50.0,
            **options or {"tight": (edge, constant * edge), "rival": 0.9 * constant * edge},
        )

    assert_powerful(loose)
    # on the random rows alone the wrong constant would pass for the right one
    for constant in (True, False):
        with pytest.raises(ControlAccepted, match=r"0 of 500 rows are violations"):
            loose(constant, rival=0.9 * 45.0)


def test_a_probability_of_5_percent_is_told_from_15_percent_by_400_heavy_tailed_rows(rng):
    # the true claim holds with equality, where it is hardest to accept
    bounds = {rate: scipy.stats.t.isf(rate / 2.0, df=3) for rate in (0.05, 0.15, 0.3)}

    def judge(true: bool) -> Judgement:
        scale = np.exp(rng.normal(size=400))
        found = scale * np.abs(rng.standard_t(3, size=400))
        rates = (0.05, 0.15) if true else (0.15, 0.3)
        right, wrong = (bounds[rate] * scale for rate in rates)
        return testing.never_violated(found, right, rival=wrong, delta=0.05)

    assert_powerful(judge)


def nested_curves(rng: np.random.Generator, repetitions: int, exponent: float) -> pd.DataFrame:
    """Two curves of a repetition that share half of their noise, each nested in n.

    The error at n is the mean of the first n of heavy-tailed draws in 8 dimensions: a repetition's
    draws have a common scale (Student's t with 8 degrees of freedom).
    """
    shape = (repetitions, 3, SIZES.size, 8)
    steps = rng.normal(size=shape) * np.sqrt(np.diff(SIZES, prepend=0))[:, None]
    paths = np.cumsum(steps, axis=2) / SIZES[:, None]
    paths /= np.sqrt(rng.chisquare(8, size=(repetitions, 1, 1, 1)) / 8)
    distance = np.linalg.norm(paths[:, :2] + paths[:, 2:], axis=-1)
    index = pd.MultiIndex.from_product(
        [range(repetitions), ["N = 6", "N = 48"], SIZES], names=["repetition", "curve", "n"]
    )
    frame = pd.DataFrame({"y": (distance**2).ravel()}, index=index).reset_index()
    return frame.assign(y=frame["y"] ** -exponent)


def judge_rate(rows: pd.DataFrame, exponent: float, rival: float, **options) -> Judgement:
    labels = {"repetition": rows["repetition"], "curve": rows["curve"]}
    return testing.rate(rows["n"], rows["y"], exponent=exponent, rival=rival, **labels | options)


def test_a_rate_of_one_half_is_told_from_three_quarters_by_20_nested_repetitions(rng):
    def judge(true: bool) -> Judgement:
        exponents = (-0.5, -0.75) if true else (-0.75, -0.5)
        return judge_rate(nested_curves(rng, 20, -0.5), *exponents)

    assert_powerful(judge)


def test_a_rate_of_one_half_is_told_from_one_by_8_independent_points_with_noise_of_5_percent(rng):
    x = np.geomspace(100, 10_000, 8)

    def judge(true: bool) -> Judgement:
        y = 3.0 * x**-0.5 * np.exp(0.05 * rng.normal(size=8))
        exponent, rival = (-0.5, -1.0) if true else (-1.0, -0.5)
        return testing.rate(x, y, exponent=exponent, rival=rival)

    assert_powerful(judge)


def nested_squares(rng: np.random.Generator, repetitions: int, c: float) -> pd.DataFrame:
    """`n dist^2`, of mean `14.4 (1 + c / n)`, from 12 nested coordinates of common random scale."""
    blocks = np.sqrt(np.diff(SIZES, prepend=0))[:, None]
    steps = rng.normal(size=(repetitions, SIZES.size, 12)) * blocks
    squares = np.sum(np.cumsum(steps, axis=1) ** 2, axis=2) / SIZES
    squares /= rng.chisquare(12, size=(repetitions, 1)) / 12  # Student's t, E[12 / chi2_12] = 1.2
    index = pd.MultiIndex.from_product([range(repetitions), SIZES], names=["repetition", "n"])
    return pd.DataFrame({"y": (squares * (1 + c / SIZES)).ravel()}, index=index).reset_index()


def judge_limit(rows: pd.DataFrame, limit: float, rival: float, **options) -> Judgement:
    labels = {"x": rows["n"], "repetition": rows["repetition"]}
    return testing.limit(rows["y"], limit, rival=rival, **labels | options)


def test_a_limit_is_told_from_twice_itself_by_60_nested_heavy_tailed_repetitions(rng):
    def judge(true: bool) -> Judgement:
        limit, rival = (14.4, 28.8) if true else (28.8, 14.4)
        return judge_limit(nested_squares(rng, 60, c=12.0), limit, rival)

    assert_powerful(judge)


def test_a_limit_at_one_size_is_told_from_twice_itself_by_60_skewed_repetitions(rng):
    def judge(true: bool) -> Judgement:
        limit, rival = (4.0, 8.0) if true else (8.0, 4.0)
        return testing.limit(rng.chisquare(4, size=60), limit, rival=rival)

    assert_powerful(judge)


def test_a_limit_is_told_from_three_times_itself_by_the_fewest_repetitions(
    rng,
):
    def judge(true: bool) -> Judgement:
        limit, rival = (1.0, 3.0) if true else (3.0, 1.0)
        return testing.limit(rng.chisquare(4, size=20) / 4, limit, rival=rival)

    assert_powerful(judge)


# --- the procedures, and what goes wrong without them --------------------------------------------


def test_nested_points_taken_as_independent_reject_the_truth_too_often(rng):
    # one repetition's curves with the interval of a regression: 1 % would be as promised
    rows = nested_curves(rng, 400, -0.5)
    naive = Counter(
        verdict(lambda one=one: judge_rate(one, -0.5, -3.0, repetition=None, curve=None))
        for _, one in rows.groupby("repetition")
    )
    assert naive["claim rejected"] > 0.04 * 400


def test_the_slope_of_a_repetition_is_the_mean_of_scipys_over_its_curves(rng):
    rows = nested_curves(rng, 7, -0.5).sample(frac=1.0, random_state=0)  # in any order
    found = judge_rate(rows, -0.5, -2.0, confidence=0.95)
    slopes = [
        np.mean([scipy.stats.linregress(np.log(c["n"]), np.log(c["y"])).slope for c in curves])
        for curves in ([c for _, c in r.groupby("curve")] for _, r in rows.groupby("repetition"))
    ]
    known = scipy.stats.ttest_1samp(slopes, 0.0).confidence_interval(0.95)
    assert found.measured.estimate == pytest.approx(np.mean(slopes), rel=1e-12)
    # two ways to the same closed forms
    np.testing.assert_allclose(found.measured[1:], known, rtol=1e-10)
    one_curve = judge_rate(rows.query("curve == 'N = 6'"), -0.5, -2.0, confidence=0.95)
    assert abs(one_curve.measured.estimate - np.mean(slopes)) > 1e-3


def test_a_noise_floor_drops_whole_levels_where_dropping_points_would_bend_the_slope(rng):
    x = np.tile(np.geomspace(100, 3200, 6), 200)
    y = x**-0.5 * np.exp(0.3 * rng.normal(size=x.size))
    labels = np.repeat(np.arange(200), 6)
    floor = 0.026  # between the last two levels, 0.025 and 0.018, and the noise of their neighbours
    found = testing.rate(x, y, exponent=-0.5, rival=-0.4, repetition=labels, floor=floor)
    assert (found.evidence["points"], found.evidence["kept"]) == (1200, 800)
    assert found.evidence["largest_x"] == pytest.approx(800)
    lucky = y > floor
    assert scipy.stats.linregress(np.log(x[lucky]), np.log(y[lucky])).slope > -0.42


def test_points_before_the_regime_are_dropped_by_x_alone(rng):
    x = np.tile(SIZES, 6).astype(float)
    y = x**-0.5 * (1.0 + np.exp(-x / 50)) * np.exp(0.01 * rng.normal(size=x.size))
    labels = np.repeat(np.arange(6), SIZES.size)
    exponents = {"exponent": -0.5, "rival": -0.75, "repetition": labels}
    with pytest.raises(ClaimRejected):
        testing.rate(x, y, **exponents)
    assert testing.rate(x, y, **exponents, from_x=400).evidence["kept"] == 24
    # one regime for each point, as a theory may set it
    each = testing.rate(x, y, **exponents, from_x=np.where(labels < 3, 800, 400))
    assert each.evidence["kept"] == 3 * 3 + 3 * 4


def test_an_exact_power_law_is_accepted_though_its_interval_is_rounding():
    found = testing.rate(SIZES, 7.0 * SIZES**-0.5, exponent=-0.5, rival=-0.501)
    assert found.measured.estimate == pytest.approx(-0.5, abs=1e-14)
    flat = testing.rate(SIZES, np.full(6, 3.0), exponent=0.0, rival=-0.01)
    assert flat.measured.estimate == 0.0


def test_exact_evidence_rejects_a_claim_that_is_off_by_a_part_in_a_million():
    with pytest.raises(ClaimRejected):
        testing.rate(SIZES, 7.0 * SIZES**-0.5, exponent=-0.500001, rival=-0.6)
    with pytest.raises(ClaimRejected):
        testing.limit(np.full(20, 1.000001), 1.0, rival=2.0)


def test_each_curve_has_its_own_level_and_its_own_noise_floor():
    low = pd.DataFrame({"n": SIZES, "y": SIZES**-0.5, "curve": "low"})
    high = pd.DataFrame({"n": SIZES[2:], "y": 100.0 * SIZES[2:] ** -0.5, "curve": "high"})
    rows = pd.concat([pd.concat([low, high]).assign(repetition=number) for number in range(5)])
    assert judge_rate(rows, -0.5, -0.51).measured.estimate == pytest.approx(-0.5, abs=1e-14)
    with pytest.raises(ClaimRejected):  # one line through both
        judge_rate(rows.assign(curve="one"), -0.5, -0.51)
    # 0.026 lies above the last two levels of the low curve and below all of the high one
    floored = judge_rate(rows, -0.5, -0.51, floor=0.026)
    assert floored.evidence["kept"] == 5 * (4 + 4)


def test_an_interval_wider_than_the_gap_has_no_power_though_it_excludes_the_rival(rng):
    # the claim lies at one end of the interval, the rival just beyond the other
    rows = nested_curves(rng, 5, -0.5)
    low, high = judge_rate(rows, -0.5, -5.0).measured[1:]
    with pytest.raises(ControlAccepted, match=r"the interval is .* wide"):
        judge_rate(rows, high - 1e-3, low - 1e-4)
    ratios = rng.chisquare(8, size=24)
    low, high = testing.limit(ratios, 8.0, rival=80.0).measured[1:]
    with pytest.raises(ControlAccepted, match="wide against a gap") as caught:
        testing.limit(ratios, 8.0 * high - 1e-3, rival=8.0 * low - 1e-4)
    assert caught.value.judgement.rival_measured.low > 1.0


def test_the_ratio_at_infinite_size_is_numpys_intercept_for_each_repetition(rng):
    rows = nested_squares(rng, 24, c=30.0).sample(frac=1.0, random_state=1)
    found = judge_limit(rows, 14.4, 200.0, confidence=0.95)
    intercepts = [
        np.polyfit(1 / r["n"], r["y"] / 14.4, 1)[1] for _, r in rows.groupby("repetition")
    ]
    known = scipy.stats.ttest_1samp(intercepts, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(found.measured[1:], known, rtol=1e-10)
    assert found.evidence["standard_error"] == pytest.approx(scipy.stats.sem(intercepts), rel=1e-10)
    late = judge_limit(rows, 14.4, 200.0, from_x=400)
    assert (late.evidence["values"], late.evidence["kept"]) == (144, 96)
    at_end = rows.query("n == 3200")["y"].mean() / 14.4
    assert found.evidence["ratio_at_largest"] == pytest.approx(at_end, rel=1e-12)


def test_the_approach_is_extrapolated_where_the_largest_size_alone_rejects_the_truth(rng):
    rows = nested_squares(rng, 20_000, c=12.0).query("n <= 400")
    # 1 + 12 / 400 is 4 standard errors from 1
    with pytest.raises(ClaimRejected, match=r"mean ratio 1\.0"):
        testing.limit(rows.loc[rows["n"] == 400, "y"], 14.4, rival=17.0)
    found = judge_limit(rows, 14.4, 17.0)
    assert found.evidence["c"] == pytest.approx(12.0, abs=4.0)
    # and a limit that is 3 % too large, which the largest size would accept, is rejected
    with pytest.raises(ClaimRejected, match="as 1 / x goes to 0"):
        judge_limit(rows, 1.05 * 14.4, 17.0)


def test_each_curve_has_its_own_approach_to_the_limit():
    sizes, repetitions = np.array([100.0, 200.0, 400.0, 800.0]), np.arange(20)
    frames = [
        pd.DataFrame({"x": some, "y": 2.0 * (1.0 + c / some), "curve": c, "repetition": repetition})
        for repetition in repetitions
        for some, c in ((sizes, 10.0), (sizes[2:], 50.0))
    ]
    rows = pd.concat(frames)
    labels = {"x": rows["x"], "repetition": rows["repetition"]}
    found = testing.limit(rows["y"], 2.0, rival=2.01, curve=rows["curve"], **labels)
    assert found.measured.estimate == pytest.approx(1.0, abs=1e-12)
    assert found.evidence["c"] == pytest.approx(30.0, rel=1e-10)
    with pytest.raises(ClaimRejected):  # one line through both takes their difference for a slope
        testing.limit(rows["y"], 2.0, rival=2.01, **labels)


def test_a_factor_left_out_is_a_rival_that_differs_from_row_to_row(rng):
    users = rng.integers(2, 9, size=80)
    measured = 3.0 * users * rng.chisquare(20, size=80) / 20
    found = testing.limit(measured, 3.0 * users, rival=np.full(80, 3.0))
    assert found.rival_measured.low > 2.0
    with pytest.raises(ClaimRejected) as caught:
        testing.limit(measured, 3.0, rival=3.0 * users)
    assert not caught.value.judgement.rival_rejected  # it is right


def test_values_of_one_repetition_count_once(rng):
    # ten users of a repetition share its fortune: 200 values, 20 repetitions
    values = np.repeat(rng.chisquare(8, size=20), 10) * rng.uniform(0.9, 1.1, size=200)
    limit, labels = values.mean(), np.repeat(np.arange(20), 10)
    found = testing.limit(values, limit, rival=30.0, repetition=labels, confidence=0.95)
    means = values.reshape(20, 10).mean(axis=1) / limit
    known = scipy.stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    np.testing.assert_allclose(found.measured[1:], known, rtol=1e-10)
    apart = testing.limit(values, limit, rival=30.0, confidence=0.95).measured
    assert known.high - known.low > 2.0 * (apart.high - apart.low)


def test_the_violation_rate_has_scipys_exact_interval(rng):
    measured = rng.uniform(size=300)
    found = testing.never_violated(measured, 0.96, rival=0.7, delta=0.05, confidence=0.95)
    broken = int((measured > 0.96).sum())
    known = scipy.stats.binomtest(broken, 300).proportion_ci(0.95, method="exact")
    assert found.measured == (broken / 300, known.low, known.high)
    assert found.evidence["violations"] == broken
    assert found.tightness == pytest.approx(measured.max() / 0.96, rel=1e-14)
    # more violations than delta, though not surely more: the interval decides, not the count
    six_of_100 = np.repeat([0.4, 1.0], [94, 6])
    assert testing.never_violated(six_of_100, 0.5, rival=0.3, delta=0.05).measured.estimate == 0.06


def test_vacuous_rows_are_counted_and_are_no_evidence(rng):
    measured = rng.uniform(0.5, 1.0, size=60)
    bound = np.where(np.arange(60) < 40, np.inf, 1.0)
    found = testing.never_violated(measured, bound, rival=0.9 * bound)
    assert (found.evidence["rows"], found.evidence["informative"]) == (60, 20)
    assert "40 rows more are vacuous" in found.summary
    assert found.evidence["median"] == pytest.approx(np.median(measured[40:]), rel=1e-14)
    # a rival that is broken in vacuous rows alone is not rejected by evidence
    elsewhere = np.where(np.arange(60) < 40, 0.1, 0.9999)
    with pytest.raises(ControlAccepted):
        testing.never_violated(np.minimum(measured, 0.99), bound, rival=elsewhere)
    capped = testing.never_violated(
        measured, np.linspace(1.0, 2.0, 60), rival=np.linspace(0.5, 1.0, 60), ceiling=1.5
    )
    assert capped.evidence["informative"] == 30


def test_rounding_is_no_violation_and_a_part_in_a_million_is_one():
    bound = np.array([1e-6, 1.0, 1e6])
    assert testing.never_violated(bound * (1 + 1e-12), bound, rival=0.99 * bound).holds
    with pytest.raises(ClaimRejected, match=r"3 of 3 informative rows are violations"):
        testing.never_violated(bound * (1 + 1e-6), bound, rival=0.99 * bound)
    # a bound of zero is attained by zero and by nothing else
    assert testing.never_violated([0.0, 2.0], [0.0, 2.0], rival=[0.0, 1.9]).tightness == 1.0
    with pytest.raises(ClaimRejected):
        testing.never_violated([1e-300, 2.0], [0.0, 2.0], rival=[0.0, 1.9])


def test_the_claim_is_judged_on_the_tight_instances_too():
    # a "tight instance" that breaks the true bound would reject any rival
    with pytest.raises(ClaimRejected, match=r"1 of 1 tight rows are violations"):
        testing.never_violated([0.1], [1.0], rival=[0.9], tight=([1.1], [1.0]))


def test_an_identity_is_relative_to_the_largest_entry_and_its_rival_misses_by_a_margin():
    claimed, last = np.array([1e3, 1.0, 0.0]), np.array([0.0, 0.0, 1e-8])
    found = testing.assert_identity(claimed + 5 * last, claimed, rival=2 * claimed)
    assert found.measured.estimate == pytest.approx(5e-11, rel=1e-9)
    with pytest.raises(ClaimRejected):
        testing.assert_identity(claimed + 20 * last, claimed, rival=2 * claimed)
    with pytest.raises(ControlAccepted, match="where 1e-09 rejects"):
        testing.assert_identity(claimed, claimed, rival=claimed * (1 + 5e-10))
    zero = testing.assert_identity(np.zeros(3), 0.0, rival=1e-3, scale=1.0)
    assert zero.rival_measured.estimate == pytest.approx(1e-3)
