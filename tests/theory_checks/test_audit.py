"""The audit of printed claims and Definition 4.1 at tiny size: verdicts, rivals, evidence."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from simrlhf import theory
from simrlhf.study import figures
from simrlhf.study.checking import Verdict, report
from simrlhf.study.checking.form import Inconclusive
from simrlhf.study.checking.run import Outcome, load_check
from simrlhf.testing import ControlAccepted

VERDICTS = {
    "definition_4_1": Verdict.HOLDS,
    "a1": Verdict.REFUTED,
    "a1v": Verdict.REFUTED,
    "a2": Verdict.LOOSE,
    "a3": Verdict.REFUTED,
    "a4": Verdict.REFUTED,
    "a5": Verdict.REFUTED,
    "a6": Verdict.REFUTED,
    "a7": Verdict.REFUTED,
    "a8": Verdict.REFUTED,
    "a10": Verdict.REFUTED,
    "a11": Verdict.REFUTED,
    "a12": Verdict.LOOSE,
}
# what the evidence must reject by the procedure that accepts it of the controls: the printed slope
# under blind features, a distance that N goes on lowering, and the step from smoothness
REJECTED = {
    "a6": {"(B.10) as printed"},
    "a3": {"A3, as printed: dist under blind features"},
    "a12": {"A12, anisotropic, n = 5"},
}


@pytest.fixture(scope="module")
def measurements() -> dict[str, tuple[ModuleType, dict]]:
    """What is measured never sees the theory: one measurement serves verdicts and mutations."""
    modules = {name: load_check(name) for name in VERDICTS}
    return {name: (module, module.measure("tiny")) for name, module in modules.items()}


@pytest.fixture(scope="module")
def outcomes(measurements: dict) -> dict[str, Outcome]:
    return {
        name: Outcome(name, module.CHECK, module.judge(measured), "", 0.0)
        for name, (module, measured) in measurements.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", VERDICTS)
def test_a_check_comes_to_the_verdict_expected(outcomes: dict, name: str) -> None:
    outcome = outcomes[name]
    assert not outcome.is_defect, outcome.failure
    assert outcome.finding.verdict is VERDICTS[name]
    rejected = {one.statement for one in outcome.finding.judgements if not one.holds}
    assert rejected == REJECTED.get(name, set())
    assert all(one.rival_rejected for one in outcome.finding.judgements if one.holds)


def _scaled(function, factor: float):
    """A bound whose value carries a wrong constant."""

    def wrong(*arguments, **settings):
        bound = function(*arguments, **settings)
        return replace(bound, value=factor * bound.value)

    return wrong


def _without_square(function):
    def wrong(delta, rank):
        found = function(delta, rank)
        return replace(found, nu=found.nu**0.5)

    return wrong


def _equal_constants(function):
    def wrong(link, *, margin):
        found = function(link, margin=margin)
        return replace(found, kappa=found.eta)

    return wrong


def _with_a_larger_eta(function):
    def wrong(link, *, margin):
        found = function(link, margin=margin)
        return replace(found, eta=20.0 * found.eta)

    return wrong


MUTATIONS = [
    ("definition_4_1", "diversity_metrics", _without_square),
    ("a1", "theorem_4_1_sample_size", lambda right: lambda *a, **s: 2 * right(*a, **s)),
    ("a2", "theorem_4_1", lambda right: _scaled(right, 2.0)),
    ("a2", "oracle_inequality", lambda right: _scaled(right, 0.5)),
    ("a3", "geometry_bound", lambda right: _scaled(right, 0.5)),
    ("a4", "geometry_bound", lambda right: _scaled(right, 1.01)),
    ("a6", "link_constants", _with_a_larger_eta),
    ("a8", "diversity_metrics", _without_square),
    ("a8", "geometry_bound", lambda right: _scaled(right, 1.01)),
    ("a10", "link_constants", _equal_constants),
    ("a11", "theorem_4_1", lambda right: _scaled(right, 1.01)),
    ("a11", "oracle_inequality", lambda right: _scaled(right, 1.01)),
    ("a12", "theorem_4_1", lambda right: _scaled(right, 1.01)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "function", "mutation"), MUTATIONS)
def test_a_wrong_formula_of_ours_gives_no_verdict(
    measurements: dict, monkeypatch: pytest.MonkeyPatch, name: str, function: str, mutation
) -> None:
    module, measured = measurements[name]
    monkeypatch.setattr(theory, function, mutation(getattr(theory, function)))
    if module.CHECK.kind.must_hold:
        assert module.judge(measured).verdict is Verdict.REFUTED
        return
    # a defect of ours is no verdict on the printed claim
    with pytest.raises((Inconclusive, ControlAccepted)):
        module.judge(measured)


@pytest.mark.slow
@pytest.mark.parametrize(("figure", "name"), [("bias_exponent", "a2"), ("users", "a12")])
def test_a_figure_reads_the_rows_of_its_check(
    outcomes: dict, tmp_path, figure: str, name: str
) -> None:
    report.store([outcomes[name]], tmp_path / report.FOLDER, size="tiny")
    drawn = figures.draw_figure(figure, tmp_path, tmp_path / "drawn")
    assert [path.suffix for path in drawn] == [".png", ".pdf"]
    assert all(path.stat().st_size > 1000 for path in drawn)


def test_a_figure_without_rows_says_how_to_make_them(tmp_path) -> None:
    with pytest.raises(ValueError, match="run `simrlhf check A2"):
        figures.draw_figure("bias_exponent", tmp_path, tmp_path / "drawn")
