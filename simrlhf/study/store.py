"""The results store: Parquet files of rows, each written whole or not at all, and known by hash.

A row is one (cell, estimator) and carries the content key of what was computed; a file holds the
rows of one task. A file's name is the hash of its bytes: writers never touch one another's files,
and a file that was cut or changed afterwards is recognised before anything of it is used. A row
that exists twice is the same row, up to the rounding that another padding of its arrays brings.
What is missing is found by key, never by file name.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simrlhf.core import checks

# part of every content key: raise it when a cell function changes what its numbers mean
SCHEMA = 2
FAILED = "FAILED"
_PROVENANCE = b"simrlhf.provenance"
_DAMAGED = "damaged"
# what a killed writer left is removed once no living one can still be at it
_STALE_SECONDS = 3600.0
_ORDER = ("n_users", "n_pairs", "estimator", "repetition", "key")


class Stored(NamedTuple):
    """Rows of a store and where they come from.

    Attributes:
        rows: one per key, in a stable order; `source` numbers the entry of `facts`.
        facts: provenance of the programs that made them.
        damaged: files that could not be used.
    """

    rows: pd.DataFrame
    facts: list[dict[str, str]]
    damaged: list[Path]

    def keys(self, *, but_failed: bool = False) -> set[str]:
        """Content keys of the rows; on request without those of status `FAILED`."""
        if self.rows.empty:
            return set()
        rows = self.rows[self.rows["status"] != FAILED] if but_failed else self.rows
        return set(rows["key"])

    def of(self, keys: Iterable[str]) -> Stored:
        """The rows of `keys`."""
        if self.rows.empty:
            return self
        rows = self.rows[self.rows["key"].isin(frozenset(keys))]
        return self._replace(rows=rows.reset_index(drop=True))


def content_key(description: Mapping[str, Any]) -> str:
    """Hash of everything that determines the numbers of a grid point's rows."""
    text = json.dumps(_plain({"schema": SCHEMA, **description}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def row_key(prefix: str, place: str) -> str:
    """Key of a row from its point's key and its place there."""
    return hashlib.sha256(f"{prefix}/{place}".encode()).hexdigest()[:24]


class Store:
    """Rows of one study under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def keys(self) -> set[str]:
        """Content keys of the stored rows."""
        return self.read().keys()

    def write(self, rows: Sequence[Mapping[str, Any]], *, facts: Mapping[str, str]) -> Path:
        """Add rows in one file that appears complete or not at all, even if the machine stops.

        Args:
            facts: provenance of the process that computed them.
        """
        content = _serialised(rows, facts)
        final = self.folder / f"{_digest(content)}.parquet"
        hidden = self.folder / f".{uuid.uuid4().hex}.partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with hidden.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, final)
            _sync_folder(self.folder)
        except OSError as error:
            raise checks.InputError(
                f"cannot write results to {self.folder} ({error.strerror}); free space or give "
                "another --out; rows already written are kept"
            ) from None
        finally:  # also when interrupted; what stopped the writing may stop this too
            with suppress(OSError):
                hidden.unlink()
        return final

    def read(self, keys: Iterable[str] | None = None) -> Stored:
        """Rows, all of them or those of `keys`; a row that succeeded hides its failed twin."""
        damaged: list[Path] = []
        tables, facts = [], []
        for number, (table, source) in enumerate(self._tables(damaged)):
            tables.append(table.append_column("source", pa.array([number] * table.num_rows)))
            facts.append(source)
        if not tables:
            return Stored(pd.DataFrame(), facts, damaged)
        rows = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        rows = rows.sort_values("status", key=lambda status: status == FAILED, kind="stable")
        rows = rows.drop_duplicates("key")
        order = [name for name in _ORDER if name in rows]
        rows = rows.sort_values(order, kind="stable").reset_index(drop=True)
        stored = Stored(rows, facts, damaged)
        return stored if keys is None else stored.of(keys)

    def set_aside(self, damaged: Iterable[Path]) -> list[Path]:
        """Move files that are not what was written into `damaged/`; returns where they are now."""
        aside = self.folder / _DAMAGED
        moved = []
        for path in damaged:
            try:
                if not _is_whole(path):  # another sweep may have written it anew
                    aside.mkdir(exist_ok=True)
                    moved.append(path.replace(aside / path.name))
            except FileNotFoundError:  # another sweep on this store was faster
                continue
            except OSError as error:
                raise checks.InputError(
                    f"cannot set a damaged file aside in {self.folder} ({error.strerror}); give a "
                    "writable --out"
                ) from None
        return moved

    def remove_leftovers(self) -> None:
        """Remove what killed writers left unfinished an hour ago or longer, where that can be."""
        for path in self.folder.glob(".*.partial"):
            with suppress(OSError):  # another sweep was faster, or the folder is read-only
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def size(self) -> int:
        """Bytes on disk."""
        total = 0
        for path in self._files():
            with suppress(FileNotFoundError):  # set aside by another sweep meanwhile
                total += path.stat().st_size
        return total

    def _tables(self, damaged: list[Path]) -> Iterator[tuple[pa.Table, dict[str, str]]]:
        """Contents and provenance of whole files; the others are added to `damaged`."""
        for path in self._files():
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # set aside by another sweep meanwhile
                continue
            except OSError as error:
                raise checks.InputError(
                    f"results file {path} cannot be read ({error.strerror}); check its permissions"
                ) from None
            if _digest(content) != path.stem:
                damaged.append(path)
                continue
            file = pq.ParquetFile(pa.BufferReader(content))
            facts = json.loads((file.schema_arrow.metadata or {}).get(_PROVENANCE, b"{}"))
            yield file.read(use_threads=False), facts

    def _files(self) -> list[Path]:
        """Results files; a folder of such a name is none of ours."""
        return sorted(path for path in self.folder.glob("*.parquet") if path.is_file())


def _serialised(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> bytes:
    # a failed row has fewer columns: the others are null in it, and integers stay integers
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    table = table.replace_schema_metadata({_PROVENANCE: json.dumps(dict(facts)).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    return _digest(path.read_bytes()) == path.stem


def _sync_folder(folder: Path) -> None:
    """A new name survives a power failure only once its folder is synced; not so on Windows."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    """3.0 as 3: the same number must not hash apart for the way it was written."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
