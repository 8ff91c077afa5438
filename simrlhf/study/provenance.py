"""Where numbers come from: versions, machine and settings of the process that made them."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

import simrlhf

_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "pandas", "pyarrow")


@cache
def provenance() -> dict[str, str]:
    """Facts about this process that could change a number, as text."""
    import jax

    return {
        "simrlhf": simrlhf.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
        "device": str(jax.devices()[0].device_kind),
        "platform": platform.platform(),
        "cores": str(os.cpu_count()),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


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
