"""The checks of what is proved, and of the limits: no defect at tiny size, and the usual verdict.

That their rivals are rejected is part of every check; that they notice a spoilt theory is what
`simrlhf check --mutate` shows.
"""

from __future__ import annotations

import pytest

from simrlhf.study.checking import Verdict
from simrlhf.study.checking.run import Outcome, run_checks

EXPECTED = {
    "definition_a_1": Verdict.HOLDS,
    "s1": Verdict.HOLDS,
    "s2": Verdict.HOLDS,
    "s3": Verdict.HOLDS,
    "s4": Verdict.LOOSE,  # by the cover's logarithm
    "s4b": Verdict.LOOSE,
    "s5": Verdict.HOLDS,
    "s6": Verdict.HOLDS,
    "l1": Verdict.HOLDS,
    "l2": Verdict.HOLDS,
    "l3": Verdict.HOLDS,
    "l4": Verdict.HOLDS,
    "l5": Verdict.HOLDS,
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in run_checks(EXPECTED, "tiny")}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "verdict"), EXPECTED.items())
def test_verdict(outcomes: dict[str, Outcome], name: str, verdict: Verdict) -> None:
    outcome = outcomes[name]
    assert outcome.finding is not None, outcome.failure
    assert outcome.finding.verdict is verdict, outcome.finding.remark
    assert not outcome.is_defect


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s1", "s2", "s3", "s4", "s4b", "s5", "s6"])
def test_what_is_proved_says_something_somewhere(outcomes: dict[str, Outcome], name: str) -> None:
    finding = outcomes[name].finding
    assert finding is not None
    assert finding.n_star is not None
    assert 0 < finding.n_star < float("inf")
    assert finding.tightness is not None
    assert 0.0 < finding.tightness <= 1.0 + 1e-9
