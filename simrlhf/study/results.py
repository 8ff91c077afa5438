"""Where a study's results lie, and reading them back."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from simrlhf.core import checks
from simrlhf.study import provenance, runner, spec
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import FAILED, Store, Stored
from simrlhf.world import WorldConfig

DEFAULT_OUT = Path("results")
_MANIFEST = "study.json"


def study_folder(study: str, out: Path = DEFAULT_OUT) -> Path:
    """`OUT/STUDY`: rows in `rows/`, the last sweep in `study.json`, figures beside them."""
    return Path(out) / study


def open_store(study: str, out: Path = DEFAULT_OUT) -> Store:
    """The rows of a study."""
    return Store(study_folder(study, out) / "rows")


def write_manifest(study: StudySpec, out: Path, *, mixed: bool = False) -> None:
    """Record what the last sweep asked for: the store may hold rows of other sizes too.

    Args:
        mixed: whether rows of different programs were accepted; readers then accept them too.
    """
    manifest = {
        "study": study.name,
        "size": study.size,
        "mixed": mixed,
        "settings": dict(study.settings),
    }
    folder = study_folder(study.name, out)
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


def last_study(study: str, out: Path = DEFAULT_OUT) -> tuple[StudySpec, bool]:
    """What the last sweep of a study asked for, and whether it accepted mixed rows."""
    path = study_folder(study, out) / _MANIFEST
    checks.require(
        path.is_file(),
        f"no results of study {study!r} under {out}; run: simrlhf sweep {study} --out {out}",
    )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = spec.build_study(study, manifest["size"], manifest["settings"])
        return found, bool(manifest["mixed"])
    except (ValueError, TypeError, KeyError):
        raise checks.InputError(
            f"{path} is damaged, or of another version; run simrlhf sweep {study} --out {out} with "
            "the size and settings wanted: stored rows are used again"
        ) from None


def require_one_program(
    stored: Stored, where: Path, *, joining: Mapping[str, str] | None = None
) -> None:
    """Refuse rows that different programs made: their numbers may differ for no reason of theory.

    Compared are the digest of the code that decides numbers, and the series of JAX, NumPy and
    SciPy; not the machine.

    Args:
        joining: provenance of a program that is about to add rows.
    """
    programs: dict[tuple, str] = {}
    counts: dict[tuple, int] = {}
    rows_of = stored.rows["source"].value_counts() if len(stored.rows) else {}
    for number, count in rows_of.items():
        facts = stored.facts[int(number)]
        made = tuple(provenance.identity(facts).items())
        programs[made] = provenance.describe(facts)
        counts[made] = counts.get(made, 0) + int(count)
    said = [f"{count} by {programs[made]}" for made, count in counts.items()]
    if joining is not None and counts and tuple(provenance.identity(joining).items()) not in counts:
        said.append(f"the others would be by {provenance.describe(joining)}")
    checks.require(
        len(said) <= 1,
        f"the rows in {where} are not of one program: {'; '.join(said)}. Compute them anew "
        "(another --out, or remove that folder), or take them together with sweep --mixed",
    )


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


def fitted(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with metrics: those whose status is not `FAILED`."""
    return rows[rows["status"] != FAILED]


def load_results(study: str, out: str | Path = DEFAULT_OUT, *, mixed: bool = False) -> pd.DataFrame:
    """Rows of the last sweep of `study`, one per cell, estimator and repetition.

    A fit that failed is a row with status `FAILED`, the reason in `message`, and null metrics.

    Args:
        mixed: accept rows that different versions of the program made, as `sweep --mixed` does.

    Raises:
        InputError: there are none, the sweep is not finished (it says how many rows are missing
            and which files are damaged), or the rows come from different programs.
    """
    wanted, accepted = last_study(study, Path(out))
    keys = runner.study_keys(wanted)
    store = open_store(study, Path(out))
    stored = store.read(keys)
    missing = len(keys) - len(stored.rows)
    damaged = f" (damaged: {', '.join(map(str, stored.damaged))})" if stored.damaged else ""
    checks.require(
        missing == 0,
        f"{missing} of {len(keys)} rows of study {study!r} ({wanted.size}) are missing{damaged}; "
        f"finish it: simrlhf sweep {study} --resume --out {out}",
    )
    if not (mixed or accepted):
        require_one_program(stored, store.folder)
    return stored.rows.drop(columns="source")
