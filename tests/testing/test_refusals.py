"""What a judge says when it fails, what it refuses, and a user's own bound in ten lines."""

from __future__ import annotations

import contextlib
import pickle
import textwrap

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import simrlhf
from simrlhf import testing
from simrlhf.core.checks import InputError
from simrlhf.testing import ClaimRejected, ControlAccepted, Judgement

SIZES = np.array([100, 200, 400, 800, 1600, 3200])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(29)


# --- failures ------------------------------------------------------------------------------------

EDGE = np.linspace(0.5, 1.0, 9)
EDGES = np.tile(EDGE, 3)
# judgement, how it ends, and whether the rival is rejected (it is right where it is not)
FAILURES = {
    "identity, claim": (
        lambda: testing.assert_identity(EDGE, EDGE**2, rival=EDGE, statement="squares"),
        ClaimRejected,
        False,
    ),
    "identity, control": (
        lambda: testing.assert_identity(EDGE, EDGE, rival=EDGE * (1 + 3e-10), statement="squares"),
        ControlAccepted,
        False,
    ),
    "inequality, claim": (
        lambda: testing.never_violated(EDGE, 0.9, rival=0.8, statement="S1"),
        ClaimRejected,
        True,
    ),
    "inequality, control": (
        lambda: testing.never_violated(EDGE, 90.0, rival=80.0, statement="S1"),
        ControlAccepted,
        False,
    ),
    "probability, claim": (
        lambda: testing.never_violated(EDGE, 0.7, rival=0.6, delta=0.1, statement="S3"),
        ClaimRejected,
        True,
    ),
    "probability, control": (
        lambda: testing.never_violated(EDGE, 9.0, rival=0.95, delta=0.1, statement="S3"),
        ControlAccepted,
        False,
    ),
    "rate, claim": (
        lambda: testing.rate(SIZES, SIZES**-0.5, exponent=-1, rival=-0.5, statement="A1"),
        ClaimRejected,
        False,
    ),
    "rate, control": (
        lambda: testing.rate(EDGE, EDGE * [1, 2, 1, 2, 1, 2, 1, 2, 1], exponent=1, rival=0),
        ControlAccepted,
        False,
    ),
    "limit, claim": (
        lambda: testing.limit(EDGES, 0.5, rival=0.75, statement="L1"),
        ClaimRejected,
        False,
    ),
    "limit, control": (
        lambda: testing.limit(EDGES, 0.75, rival=0.8, statement="L1"),
        ControlAccepted,
        False,
    ),
}


@pytest.mark.parametrize(("call", "kind", "rejected"), FAILURES.values(), ids=FAILURES.keys())
def test_a_failure_is_an_assertion_that_carries_its_judgement_and_says_it_in_numbers(
    call, kind, rejected
):
    with pytest.raises(AssertionError) as caught:
        call()
    assert caught.type is kind
    judgement = caught.value.judgement
    assert judgement.holds == (kind is ControlAccepted)
    assert judgement.rival_rejected == rejected
    text = str(caught.value)
    assert text.startswith(("Claim rejected. ", "Control accepted. "))
    assert judgement.statement in text
    assert f"{judgement.measured.estimate:.6g}"[:4] in text
    assert "\n" not in text
    assert 150 < len(text) < 900
    again = pickle.loads(pickle.dumps(caught.value))  # as it comes back from a worker
    assert type(again) is kind
    assert again.judgement == judgement


def test_a_judgement_says_everything_in_one_sentence_and_is_frozen():
    found = testing.never_violated(EDGE, 1.0, rival=0.9, statement="S1")
    assert found == Judgement(
        statement="S1",
        claim="measured <= bound in every row",
        measured=(1.0, 1.0, 1.0),
        holds=True,
        rival="measured <= wrong bound in every row",
        rival_measured=(1 / 0.9, 1 / 0.9, 1 / 0.9),
        rival_rejected=True,
        tightness=1.0,
        evidence={
            "rows": 9.0,
            "informative": 9.0,
            "violations": 0.0,
            "median": 0.75,
            "rival_informative": 9.0,
            "rival_violations": 2.0,
            "rival_median": 0.75 / 0.9,
        },
        summary=(
            "S1: 0 of 9 informative rows are violations, with measured / bound at most 1 (median "
            "0.75), so the claim (measured <= bound in every row) holds; under the rival's bound 2 "
            "of 9 rows are violations, with measured / bound at most 1.11111 (median 0.833), so "
            "the rival (measured <= wrong bound in every row) is rejected."
        ),
    )
    with pytest.raises(AttributeError):
        found.holds = False


