"""Where numbers come from: program, versions and machine of the process that made them."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import simrlhf

_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "pandas", "pyarrow")
# what decides the numbers of a row: the storeys below the studies, and the cell functions
_DECIDING = ("core", "world", "data", "theory", "estimators", "metrics", "sampling.py")
_CELLS = ("study/cells.py", "study/newcomers.py", "study/tasks.py")
# what more decides a check's verdict
_JUDGING = ("testing", "study/checking")
# facts in which rows of one table must agree. Not the machine: a processor or a number of threads
# changes numbers by rounding only. JAX draws the random numbers, NumPy and SciPy factorise
_IDENTITY = ("code", "jax", "numpy", "scipy")


@cache
def provenance() -> dict[str, str]:
    """Facts about this process that could change a number, as text."""
    import jax

    return {
        "simrlhf": simrlhf.__version__,
        "code": code_digest(),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "device": str(jax.devices()[0].device_kind),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": str(os.cpu_count()),
        "xla_threads": os.environ.get("NPROC", ""),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def code_digest() -> str:
    """Hash of the source files that decide a row's numbers, the same in a clone and in a wheel."""
    return _digest((*_CELLS, *_DECIDING))


@cache
def check_digest(script: Path) -> str:
    """Hash of the source files that decide a check's verdict: its script's and the program's."""
    return _digest((*_CELLS, *_DECIDING, *_JUDGING), script)


def _digest(names: Iterable[str], *scripts: Path) -> str:
    package = Path(simrlhf.__file__).parent
    digest = hashlib.sha256()
    for name in names:
        for path in sorted((package / name).rglob("*.py")) or [package / name]:
            digest.update(path.relative_to(package).as_posix().encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    for path in scripts:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def identity(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts in which rows of one table must agree; versions by major and minor number."""
    return {
        name: facts.get(name, "") if name == "code" else _series(facts.get(name, ""))
        for name in _IDENTITY
    }


def describe(facts: Mapping[str, str]) -> str:
    """A program in a few words, for a message."""
    commit = f" at {facts['commit']}" if facts.get("commit") else ""
    libraries = ", ".join(f"{name} {facts.get(name, '?')}" for name in _IDENTITY[1:])
    return (
        f"simrlhf {facts.get('simrlhf', '?')}{commit} (code {facts.get('code', '?')}; {libraries})"
    )


def _series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _commit() -> str:
    """Commit of the clone the package runs from, `+` where modified; empty outside a clone."""
    root = Path(simrlhf.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        said = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git on this machine: the version must do
        return ""
    return said.stdout.strip()
