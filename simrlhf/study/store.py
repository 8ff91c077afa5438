"""The results store: Parquet files of rows, each written whole or not at all.

A row is one (cell, estimator) and carries the content key of what was computed; a file holds the
rows of one task. Names are fresh, so writers never touch one another's files; a row that exists
twice is the same row. What is missing is found by key, never by file name.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from simrlhf.core import checks
from simrlhf.study.provenance import provenance

# part of every content key: raise it when a cell function changes what its numbers mean
SCHEMA = 1
_PROVENANCE = b"simrlhf.provenance"


def content_key(description: Mapping[str, Any]) -> str:
    """Hash of everything that determines a row's numbers."""
    text = json.dumps(_plain({"schema": SCHEMA, **description}), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _plain(value: Any) -> Any:
    """3.0 as 3: the same number must not hash apart for the way it was written."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Store:
    """Rows of one study under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def keys(self) -> set[str]:
        """Content keys of all stored rows."""
        found: set[str] = set()
        for path in self._files():
            found |= set(self._read(path, ["key"]).column("key").to_pylist())
        return found

    def write(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Add rows in one file that appears complete or not at all, even if the machine stops."""
        self._make_folder()
        table = pa.Table.from_pandas(pd.DataFrame(list(rows)), preserve_index=False)
        facts = json.dumps(provenance()).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _PROVENANCE: facts})
        name = uuid.uuid4().hex
        hidden, final = self.folder / f".{name}.partial", self.folder / f"{name}.parquet"
        try:
            with hidden.open("wb") as file:
                pq.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, final)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            raise checks.InputError(
                f"cannot write results to {self.folder} ({error.strerror}); free space or give "
                "another --out; rows already written are kept"
            ) from None
        return final

    def read(self, keys: Iterable[str] | None = None) -> pd.DataFrame:
        """Rows as a table, one per key, in a stable order; all of them or those of `keys`."""
        tables = [self._read(path, None) for path in self._files()]
        if not tables:
            return pd.DataFrame()
        frame = pa.concat_tables(tables, promote_options="permissive").to_pandas()
        frame = frame.drop_duplicates("key")
        if keys is not None:
            frame = frame[frame["key"].isin(set(keys))]
        order = [c for c in ("n_users", "n_pairs", "estimator", "repetition", "key") if c in frame]
        return frame.sort_values(order, kind="stable").reset_index(drop=True)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.parquet")) if self.folder.is_dir() else []

    def _read(self, path: Path, columns: list[str] | None) -> pa.Table:
        try:
            return pq.read_table(path, columns=columns, partitioning=None)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise checks.InputError(
                f"results file {path} cannot be read ({str(error).splitlines()[0]}); remove it and "
                "run the sweep again: only its rows are recomputed"
            ) from None

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise checks.InputError(
                f"cannot create {self.folder} ({error.strerror}); give a writable --out"
            ) from None
