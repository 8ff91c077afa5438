"""Where a study's results lie, and reading them back."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pandas as pd

from simrlhf.core import checks
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import Store
from simrlhf.world import WorldConfig

DEFAULT_OUT = Path("results")
_MANIFEST = "study.json"


def study_folder(study: str, out: Path = DEFAULT_OUT) -> Path:
    """`OUT/STUDY`: rows in `rows/`, the last sweep in `study.json`, figures beside them."""
    return Path(out) / study


def open_store(study: str, out: Path = DEFAULT_OUT) -> Store:
    """The rows of a study."""
    return Store(study_folder(study, out) / "rows")


def write_manifest(spec: StudySpec, keys: frozenset[str], overrides: list[str], out: Path) -> None:
    """Record which rows the last sweep asked for: the store may hold those of other sizes too."""
    manifest = {
        "study": spec.name,
        "title": spec.title,
        "question": spec.question,
        "size": spec.size,
        "overrides": overrides,
        "keys": sorted(keys),
    }
    folder = study_folder(spec.name, out)
    hidden = folder / f".{_MANIFEST}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hidden.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        os.replace(hidden, folder / _MANIFEST)
    except OSError as error:
        raise checks.InputError(
            f"cannot write to {folder} ({error.strerror}); give a writable --out"
        ) from None


def has_results(study: str, out: Path = DEFAULT_OUT) -> bool:
    """Whether a sweep of this study was begun under `out`."""
    return (study_folder(study, out) / _MANIFEST).is_file()


def read_manifest(study: str, out: Path = DEFAULT_OUT) -> dict:
    """What the last sweep of a study asked for."""
    path = study_folder(study, out) / _MANIFEST
    checks.require(
        path.is_file(),
        f"no results of study {study!r} under {out}; run: simrlhf sweep {study} --out {out}",
    )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        complete = {"size", "overrides", "keys"} <= set(manifest)
    except (ValueError, TypeError):
        complete, manifest = False, {}
    checks.require(
        complete,
        f"{path} is damaged; run simrlhf sweep {study} --out {out} with the size and settings "
        "wanted: stored rows are used again",
    )
    return manifest


def require_one_world(rows: pd.DataFrame, *, swept: tuple[str, ...] = ("n_users",)) -> None:
    """Refuse rows of several worlds or fit settings: a median over them would mix them silently."""
    settings = [field.name for field in dataclasses.fields(WorldConfig)]
    settings += [name for name in rows.columns if name.startswith("fit_")]
    mixed = [
        name
        for name in settings
        if name in rows and name not in swept and rows[name].nunique(dropna=False) > 1
    ]
    checks.require(
        not mixed,
        f"the results hold several values of {', '.join(mixed)}, and only {', '.join(swept)} may "
        "vary here; sweep one value at a time (another --out keeps them apart)",
    )


def load_results(study: str, out: str | Path = DEFAULT_OUT) -> pd.DataFrame:
    """Rows of the last sweep of `study`, one per cell, estimator and repetition.

    Raises:
        InputError: there are none, or the sweep is not finished (it says how many are missing).
    """
    manifest = read_manifest(study, Path(out))
    frame = open_store(study, Path(out)).read(manifest["keys"])
    missing = len(manifest["keys"]) - len(frame)
    size = manifest["size"]
    checks.require(
        missing == 0,
        f"{missing} of {len(manifest['keys'])} rows of study {study!r} ({size}) are missing; "
        f"finish it: simrlhf sweep {study} --resume --out {out}",
    )
    return frame
