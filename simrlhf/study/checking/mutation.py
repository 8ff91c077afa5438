"""Do the checks notice a wrong theory? Every formula of `simrlhf.theory` is spoilt, one at a time.

A mutation turns a sign, doubles a constant, changes an exponent or drops a factor in one function.
What was measured stays; every check that calls the function judges again, from the quickest on,
until one of them notices: its verdict changes, a judge decides otherwise, or an error is raised.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import pkgutil
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from simrlhf import theory
from simrlhf.study.checking.form import Finding
from simrlhf.study.checking.run import load_check

# searches over n and records: no formulas
_NO_FORMULAS = ("statement", "sample_size")
# calls in whose arguments nothing is part of a formula: refusals, shapes, thresholds of rounding
_NOT_FORMULAS = ("checks", "require", "range", "reshape", "shape", "arange", "linspace", "finfo")
# mutations, or functions all of whose mutations, may leave everything as it is, and why
EQUIVALENT: dict[str, str] = {
    "brackets.construct_brackets": "a construction: another list that still covers is as good, and "
    "definition_4_2 holds whatever is listed to the definition",
    "brackets._ball_grid": "the same",
    "information._half_line_rule": "panels of a quadrature rule: others integrate as well",
    "information.isotropic_fisher: 1.0 -> 2.0": "a stand-in for the norm of a zero matrix, which "
    "then multiplies zeros",
    "diversity.diversity_metrics: np.finfo(np.float64).eps * max(aggregate.shape) * values[0] -> "
    "np.finfo(np.float64).eps * max(aggregate.shape)": "a threshold of rounding",
    "diversity.diversity_metrics: np.finfo(np.float64).eps * max(aggregate.shape) -> "
    "np.finfo(np.float64).eps": "the same",
    "ingredients.curvature_floor: -margin -> margin": "by symmetry: a win at z is curved as a loss "
    "at -z, and both labels are looked at",
    "ingredients.curvature_floor: 0.0 -> 1.0": "the same, of the labels",
    "link_constants._stationary: 1.0 -> 2.0": "a clip at the end of a range in which all roots lie",
    "gaussian_limits.gaussian_limits: d1 * factors.shape[2] -> d1": "the Gaussian law's moments do "
    "not depend on the size",
    "gaussian_limits.gaussian_limits: d1 * factors.shape[2] -> factors.shape[2]": "the same",
}


@dataclass(frozen=True)
class Mutation:
    """One wrong theory.

    Attributes:
        module, function: where; the function's dotted name within its module.
        line: of the source.
        kind: sign, constant, exponent or factor.
        change: the expression before and after.
        code: of the spoilt function.
    """

    module: str
    function: str
    line: int
    kind: str
    change: str
    code: types.CodeType

    @property
    def name(self) -> str:
        """By which a survivor is explained in `EQUIVALENT`; it outlives changes elsewhere."""
        return f"{self.module}.{self.function}: {self.change}"

    @property
    def why_without_effect(self) -> str:
        """The explanation in `EQUIVALENT`, of the mutation or of its function; empty if none."""
        return EQUIVALENT.get(self.name, EQUIVALENT.get(f"{self.module}.{self.function}", ""))


@dataclass(frozen=True)
class Fate:
    """What became of a mutation: the check that noticed it, or how many did not."""

    mutation: Mutation
    caught_by: str
    tried: int


def formula_modules() -> list[str]:
    """Modules of `simrlhf.theory` whose formulas are spoilt."""
    names = sorted(module.name for module in pkgutil.iter_modules(theory.__path__))
    return [name for name in names if name not in _NO_FORMULAS]


def mutations(module_name: str) -> Iterator[Mutation]:
    """Every mutation of a module, in the order of its source."""
    module = importlib.import_module(f"simrlhf.theory.{module_name}")
    tree = ast.parse(inspect.getsource(module))
    for node, dotted in _functions(tree):
        for target in _formula_nodes(node):
            for kind, new in _changes(target):
                spoilt = _replaced(tree, target, new)
                code = _code_of(compile(spoilt, module.__file__ or module_name, "exec"), dotted)
                change = f"{ast.unparse(target)} -> {ast.unparse(new)}"
                yield Mutation(module_name, dotted, target.lineno, kind, change, code)


def run_mutations(names: list[str], *, size: str, report: Callable[[Fate], None]) -> list[Fate]:
    """Spoil every formula and let the checks judge; `report` is told each fate at once."""
    judged = sorted((_Judged(name, size) for name in names), key=lambda one: one.seconds)
    fates = []
    for module_name in formula_modules():
        for mutation in mutations(module_name):
            fate = _fate(mutation, judged)
            report(fate)
            fates.append(fate)
    return fates


def as_table(fates: list[Fate]) -> pd.DataFrame:
    """One row for each mutation: where, what, who caught it, or why nobody can."""
    return pd.DataFrame(
        [
            {
                "name": fate.mutation.name,
                "module": fate.mutation.module,
                "function": fate.mutation.function,
                "line": fate.mutation.line,
                "kind": fate.mutation.kind,
                "caught_by": fate.caught_by,
                "tried": fate.tried,
                "equivalent": "" if fate.caught_by else fate.mutation.why_without_effect,
            }
            for fate in fates
        ]
    )


def by_module(table: pd.DataFrame) -> pd.DataFrame:
    """Mutations of each module: all, caught, without effect, and the checks that caught them."""
    counts = pd.DataFrame(
        {
            "mutations": table.groupby("module").size(),
            "caught": table[table["caught_by"] != ""].groupby("module").size(),
            "no effect": table[table["equivalent"] != ""].groupby("module").size(),
            "by": table[table["caught_by"] != ""]
            .groupby("module")["caught_by"]
            .agg(lambda names: " ".join(sorted(set(names)))),
        }
    ).fillna({"caught": 0, "no effect": 0, "by": ""})
    return counts.astype({"caught": int, "no effect": int})


class _Judged:
    """A check with its measurement, its judgement under the true theory, and what that called."""

    def __init__(self, name: str, size: str) -> None:
        self.name = name
        self.module = load_check(name)
        self.measured = self.module.measure(size)
        self.called: set[types.CodeType] = set()
        started = time.perf_counter()
        sys.setprofile(self._note)
        try:
            self.finding = self.module.judge(self.measured)
        finally:
            sys.setprofile(None)
        self.seconds = time.perf_counter() - started

    def _note(self, frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and "theory" in frame.f_code.co_filename:
            self.called.add(frame.f_code)

    def notices(self) -> bool:
        """Whether judging again ends otherwise."""
        try:
            found: Finding = self.module.judge(self.measured)
        except Exception:  # a wrong theory may fail in any way; that it fails is noticed
            return True
        held = [judgement.holds for judgement in found.judgements]
        return found.verdict is not self.finding.verdict or held != [
            judgement.holds for judgement in self.finding.judgements
        ]


def _fate(mutation: Mutation, judged: list[_Judged]) -> Fate:
    function = _function(mutation)
    true_code = function.__code__
    concerned = [check for check in judged if true_code in check.called]
    function.__code__ = mutation.code
    try:
        for tried, check in enumerate(concerned, start=1):
            if check.notices():
                return Fate(mutation, check.name, tried)
    finally:
        function.__code__ = true_code
    return Fate(mutation, "", len(concerned))


def _function(mutation: Mutation) -> types.FunctionType:
    found: object = importlib.import_module(f"simrlhf.theory.{mutation.module}")
    for part in mutation.function.split("."):
        found = inspect.getattr_static(found, part)
    found = found.fget if isinstance(found, property) else found
    assert isinstance(found, types.FunctionType)
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    """Functions of the module and methods of its classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, node.name
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield inner, f"{node.name}.{inner.name}"


