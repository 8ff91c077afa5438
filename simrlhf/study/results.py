"""Where a study's results lie, and reading them back."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from simrlhf.core import checks
from simrlhf.study import provenance, runner, spec
from simrlhf.study.columns import POINT_COLUMNS
from simrlhf.study.spec import StudySpec
from simrlhf.study.store import FAILED, Store, Stored

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

    A manifest that says so already is not touched: rereading needs no writable folder.

    Args:
        mixed: whether rows of different programs were accepted; readers then accept them too.
    """
    manifest = {
        "study": study.name,
        "size": study.size,
        "mixed": mixed,
        "settings": dict(study.settings),
        "file": study.digest,
    }
    folder = study_folder(study.name, out)
    content = json.dumps(manifest, indent=1).encode()
    # two machines may share the folder: a process number is not enough
    hidden = folder / f".{_MANIFEST}.{uuid.uuid4().hex}"
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            if (folder / _MANIFEST).read_bytes() == content:
                return
        folder.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(content)
        os.replace(hidden, folder / _MANIFEST)
    except OSError as error:
        raise checks.InputError(
            f"cannot write to {folder} ({error.strerror}); give a writable --out"
        ) from None
    finally:  # also when interrupted; what stopped the writing may stop this too
        with suppress(OSError):
            hidden.unlink()


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
        found = spec.build_study(
            study,
            manifest["size"],
            manifest["settings"],
            digest=manifest.get("file", ""),  # not in manifests of earlier versions
        )
        return found, bool(manifest["mixed"])
    except (ValueError, TypeError, KeyError):
        raise checks.InputError(
            f"{path} is damaged, or of another version; run simrlhf sweep {study} --out {out} with "
            "the size and settings wanted: stored rows are used again"
        ) from None


def accepts_mixed(study: str, out: Path) -> bool:
    """Whether there is a last sweep of a study that accepted rows of different programs."""
    try:
        return last_study(study, out)[1]
    except checks.InputError:  # none, or one that cannot be read
        return False


def require_one_program(
    stored: Stored, where: Path, *, joining: Mapping[str, str] | None = None
) -> None:
    """Refuse rows that different programs made: their numbers may differ for no reason of theory.

    Compared are the digest of the code that decides numbers, and the series of JAX, NumPy and
    SciPy; not the machine.

    Args:
        joining: provenance of a program that is about to add rows.
    """
    programs = _programs(stored)
    said = [f"{count} by {program}" for count, program in programs.values()]
    if joining is not None and programs and _identity(joining) not in programs:
        said.append(f"the others would be by {provenance.describe(joining)}")
    checks.require(
        len(said) <= 1,
        f"the rows in {where} are not of one program: {'; '.join(said)}. Compute them anew "
        "(another --out, or remove that folder), or take them together with sweep --mixed",
    )


def made_elsewhere(stored: Stored) -> str:
    """A sentence on rows of other programs than the one that runs; empty if there are none."""
    here = provenance.provenance()
    others = {made: said for made, said in _programs(stored).items() if made != _identity(here)}
    if not others:
        return ""
    said = " and ".join(f"{count} by {program}" for count, program in others.values())
    return (
        f"of these rows {said}, not by the program that runs now, {provenance.describe(here)}: "
        "compute them anew with another --out, or accept them as they are with --mixed"
    )


def require_one_world(rows: pd.DataFrame, *, swept: tuple[str, ...] = ("n_users",)) -> None:
    """Refuse rows of several worlds or fit settings: a median over them would mix them silently."""
    settings = [*POINT_COLUMNS]
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
    Rows of one program are given without a word even if it is not the one that runs now, so that
    old results stay readable; a rerun of the sweep says so.

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
    # every row's key holds the study's seed, and rows of another are not among them
    return stored.rows.drop(columns="source").assign(seed=wanted.seed)


def _programs(stored: Stored) -> dict[tuple, tuple[int, str]]:
    """How many rows each program made, and its description."""
    found: dict[tuple, tuple[int, str]] = {}
    rows_of = stored.rows["source"].value_counts() if len(stored.rows) else {}
    for number, count in rows_of.items():
        facts = stored.facts[int(number)]
        before, _ = found.get(_identity(facts), (0, ""))
        found[_identity(facts)] = before + int(count), provenance.describe(facts)
    return found


def _identity(facts: Mapping[str, str]) -> tuple:
    return tuple(provenance.identity(facts).items())