# --- misuse --------------------------------------------------------------------------------------

IDENTITY = (testing.assert_identity, (EDGE, EDGE), {"rival": 2 * EDGE})
INEQUALITY = (testing.never_violated, (EDGE, EDGE), {"rival": 0.9 * EDGE})
CHANCE = (testing.never_violated, (EDGE, EDGE), {"rival": 0.9 * EDGE, "delta": 0.05})
RATE = (testing.rate, (SIZES, SIZES**-0.5), {"exponent": -0.5, "rival": -1.0})
LIMIT = (testing.limit, (EDGES, 0.75), {"rival": 1.5})
FIVE = np.repeat(np.arange(5), 6)
NESTED = (
    testing.rate,
    (np.tile(SIZES, 5), np.tile(SIZES**-0.5, 5)),
    {"exponent": -0.5, "rival": -1.0, "repetition": FIVE},
)
APPROACH = (
    testing.limit,
    (np.ones(60), 1.0),
    {"rival": 2.0, "x": np.tile(SIZES[:3], 20), "repetition": np.repeat(np.arange(20), 3)},
)
HOLE = np.where(EDGE > 0.9, np.nan, EDGE)
MISUSE = [
    *((judge, {"rival": None}, "a rival is missing") for judge in (IDENTITY, INEQUALITY, RATE)),
    (LIMIT, {"rival": None}, "a rival is missing"),
    (IDENTITY, {0: HOLE}, r"measured holds 2 values that are not finite"),
    (IDENTITY, {1: np.full(9, np.inf)}, "claimed holds 9 values that are not finite"),
    (IDENTITY, {"rival": HOLE}, "rival holds 2 values that are not finite"),
    (IDENTITY, {1: EDGE[:3]}, r"claimed has shape \(3,\), expected \(9\)"),
    (IDENTITY, {"rival": EDGE[None]}, r"rival has shape \(1, 9\)"),
    (IDENTITY, {"rival": EDGE * (1 + 1e-12)}, "the rival equals the claim within 1e-10"),
    (IDENTITY, {"tolerance": 0.0}, "tolerance = 0 must be greater than 0"),
    (IDENTITY, {0: [], 1: [], "rival": []}, "measured is empty"),
    (IDENTITY, {0: np.zeros(9), 1: 0.0}, "all zero.*give scale="),
    (IDENTITY, {0: ["a"] * 9}, "measured must be a rectangular array of real numbers"),
    (INEQUALITY, {0: HOLE}, "measured holds 2 values that are not finite"),
    (INEQUALITY, {1: HOLE}, "bound holds NaN; infinity stands for no bound"),
    (INEQUALITY, {"rival": HOLE}, "rival holds NaN"),
    (INEQUALITY, {1: -EDGE}, "bound has entries below 0"),
    (INEQUALITY, {1: EDGE[:4]}, r"bound has shape \(4,\)"),
    (INEQUALITY, {"rival": EDGE}, "nowhere below the bound"),
    (INEQUALITY, {"rival": 1.5}, "nowhere below the bound"),
    (INEQUALITY, {1: np.inf}, "no row is informative"),
    (INEQUALITY, {"ceiling": 0.4}, "9 measured values exceed their ceiling"),
    (INEQUALITY, {"tight": EDGE}, r"tight must be a pair \(measured, bound\)"),
    (INEQUALITY, {"tight": ([1.0], [1.0])}, r"rival has shape \(9,\), expected \(1\)"),
    (INEQUALITY, {"tight": ([1.0], [np.inf]), "rival": 1.0}, "no tight row is informative"),
    (INEQUALITY, {"slack": 0.5}, "slack = 0.5 must be at most 0.01"),
    (CHANCE, {"delta": 0.0}, "delta = 0 must be greater than 0"),
    (CHANCE, {"delta": 0.5, 0: EDGE[:3], 1: EDGE[:3], "rival": 0.1}, "3 informative rows could"),
    (CHANCE, {"tight": (0.9, 1.0), "rival": 0.8}, "1 tight informative rows could not reject"),
    (CHANCE, {"confidence": 95}, "confidence = 95 must be at most 0.9999"),
    (CHANCE, {"confidence": 0.5}, "confidence = 0.5 must be at least 0.9"),
    (RATE, {"rival": -0.5}, "rival exponent equals the claimed one"),
    (RATE, {"exponent": np.nan}, "exponent must be finite"),
    (RATE, {1: -EDGE[:6]}, "6 kept values of y are not positive"),
    (RATE, {0: SIZES - 100}, "x holds values that are not positive"),
    (RATE, {1: HOLE}, "y holds 2 values that are not finite"),
    (RATE, {1: EDGE}, r"y has shape \(9,\), expected \(6\)"),
    (RATE, {"from_x": 1e9}, "no point is in the regime"),
    (RATE, {"floor": 1.0}, "no point is in the regime"),
    (RATE, {"from_x": 1500}, "the evidence keeps 2 distinct x, at least 3"),
    (RATE, {"from_x": 800}, "3 points say too little of a slope; at least 4"),
    (RATE, {"curve": EDGE[:6]}, "give repetition= as well"),
    (NESTED, {"from_x": 1500}, "a curve of a repetition keeps 2 distinct x"),
    (NESTED, {"repetition": FIVE % 4}, "4 repetitions say too little of a mean; at least 5"),
    (NESTED, {"repetition": FIVE[:7]}, r"repetition has shape \(7,\), expected \(30\)"),
    (NESTED, {"repetition": HOLE}, "repetition holds 2 values that are not finite"),
    (LIMIT, {0: np.tile(HOLE, 3)}, "measured holds 6 values that are not finite"),
    (LIMIT, {0: EDGE}, "9 repetitions say too little of a mean; at least 20"),
    (LIMIT, {1: 0.0}, "limit is zero"),
    (LIMIT, {"rival": 0.75}, "rival limit equals the claimed one"),
    (LIMIT, {1: 1e-200}, "measured / limit reaches 1e\\+200"),
    (LIMIT, {"from_x": 3.0}, "from_x= needs x="),
    (LIMIT, {"x": EDGES}, "several x need repetition="),
    (LIMIT, {"curve": EDGES}, "give repetition= as well"),
    (APPROACH, {"x": -np.ones(60)}, "x holds values that are not positive"),
    (APPROACH, {"from_x": 1e9}, "no value has x >= from_x"),
    (APPROACH, {"x": np.repeat(np.arange(1, 21), 3)}, "at a single x only"),
]


