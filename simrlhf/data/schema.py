"""What the columns of a file mean: the schema of `files`, checked cell by cell.

Every function takes the columns of one file and fails with one line that names the file, the line
or row, the field, the value and the remedy.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import NoReturn

import numpy as np

from simrlhf.core import checks
from simrlhf.data import readers
from simrlhf.data.readers import Columns
from simrlhf.data.tables import PairTable

_OPTIONAL = ("weight", "group", "pair_id")
_FEATURE = re.compile(r"(x|a_|b_)(0|[1-9]\d*)(?:_(0|[1-9]\d*))?")
_CONTENTS = "x0, x1, ... (differences), a_0, ... and b_0, ... (two items), or text_a and text_b"


def table_fields(columns: Columns, *, is_preference: bool) -> dict:
    """The arguments of `PairTable` that the columns hold.

    Raises:
        InputError: a missing or misspelt field, a gap in the features, a cell of the wrong type,
            empty, not finite or out of range.
    """
    _refuse_near_misses(columns)
    for name in ("user_id", "choice"):
        _require_column(columns, name)
    choice = _numbers(columns, "choice", "write 1 where the first was preferred and 0 otherwise")
    if is_preference:
        problem = (
            "is outside [0, 1]; write 1, 0 or a probability, or use link='identity' for real "
            "responses"
        )
        _require_inside(columns, "choice", choice, (choice >= 0) & (choice <= 1), problem)
    fields = {"user_ids": _names(columns, "user_id"), "choice": choice, **_content(columns)}
    if "weight" in columns.values:
        weights = _numbers(columns, "weight", "write a non-negative number, or leave the field out")
        _require_inside(
            columns, "weight", weights, weights >= 0, "is negative; write 0 to leave a pair out"
        )
        fields["weights"] = weights
    for name, field in (("group", "groups"), ("pair_id", "pair_ids")):
        if name in columns.values:
            fields[field] = _names(columns, name)
    return fields


def file_fields(table: PairTable) -> dict[str, np.ndarray]:
    """The fields that hold a table, the inverse of `table_fields`."""
    fields = {"user_id": table.user_ids, "choice": table.choice}
    if table.pairs is None:
        fields.update(_numbered("x", table.differences))
    elif table.texts is not None:
        texts = np.array(table.texts, object)
        fields.update(text_a=texts[table.pairs[:, 0]], text_b=texts[table.pairs[:, 1]])
    else:
        for side, prefix in enumerate(("a_", "b_")):
            fields.update(_numbered(prefix, np.asarray(table.items)[table.pairs[:, side]]))
    optional = {"weight": table.weights, "group": table.groups, "pair_id": table.pair_ids}
    return fields | {name: values for name, values in optional.items() if values is not None}


def _numbered(prefix: str, features: np.ndarray | None) -> dict[str, np.ndarray]:
    values = np.asarray(features)
    if values.ndim == 2 or values.shape[2] == 1:
        flat = values.reshape(len(values), -1)
        return {f"{prefix}{r}": column for r, column in enumerate(flat.T)}
    return {f"{prefix}{r}_{c}": values[:, r, c] for r, c in np.ndindex(values.shape[1:])}


def _content(columns: Columns) -> dict:
    """The one kind of content that the file holds, as arguments of `PairTable`."""
    found = {
        "x0 ...": [n for n in columns.values if n.startswith("x")],
        "a_0 ... and b_0 ...": [n for n in columns.values if n.startswith(("a_", "b_"))],
        "text_a and text_b": [n for n in columns.values if n in readers.TEXT_FIELDS],
    }
    kinds = [kind for kind, names in found.items() if names]
    if not kinds:
        _fail(columns, f"has no features: give {_CONTENTS}; {_found(columns)}")
    if len(kinds) > 1:
        _fail(columns, f"holds {' as well as '.join(kinds)}; keep one kind of features")
    if found["x0 ..."]:
        return {"differences": _matrix(columns, "x")}
    if found["text_a and text_b"]:
        first, second = (_texts(columns, name) for name in readers.TEXT_FIELDS)
        place = {t: i for i, t in enumerate(dict.fromkeys([*first, *second]))}
        pairs = np.array([[place[a], place[b]] for a, b in zip(first, second, strict=True)])
        return {"texts": tuple(place), "pairs": pairs}
    first, second = _matrix(columns, "a_"), _matrix(columns, "b_")
    if first.shape != second.shape:
        _fail(columns, f"holds items of {_size(first)} in a_... but of {_size(second)} in b_...")
    return _unique_items(np.concatenate([first, second]))


def _unique_items(items: np.ndarray) -> dict:
    """Equal items once, in order of first appearance, and the pairs as indices into them."""
    rows = np.ascontiguousarray(items).reshape(len(items), -1)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return {"items": items[np.sort(first)], "pairs": rank[inverse].reshape(2, -1).T}


def _matrix(columns: Columns, prefix: str) -> np.ndarray:
    """`(P, d1, d2)` of the fields `prefix` plus row, or row and column, without a gap."""
    found = {}
    for name in columns.values:
        match = _FEATURE.fullmatch(name)
        if match and match[1] == prefix:
            found[int(match[2]), None if match[3] is None else int(match[3])] = name
    checks.require(
        len({column is None for _, column in found}) <= 1,
        f"{columns.path} mixes {prefix}0 with {prefix}0_0; write vectors as {prefix}0, {prefix}1 "
        f"and matrices as {prefix}0_0, {prefix}0_1",
    )
    cells = {(row, column or 0): name for (row, column), name in found.items()}
    d1 = 1 + max((row for row, _ in cells), default=0)
    d2 = 1 + max((column for _, column in cells), default=0)
    flat = all(column is None for _, column in found)
    for row, column in np.ndindex(d1, d2):
        if (row, column) not in cells:
            wanted = f"{prefix}{row}" if flat else f"{prefix}{row}_{column}"
            _fail(
                columns,
                f"misses the field {wanted!r} among {len(cells)} fields {prefix}...; number them "
                "from 0, without a gap or leading zeros",
            )
    stacked = [_numbers(columns, cells[cell], "write a number") for cell in np.ndindex(d1, d2)]
    return np.stack(stacked, axis=1).reshape(columns.n_rows, d1, d2)


def _numbers(columns: Columns, name: str, remedy: str) -> np.ndarray:
    """A field as finite float64; the first cell that is not one is named."""
    values = columns.values[name]
    if values.dtype.kind not in "biuf":
        for row, value in enumerate(values):
            if not _is_number(value):
                _fail_at(columns, name, row, value, f"is not a number; {remedy}")
        values = np.array([float(value) for value in values])
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        _fail_at(columns, name, bad[0], float(values[bad[0]]), f"is not finite; {remedy}")
    return values


def _is_number(value: object) -> bool:
    if value is None or isinstance(value, (bytes, list, dict, np.datetime64)):
        return False
    try:
        float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def _names(columns: Columns, name: str) -> np.ndarray:
    """A field of names as strings; whole numbers are written without a decimal point."""
    values = columns.values[name]
    made = []
    for row, value in enumerate(values.tolist()):
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            _fail_at(columns, name, row, value, "is empty; fill it or drop the row")
        if not isinstance(value, (str, int, float)):
            _fail_at(columns, name, row, value, "is not a name; write a string or a whole number")
        whole = isinstance(value, float) and value.is_integer()
        made.append(str(int(value) if whole else value))
    return np.array(made)


def _texts(columns: Columns, name: str) -> list[str]:
    _require_column(columns, name)
    values = columns.values[name].tolist()
    for row, value in enumerate(values):
        if value is None or value == "":
            _fail_at(columns, name, row, value, "is empty; write the text or drop the row")
        if not isinstance(value, str):
            _fail_at(columns, name, row, value, "is not a text; quote it or use a_0 for numbers")
    return values


def _require_inside(
    columns: Columns, name: str, values: np.ndarray, inside: np.ndarray, problem: str
) -> None:
    bad = np.flatnonzero(~inside)
    if bad.size:
        _fail_at(columns, name, bad[0], float(values[bad[0]]), problem)


def _require_column(columns: Columns, name: str) -> None:
    if name not in columns.values:
        others = [other for other in columns.names if not readers.in_schema(other)]
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.65)
        hint = f"is it {near[0]!r}? Rename that one" if near else "add it"
        _fail(columns, f"has no field {name!r}: {hint}; {_found(columns)}")


def _refuse_near_misses(columns: Columns) -> None:
    """A misspelt optional field would be ignored in silence; refuse it."""
    missing = [name for name in _OPTIONAL if name not in columns.values]
    for name in columns.names:
        near = difflib.get_close_matches(name, missing, n=1, cutoff=0.8)
        if near and not readers.in_schema(name):
            _fail(columns, f"has an unknown field {name!r}: is it {near[0]!r}? Rename or drop it")


def _found(columns: Columns) -> str:
    listed = ", ".join(columns.names[:8]) + (", ..." if len(columns.names) > 8 else "")
    separator = len(columns.names) == 1 and re.search(r"[;\t]", columns.names[0])
    return f"found {listed}" + (" (separate fields by commas)" if separator else "")


def _size(items: np.ndarray) -> str:
    return " x ".join(str(size) for size in items.shape[1:])


def _fail(columns: Columns, problem: str) -> NoReturn:
    raise checks.InputError(f"{columns.path} {problem}")


def _fail_at(columns: Columns, name: str, row: int, value: object, problem: str) -> NoReturn:
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    raise checks.InputError(
        f"{columns.path}, {columns.locate(int(row))}, field {name!r}: {shown} {problem}"
    )
