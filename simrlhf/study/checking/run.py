"""Find the checks, run them, keep their evidence."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from simrlhf.core import checks
from simrlhf.study import shipped
from simrlhf.study.checking.form import SIZES, Check, Finding, Verdict
from simrlhf.testing import ControlAccepted

FOLDER = "theory_checks"
# order of the table: what the paper defines and prints, what is proved here, limits, the audit
_ORDER = ("definition", "assumption", "theorem", "proposition", "lemma", "s", "l", "a")
# other names of statements
_ALIASES = {"wilks": "l3"}


@dataclass(frozen=True)
class Outcome:
    """A check after it ran.

    Attributes:
        name: the file's stem, by which the command line knows it.
        check: what was declared.
        finding: what was found; `None` where the check itself failed.
        failure: why it failed, in one line: a rival that was not rejected, or an error.
        seconds: wall-clock time, compilation included.
    """

    name: str
    check: Check
    finding: Finding | None
    failure: str
    seconds: float

    @property
    def is_defect(self) -> bool:
        """Whether the command must not end with success."""
        if self.finding is None:
            return True
        return self.check.kind.must_hold and self.finding.verdict is Verdict.REFUTED


def list_checks() -> dict[str, Path]:
    """Shipped checks by name, in the order of the table."""
    folder = shipped.shipped_folder(FOLDER)
    return {path.stem: path for path in sorted(folder.glob("*.py"), key=lambda p: _place(p.stem))}


def load_check(name: str) -> ModuleType:
    """The module of a check: it has `CHECK`, `measure` and `judge`."""
    return shipped.load_script(list_checks()[name])


def chosen(names: Iterable[str]) -> list[str]:
    """Names as given on the command line, `S2` or `lemma_5` or `"Lemma 5"`; all without any.

    Raises:
        InputError: a name that no check has.
    """
    known = list(list_checks())
    wanted = [re.sub(r"[ .]", "_", name.strip().lower()) for name in names]
    wanted = [_ALIASES.get(name, name) for name in wanted]
    for given in wanted:
        checks.choice("check", given, known)
    return [name for name in known if name in wanted] or known


def run_checks(names: Iterable[str], size: str) -> Iterator[Outcome]:
    """Run checks one after the other; a check that fails does not end the others."""
    checks.choice("size", size, SIZES)
    for name in names:
        module = load_check(name)
        started = time.perf_counter()
        finding, failure = None, ""
        try:
            finding = module.judge(module.measure(size))
        except ControlAccepted as accepted:
            failure = str(accepted)
        except Exception as error:  # the table says so: one check must not hide the others
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = " ".join(str(error).split())
            failure = f"{type(error).__name__}: {said} ({Path(where.filename).name}:{where.lineno})"
        yield Outcome(name, module.CHECK, finding, failure, time.perf_counter() - started)


def _place(name: str) -> tuple[int, list[int], str]:
    """Place of a check in the table: its family, then its number, as (3, [4, 1]) for a theorem."""
    family = max((f for f in _ORDER if name.startswith(f)), key=len, default="")
    place = _ORDER.index(family) if family else len(_ORDER)
    return place, [int(number) for number in re.findall(r"\d+", name)], name
