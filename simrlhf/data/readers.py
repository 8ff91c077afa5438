"""The four file formats as one thing: named columns, and where each row stands in the file.

CSV and parquet are read by Arrow, JSON lines by the standard library (so that a message can name
the line), npz by NumPy. What the columns mean is the business of `files`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simrlhf.core import checks

NAME_FIELDS = ("user_id", "group", "pair_id")
TEXT_FIELDS = ("text_a", "text_b")
NUMBER_FIELD = re.compile(r"choice|weight|(?:x|[ab]_)\d+(?:_\d+)?")
EXTENSIONS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".npz")

_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError, zipfile.BadZipFile, csv.Error)


class Columns(NamedTuple):
    """The columns of one file.

    Attributes:
        path: the file, as the user wrote it.
        names: all column names.
        values: the columns of the schema: numbers, or Python objects where not all are numbers.
        n_rows: their common length.
        locate: turns a row (from 0) into the words that find it again, such as "line 7".
    """

    path: str
    names: list[str]
    values: dict[str, np.ndarray]
    n_rows: int
    locate: Callable[[int], str]


def read(path: str | Path) -> Columns:
    """Read the schema's columns of a parquet, csv, jsonl or npz file.

    Raises:
        InputError: no such file, a folder, an unknown extension, a file that cannot be read or
            that holds no rows.
    """
    place = Path(path)
    checks.require(place.exists(), f"{path}: no such file; check the path")
    checks.require(place.is_file(), f"{path} is a folder, not a file; name one file in it")
    reader = _READERS[extension(place)]
    empty = f"{path} is empty; it needs a header or fields, and one row for each comparison"
    checks.require(place.stat().st_size > 0, empty)
    columns = reader(place)
    checks.require(
        columns.n_rows > 0, f"{path} holds no rows; it needs one row for each comparison"
    )
    return columns


def extension(path: Path) -> str:
    """The extension of a known format; anything else is an `InputError` that lists them."""
    name = path.name.lower()
    for known in sorted(EXTENSIONS, key=len, reverse=True):
        if name.endswith(known):
            return known
    raise checks.InputError(
        f"{path}: unknown extension {path.suffix or '(none)'!r}; use one of {', '.join(EXTENSIONS)}"
    )


def in_schema(name: str) -> bool:
    """Whether a column of this name is read."""
    return name in NAME_FIELDS + TEXT_FIELDS or bool(NUMBER_FIELD.fullmatch(name))


def _unreadable(path: Path, what: str, problem: object) -> checks.InputError:
    reason = " ".join(str(problem).split())[:160] or type(problem).__name__
    return checks.InputError(
        f"{path} cannot be read as {what} ({reason}); check that the file is complete and that "
        "its extension names its format"
    )


def _read_parquet(path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        names = pyarrow.parquet.read_schema(path).names
        table = pyarrow.parquet.read_table(path, columns=[n for n in names if in_schema(n)])
    except (pyarrow.ArrowException, *_UNREADABLE) as problem:
        raise _unreadable(path, "parquet", problem) from None
    values = {name: _from_arrow(table.column(name)) for name in table.column_names}
    return Columns(str(path), names, values, table.num_rows, lambda row: f"row {row + 1}")


def _from_arrow(column: object) -> np.ndarray:
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):  # type: ignore[attr-defined]
        column = column.cast(column.type.value_type)  # type: ignore[attr-defined]
    return column.to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]


def _read_csv(path: Path) -> Columns:
    import pyarrow
    import pyarrow.csv

    try:
        names = _csv_header(path)
        wanted = [name for name in names if in_schema(name)]
        if not wanted:  # Arrow takes an empty selection for all columns
            return Columns(str(path), names, {}, 1, lambda row: "line 1")
        table = pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types={name: pyarrow.string() for name in wanted}
            ),
        )
    except (pyarrow.ArrowException, *_UNREADABLE) as problem:
        raise _unreadable(path, "comma-separated text", problem) from None
    values = {name: _parsed(name, table.column(name)) for name in wanted}
    return Columns(str(path), names, values, table.num_rows, lambda row: _csv_line(path, row))


def _parsed(name: str, column: object) -> np.ndarray:
    """Numbers where every cell of a numeric field is one; the cells themselves otherwise."""
    import pyarrow
    import pyarrow.compute

    if NUMBER_FIELD.fullmatch(name):
        # a cell that is not a number stays: the caller names it
        with contextlib.suppress(pyarrow.ArrowInvalid):
            column = pyarrow.compute.cast(column, pyarrow.float64())
    return column.to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]


def _csv_rows(path: Path):
    """Yield the line on which each record begins, and its cells."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        reader, line = csv.reader(file), 1
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1


def _csv_header(path: Path) -> list[str]:
    names = next(_csv_rows(path), (1, []))[1]
    twice = sorted({name for name in names if names.count(name) > 1})
    checks.require(
        not twice, f"{path}, line 1: column {twice[0] if twice else ''!r} appears twice; rename one"
    )
    return names


def _csv_line(path: Path, row: int) -> str:
    """The line in an editor: texts may hold line breaks, so it is looked up, on errors only."""
    for count, (line, _) in enumerate(_csv_rows(path)):
        if count == row + 1:
            return f"line {line}"
    return f"row {row + 1}"


def _read_jsonl(path: Path) -> Columns:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    records, lines = [], []
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    records.append(_json_object(path, number, line))
                    lines.append(number)
    except _UNREADABLE as problem:
        raise _unreadable(path, "JSON lines", problem) from None
    names = list(dict.fromkeys(name for record in records for name in record))
    values = {n: _objects([record.get(n) for record in records]) for n in names if in_schema(n)}
    return Columns(str(path), names, values, len(records), lambda row: f"line {lines[row]}")


def _json_object(path: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as problem:
        raise checks.InputError(
            f"{path}, line {number}: not valid JSON ({problem.msg} at column {problem.colno}); "
            "write one object {...} on each line"
        ) from None
    checks.require(
        isinstance(record, dict),
        f"{path}, line {number}: expected an object {{...}}, got {type(record).__name__}",
    )
    return record


def _objects(values: list) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _read_npz(path: Path) -> Columns:
    try:
        with zipfile.ZipFile(path):  # np.load would take a lone npy or a pickle too
            pass
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, *_UNREADABLE) as problem:
        raise _unreadable(path, "npz without Python objects", problem) from None
    values = {name: array for name, array in arrays.items() if in_schema(name)}
    sizes = {name: array.shape for name, array in values.items()}
    flat = [name for name, shape in sizes.items() if len(shape) != 1]
    checks.require(
        not flat,
        f"{path}, field {flat[0] if flat else ''!r} has shape {sizes[flat[0]] if flat else ''}; "
        "every field is one-dimensional, with one entry for each comparison (x0, x1, ...)",
    )
    lengths = {shape[0] for shape in sizes.values()}
    listed = ", ".join(f"{name} {shape[0]}" for name, shape in sizes.items())
    checks.require(len(lengths) <= 1, f"{path}: fields differ in length ({listed[:160]})")
    n_rows = lengths.pop() if lengths else 1
    return Columns(str(path), list(arrays), values, n_rows, lambda row: f"row {row + 1}")


_READERS: dict[str, Callable[[Path], Columns]] = {
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".npz": _read_npz,
}
