"""The checks of what the paper prints: verdicts at tiny size, and mutated formulas that they catch.

A verdict that changes is a finding: of the paper's statement, or of a mistake in this package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from simrlhf import theory
from simrlhf.core.checks import InputError
from simrlhf.study import figures
from simrlhf.study.checking import Finding, Verdict, report
from simrlhf.study.checking.form import Inconclusive
from simrlhf.study.checking.run import Outcome, load_check, run_checks
from simrlhf.testing import ControlAccepted

EXPECTED = {
    "definition_4_2": Verdict.HOLDS,
    "assumption_2": Verdict.HOLDS,
    "theorem_4_1": Verdict.LOOSE,  # in the tail
    "theorem_4_2": Verdict.HOLDS,
    "corollary_4_1": Verdict.LOOSE,  # a mean over users is far from the worst of them
    "proposition_1": Verdict.HOLDS,
    "lemma_1": Verdict.LOOSE,  # by the bracket's log factor, as the next two
    "lemma_2": Verdict.LOOSE,
    "lemma_3": Verdict.LOOSE,
    "lemma_4": Verdict.HOLDS,
    "lemma_5": Verdict.REFUTED,  # as the features' smallest eigenvalue goes to zero
    "lemma_6": Verdict.REFUTED,  # 1.1 for 1 / 0.9
    "remark_3": Verdict.LOOSE,  # in the number of users
    "park_3_1": Verdict.LOOSE,  # in k and in the rewards' size
    "park_3_2": Verdict.LOOSE,  # in the number of old users
    "park_3_3": Verdict.HOLDS,
}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {outcome.name: outcome for outcome in run_checks(EXPECTED, "tiny")}


def finding_of(outcomes: dict[str, Outcome], name: str) -> Finding:
    outcome = outcomes[name]
    assert outcome.finding is not None, outcome.failure
    return outcome.finding


@pytest.mark.parametrize(("name", "verdict"), EXPECTED.items())
def test_verdict(outcomes: dict[str, Outcome], name: str, verdict: Verdict) -> None:
    finding = finding_of(outcomes, name)
    assert not outcomes[name].is_defect
    assert finding.verdict is verdict, finding.remark
    # a rival stands beside every claim, and whatever holds rejects its own
    assert all(judged.rival_rejected for judged in finding.judgements if judged.holds)


def test_what_is_refuted_is_refuted_by_the_claim_and_not_by_this_package(
    outcomes: dict[str, Outcome],
) -> None:
    """Lemma 6 fails by its factor alone, Lemma 5 by its drift alone."""
    failed = [j.statement for j in finding_of(outcomes, "lemma_6").judgements if not j.holds]
    assert failed == ["Lemma 6 with 1.1"]
    finding = finding_of(outcomes, "lemma_5")
    assert all(judged.holds for judged in finding.judgements)
    assert finding.constants["drift_lambda"] == pytest.approx(-1.0, abs=0.01)


def test_sharing_is_worth_more_than_remark_3_prints(outcomes: dict[str, Outcome]) -> None:
    """By N at k = 1, where it prints N d1 / (d1 + N)."""
    constants = finding_of(outcomes, "remark_3").constants
    for n_users in (8, 32):
        ratio = constants[f"ratio, N = {n_users}, d1 = 4, k = 1"]
        assert ratio == pytest.approx(n_users, rel=0.5)
        assert ratio > 1.5 * n_users * 4 / (4 + n_users)


def test_new_users_have_a_floor_that_their_own_pairs_do_not_lower(
    outcomes: dict[str, Outcome],
) -> None:
    rows = finding_of(outcomes, "park_3_2").rows
    errors = rows[rows["swept"] == "own_pairs"].groupby("own_pairs")["error"].median()
    # 64 times the pairs, where 1 / sqrt(n) would be an eighth
    assert errors[3200] > 2.0 * errors[50] / 8.0


def test_theorem_4_1_in_other_units_needs_another_constant(outcomes: dict[str, Outcome]) -> None:
    constants = finding_of(outcomes, "theorem_4_1").constants
    assert constants["drift_scale"] == pytest.approx(-1.0, abs=1e-3)


@pytest.fixture(scope="module")
def measured() -> Callable[[str], Any]:
    """What a check measures, made once: theory has no part in it."""
    kept: dict[str, Any] = {}

    def measure(name: str) -> Any:
        if name not in kept:
            kept[name] = load_check(name).measure("tiny")
        return kept[name]

    return measure


def with_value(function: Callable[..., Any], change: Callable[[float, dict], float]):
    """The function with another value of its bound."""

    def mutated(*args: Any, **given: Any) -> Any:
        bound = function(*args, **given)
        return dataclasses.replace(bound, value=change(bound.value, given))

    return mutated


MUTATIONS = [
    ("theorem_4_1", "theorem_4_1", lambda value, given: value * 1.01),
    ("theorem_4_1", "theorem_4_1", lambda value, given: value * given["nu"] ** 0.5),
    ("lemma_1", "log_bracketing_number", lambda value, given: value / 2.0),
    ("lemma_2", "log_bracketing_number", lambda value, given: value * 1.1),
    ("lemma_3", "log_bracketing_number", lambda value, given: value + 3.0),
    ("lemma_5", "geometry_bound", lambda value, given: value * given["sigma_k"] ** -0.5),
    ("lemma_6", "theorem_4_2", lambda value, given: value * 1.01),
    ("proposition_1", "log_bracketing_bound", lambda value, given: value - 1.0),
    ("park_3_1", "park_theorem_3_1", lambda value, given: value * given["rank"] ** 0.5),
    ("park_3_1", "park_theorem_f_1", lambda value, given: value * 1.01),
    ("park_3_2", "park_theorem_3_2", lambda value, given: value * given["n_users"] ** 0.5),
    ("park_3_3", "park_theorem_3_3", lambda value, given: value * given["rank"] ** 0.5),
]


@pytest.mark.parametrize(("check", "name", "change"), MUTATIONS)
def test_a_mutated_formula_is_caught(
    measured: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    name: str,
    change: Callable[[float, dict], float],
) -> None:
    """The same measurement, judged under a wrong theory, gives no verdict on the printed claim."""
    module, evidence = load_check(check), measured(check)
    module.judge(evidence)
    monkeypatch.setattr(theory, name, with_value(getattr(theory, name), change))
    with pytest.raises((Inconclusive, ControlAccepted)):
        module.judge(evidence)


def test_evidence_is_tidy(outcomes: dict[str, Outcome]) -> None:
    """One row for each measurement, numbers and names in columns: what the figures read."""
    for name in ("theorem_4_1", "lemma_1", "lemma_3", "lemma_5", "lemma_6"):
        rows = finding_of(outcomes, name).rows
        assert isinstance(rows, pd.DataFrame)
        assert {"swept", "value", "repetition", "bound"} <= set(rows.columns)


def test_the_figure_draws_every_bound_that_was_run(
    outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no rows"):
        figures.draw_figure("calibrated_constants", tmp_path, tmp_path / "drawn")
    report.store([*outcomes.values()], tmp_path / "checks", size="tiny")
    drawn = figures.draw_figure("calibrated_constants", tmp_path, tmp_path / "drawn")
    names = {"theorem_4_1", "lemma_1", "lemma_3", "lemma_5", "lemma_6"}
    assert {path.name for path in drawn} == {
        f"calibrated_{name}.{kind}" for name in names for kind in ("png", "pdf")
    }
    assert all(path.stat().st_size > 10_000 for path in drawn)
