"""The check of S2r at tiny size: its verdict, its evidence, and wrong formulas that it notices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simrlhf import theory
from simrlhf.study.checking import Verdict
from simrlhf.study.checking.run import Outcome, load_check, run_checks


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return next(run_checks(["s2r"], "tiny"))


@pytest.mark.slow
def test_s2r_holds_where_s2_says_nothing(outcome: Outcome) -> None:
    assert not outcome.is_defect, outcome.failure
    finding = outcome.finding
    assert finding is not None, outcome.failure
    assert finding.verdict is Verdict.HOLDS, finding.remark
    assert all(one.holds and one.rival_rejected for one in finding.judgements)
    assert np.isinf(finding.rows["s2"]).all()
    assert (finding.rows["bound"] < finding.rows["ceiling"]).all()
    # fewer pairs than the d1 d2 without which S2 is vacuous
    module = load_check("s2r")
    assert finding.n_star is not None
    assert finding.n_star < module._WORLD.d1 * module._WORLD.d2


def without_failures(right: Callable[..., float]) -> Callable[..., float]:
    """Gordon's bound with no room for chance."""
    return lambda **sizes: right(**sizes | {"delta": 1.0})


def scaled(right: Callable[..., theory.Bound]) -> Callable[..., theory.Bound]:
    def wrong(**given: Any) -> theory.Bound:
        bound = right(**given)
        return replace(bound, value=1.01 * bound.value)

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "mutation"),
    [("restricted_design", without_failures), ("restricted_oracle_inequality", scaled)],
)
def test_a_wrong_formula_changes_the_verdict(
    monkeypatch: pytest.MonkeyPatch, function: str, mutation: Callable
) -> None:
    module = load_check("s2r")
    measured = module.measure("tiny")
    monkeypatch.setattr(theory, function, mutation(getattr(theory, function)))
    assert module.judge(measured).verdict is not Verdict.HOLDS