def _formula_nodes(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions of arithmetic in a function's body, outermost first."""
    children = node.body if isinstance(node, ast.FunctionDef) else ast.iter_child_nodes(node)
    for child in children:
        if isinstance(child, ast.Assert | ast.Raise | ast.JoinedStr | ast.Slice):
            continue
        if isinstance(child, ast.Call) and _called(child) & set(_NOT_FORMULAS):
            continue
        if isinstance(child, ast.Subscript):  # an index is no formula
            yield from _formula_nodes(ast.Expression(child.value))
            continue
        if isinstance(child, ast.Compare):  # nor is a threshold
            continue
        if isinstance(child, ast.expr) and _changes(child):
            yield child
        yield from _formula_nodes(child)


def _called(call: ast.Call) -> set[str]:
    return {
        part.id if isinstance(part, ast.Name) else part.attr
        for part in ast.walk(call.func)
        if isinstance(part, ast.Name | ast.Attribute)
    }


def _changes(node: ast.expr) -> list[tuple[str, ast.expr]]:
    """What may be wrong about one expression."""
    if isinstance(node, ast.BinOp):
        return _changes_of_operation(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [("sign", node.operand)]
    root = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    if root and node.func.attr == "sqrt" and len(node.args) == 1:  # type: ignore[union-attr]
        return [("exponent", node.args[0])]  # type: ignore[union-attr]
    if isinstance(node, ast.Constant) and type(node.value) is float:
        return [("constant", ast.Constant(2.0 * node.value if node.value else 1.0))]
    return []


def _changes_of_operation(node: ast.BinOp) -> list[tuple[str, ast.expr]]:
    left, right = node.left, node.right
    match node.op:
        case ast.Add():
            return [("sign", ast.BinOp(left, ast.Sub(), right))]
        case ast.Sub():
            return [("sign", ast.BinOp(left, ast.Add(), right))]
        case ast.Mult() | ast.MatMult():
            return [("factor", left), ("factor", right)]
        case ast.Div():
            return [("factor", left)]
        case ast.Pow():
            return [("exponent", left)]
    return []


def _replaced(tree: ast.Module, target: ast.expr, new: ast.expr) -> ast.Module:
    """A copy of the tree in which `new` stands for `target`."""

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            same = (
                type(node) is type(target)
                and getattr(node, "lineno", -1) == target.lineno
                and getattr(node, "col_offset", -1) == target.col_offset
                and getattr(node, "end_col_offset", -1) == target.end_col_offset
                and getattr(node, "end_lineno", -1) == target.end_lineno
            )
            return copy.deepcopy(new) if same else self.generic_visit(node)

    spoilt = Replace().visit(copy.deepcopy(tree))
    assert isinstance(spoilt, ast.Module)
    return ast.fix_missing_locations(spoilt)


def _code_of(module: types.CodeType, dotted: str) -> types.CodeType:
    """The code of a function in a compiled module."""
    for part in dotted.split("."):
        module = next(
            constant
            for constant in module.co_consts
            if isinstance(constant, types.CodeType) and constant.co_name == part
        )
    return module