@pytest.mark.parametrize(
    ("judge", "change", "message"), MISUSE, ids=[message for *_, message in MISUSE]
)
def test_misuse_is_refused_before_anything_is_judged(judge, change, message):
    function, positional, named = judge
    function(*positional, **named)  # without the change it is accepted
    positional = [change.pop(place, value) for place, value in enumerate(positional)]
    with pytest.raises(InputError, match=message):
        function(*positional, **named | change)


@pytest.mark.parametrize("judge", [IDENTITY, INEQUALITY, RATE, LIMIT])
def test_a_call_without_a_rival_is_refused(judge):
    function, positional, named = judge
    with pytest.raises(InputError, match="a rival is missing; name a wrong formula"):
        function(*positional, **{name: value for name, value in named.items() if name != "rival"})


WILD = st.one_of(
    st.floats(), st.sampled_from([0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, np.inf, np.nan])
)
ROWS = st.one_of(
    *(
        arrays.arrays(float, 60, elements=elements)
        for elements in (WILD, st.floats(0.1, 10.0), st.sampled_from([1e-90, 1.0, 1e300]))
    )
)
LABELS = arrays.arrays(int, 60, elements=st.integers(0, 24))
TWENTY = np.repeat(np.arange(20), 3)


@given(first=ROWS, second=ROWS, third=ROWS, labels=LABELS, number=WILD)
def test_no_evidence_makes_a_judge_crash(first, second, third, labels, number):
    positive, other, sizes = np.abs(first), np.abs(second), np.tile(SIZES[:3], 20)
    calls = [
        lambda: testing.assert_identity(first, second, rival=third),
        lambda: testing.never_violated(first, other, rival=np.abs(third)),
        lambda: testing.never_violated(first, other, rival=np.abs(third), delta=0.05),
        lambda: testing.rate(positive, other, exponent=1.0, rival=number),
        lambda: testing.rate(
            sizes, other, exponent=1.0, rival=2.0, repetition=TWENTY, floor=number
        ),
        lambda: testing.rate(positive, other, exponent=1.0, rival=2.0, repetition=labels),
        lambda: testing.limit(first, second, rival=third),
        lambda: testing.limit(first, number, rival=third, x=sizes, repetition=TWENTY),
        lambda: testing.limit(
            first, second, rival=1.0, x=positive, repetition=labels, curve=TWENTY
        ),
    ]
    for call in calls:
        with contextlib.suppress(InputError, ClaimRejected, ControlAccepted):
            assert call().holds


