"""The machinery of checks: what counts as a defect, what is written, what a measurement may see."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.study import provenance
from simrlhf.study.checking import command, mutation, report, run
from simrlhf.study.checking.run import Outcome, list_checks, load_check

FAKE = '''
"""A check for tests."""
import pandas as pd
from simrlhf import testing
from simrlhf.study.checking import Check, Kind, attempt, exactly, proved

CHECK = Check(statement="X1", title="t", kind=Kind.{kind}, claim="c | d", procedure="p", rival="r",
              tolerance="tol", source="s")

def measure(size):
    {measure}

def judge(measured):
    judged = attempt(testing.never_violated, [measured, 1.0], [2.0, 2.0], rival={rival})
    return proved([judged], quantity="q", measured=exactly(float("inf")), remark="said",
                  rows=pd.DataFrame({{"x": [1.0]}}), n_star=float("inf"))
'''


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run one fake check and return what came out."""

    def of(*, kind: str = "SOUND", measure: str = "return 1.9", rival: float = 1.5) -> Outcome:
        path = tmp_path / "x1.py"
        path.write_text(FAKE.format(kind=kind, measure=measure, rival=rival), encoding="utf-8")
        monkeypatch.setattr(run, "list_checks", lambda: {"x1": path, "x2": path})
        (found,) = run.run_checks(["x1"], "tiny")
        return found

    return of


def test_a_claim_that_holds_while_its_rival_fails_is_no_defect(outcome) -> None:
    found = outcome()
    assert found.finding is not None
    assert not found.is_defect


def test_a_rival_that_passes_too_is_a_defect_whatever_the_kind(outcome) -> None:
    for kind in ("SOUND", "PRINTED", "AUDIT"):
        found = outcome(kind=kind, rival=1.95)
        assert found.is_defect
        assert "Control accepted" in found.failure


@pytest.mark.parametrize(
    ("kind", "defect"), [("SOUND", True), ("LIMIT", True), ("PRINTED", False), ("AUDIT", False)]
)
def test_a_refuted_statement_is_a_defect_only_where_it_is_proved(outcome, kind, defect) -> None:
    found = outcome(kind=kind, measure="return 2.5")
    assert found.finding.verdict == "REFUTED"
    assert found.is_defect is defect


def test_an_error_in_a_check_is_told_with_its_place_and_ends_no_other(outcome) -> None:
    found = outcome(measure="raise ZeroDivisionError('in the middle')")
    assert found.is_defect
    assert found.failure == "ZeroDivisionError: in the middle (x1.py:11)"


def test_the_command_writes_readable_records_and_fails_on_a_defect(
    outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome()
    monkeypatch.setattr(command, "chosen", lambda names: ["x1"])
    assert command.check(["x1"], size="tiny", out=tmp_path, workers=1)
    folder = tmp_path / "checks"
    record = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    (one,) = record["checks"]
    assert one["verdict"] == "HOLDS"
    # infinity is a word: JSON has no number for it
    assert one["n_star"] == "inf"
    assert one["size"] == "tiny"
    assert "c \\| d" in (folder / "verdicts.md").read_text(encoding="utf-8")
    assert len(pd.read_parquet(folder / "x1.parquet")) == 1
    outcome(measure="return 2.5")
    assert not command.check(["x1"], size="tiny", out=tmp_path, workers=1)


def test_a_later_run_of_one_check_keeps_the_verdicts_of_others(
    outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checks"
    report.store([outcome()], folder, size="tiny")
    other = dataclasses.replace(outcome(measure="return 1.8"), name="x2")
    report.store([other], folder, size="tiny")
    record = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in record["checks"]] == ["x1", "x2"]
    assert (folder / "verdicts.md").read_text(encoding="utf-8").count("| X1 |") == 2
    # a verdict of a check that has changed since is not shown beside the others
    (tmp_path / "x1.py").write_text("# changed", encoding="utf-8")
    provenance.check_digest.cache_clear()
    report.store([], folder, size="tiny")
    assert "| X1 |" not in (folder / "verdicts.md").read_text(encoding="utf-8")
    # another size is another table
    report.store([other], folder, size="smoke")
    record = json.loads((folder / "verdicts.json").read_text(encoding="utf-8"))
    assert [one["size"] for one in record["checks"]] == ["tiny", "smoke"]
    assert (folder / "verdicts.md").read_text(encoding="utf-8").count("| X1 |") == 1


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(
    outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome(measure="raise AssertionError('computed')")
    monkeypatch.setattr(command, "chosen", lambda names: ["x1"])
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(checks.InputError, match="give a writable --out"):
        command.check(["x1"], size="tiny", out=tmp_path / "taken")


def test_statements_are_known_by_file_and_by_name() -> None:
    assert run.chosen(["S2", "Lemma 5", "definition_a_1"]) == ["definition_a_1", "lemma_5", "s2"]
    with pytest.raises(checks.InputError, match="lemma_6"):
        run.chosen(["lemma_66"])


def test_the_table_goes_from_definitions_to_the_audit() -> None:
    names = list(list_checks())
    for earlier, later in (("definition_a_1", "theorem_4_1"), ("lemma_6", "s1"), ("s4b", "s6"),
                           ("s2", "l1"), ("l5", "a1"), ("a2", "a11")):  # fmt: skip
        assert names.index(earlier) < names.index(later)


@pytest.mark.parametrize("name", list(list_checks()))
def test_every_check_declares_itself_and_measures_without_the_theory(name: str) -> None:
    declared = load_check(name).CHECK
    for field, text in vars(declared).items():
        assert str(text).strip(), field
    functions = {
        node.name: node
        for node in ast.parse(list_checks()[name].read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    reached, waiting = set(), ["measure"]
    while waiting:
        function = waiting.pop()
        if function in reached:
            continue
        reached.add(function)
        used = {node.id for node in ast.walk(functions[function]) if isinstance(node, ast.Name)}
        assert "theory" not in used, f"{function} of {name} measures with the theory's help"
        waiting += sorted(used & set(functions))


def test_a_spoilt_formula_is_noticed_and_put_right_again() -> None:
    true = theory.geometry_bound(3.0, sigma_k=2.0, ceiling=9.0).value
    judged = [mutation._Judged("s1", "tiny")]
    spoilt = [m for m in mutation.mutations("subspaces") if m.function == "geometry_bound"]
    assert {m.kind for m in spoilt} == {"constant", "factor"}
    fates = [mutation._fate(m, judged) for m in spoilt]
    assert [fate.caught_by for fate in fates] == ["s1"] * len(spoilt)
    assert theory.geometry_bound(3.0, sigma_k=2.0, ceiling=9.0).value == true


def test_a_check_that_does_not_call_a_function_is_not_asked() -> None:
    judged = [mutation._Judged("definition_a_1", "tiny")]
    elsewhere = next(m for m in mutation.mutations("covers"))
    assert mutation._fate(elsewhere, judged) == mutation.Fate(elsewhere, "", 0)