# --- a user's own bound --------------------------------------------------------------------------


@pytest.fixture
def study(rng) -> pd.DataFrame:
    """Rows as `load_results` gives them: distances 1.4 to 2.6 times the scale of the bound."""
    grid = pd.MultiIndex.from_product([range(8), [6, 48], [50, 200, 800]])
    rows = grid.to_frame(index=False, name=["repetition", "n_users", "n_pairs"])
    rows = rows.assign(estimator="share_b", d1=20, rank=3, nu=0.25)
    scale = np.sqrt(3 * 17 / (0.25 * rows["n_users"] * rows["n_pairs"]))
    rows["subspace_distance"] = scale * rng.uniform(1.4, 2.6, size=len(rows))
    return pd.concat([rows, rows.assign(estimator="full", subspace_distance=9.0)])


def test_the_example_of_the_module_runs_on_a_studys_rows(study, monkeypatch, capsys):
    example = textwrap.dedent(testing.__doc__.split("rows::\n\n")[1])
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    monkeypatch.setattr(simrlhf, "load_results", lambda name: study, raising=False)
    space: dict = {}
    exec(example, space)
    said = capsys.readouterr().out
    assert said.startswith("my bound: 0 of 32 informative rows are violations")
    judgement = space["judgement"]
    assert 0.8 < judgement.tightness < 2.6 / 3.0
    # a smaller constant is refuted by the same lines
    smaller = example.replace("3.0)", "2.5)")
    with pytest.raises(ClaimRejected, match="my bound"):
        exec(smaller, {})


@pytest.mark.parametrize(
    ("judge", "place"),
    [(IDENTITY, 1), (INEQUALITY, 1), (INEQUALITY, "rival"), (RATE, 1), (LIMIT, 1)],
)
def test_tables_in_another_order_are_refused(judge, place):
    """Entries are matched by position, where pandas would match them by index."""
    function, positional, named = judge
    parts = dict(enumerate(positional)) | named
    size = len(parts[0])
    first, other = pd.Series(parts[0]), pd.Series(np.broadcast_to(parts[place], size))
    same = {0: first, place: other}
    turned = {0: first, place: other.set_axis(range(size)[::-1])}
    call = {name: {**parts, **some} for name, some in (("same", same), ("turned", turned))}
    verdicts = {}
    for name, handed in call.items():
        arguments = [handed.pop(number) for number in range(len(positional))]
        with contextlib.suppress(InputError):
            verdicts[name] = function(*arguments, **handed)
    assert list(verdicts) == ["same"]


def test_what_would_be_lost_or_could_not_meet_the_tolerance_is_refused():
    masked = np.ma.masked_array([1.0, 2.0, 99.0], [False, False, True])
    with pytest.raises(InputError, match="measured is a masked array"):
        testing.never_violated(masked, 3.0, rival=1.5)
    single = EDGE.astype(np.float32)
    with pytest.raises(InputError, match=r"measured is float32, whose rounding 1\.2e-07 exceeds"):
        testing.assert_identity(single, EDGE, rival=2 * EDGE)
    assert testing.assert_identity(single, EDGE, rival=2 * EDGE, tolerance=1e-6).holds


def test_series_lists_and_jax_arrays_are_read_alike():
    bound = EDGE + 0.1
    expected = testing.never_violated(EDGE, bound, rival=0.9 * EDGE)
    for kind in (list, pd.Series, jnp.asarray, lambda v: pd.Series(v, index=range(8, -1, -1))):
        assert testing.never_violated(kind(EDGE), kind(bound), rival=kind(0.9 * EDGE)) == expected
