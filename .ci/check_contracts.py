"""Negative control of the import contracts: each must fail when it is broken.

Works on a scratch copy of the package. Every case adds one forbidden import and expects
`lint-imports` to name the contract that it breaks.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STOREYS = "Imports go down the storeys only"
FRONT_DOOR = "No storey below the studies imports the package's front door"
NO_CYCLES = "No import cycles"

# file of the scratch copy, line added to it, contract that must break
CASES = (
    ("core/links.py", "import simrlhf.theory", STOREYS),
    ("theory/__init__.py", "import simrlhf.estimators", STOREYS),
    ("world/__init__.py", "import simrlhf.data", STOREYS),
    ("estimators/__init__.py", "def late():\n    import simrlhf.metrics", STOREYS),
    ("study/__init__.py", "import simrlhf.cli", STOREYS),
    ("stray.py", "import simrlhf.core", STOREYS),
    ("core/statistics.py", "import simrlhf", FRONT_DOOR),
    ("core/checks.py", "from simrlhf.core import links", NO_CYCLES),
)


def broken_contracts(folder: Path) -> set[str]:
    """Names of the contracts that `lint-imports` reports as broken in `folder`."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    named = {name for name in (STOREYS, FRONT_DOOR, NO_CYCLES) if f"{name} BROKEN" in run.stdout}
    if (run.returncode == 0) != (not named):
        raise SystemExit(f"lint-imports could not run:\n{run.stdout}{run.stderr}")
    return named


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(ROOT / "simrlhf", folder / "simrlhf")
        found = broken_contracts(folder)
        if found:
            raise SystemExit(f"the package as it is breaks: {', '.join(sorted(found))}")
        for name, line, contract in CASES:
            path = folder / "simrlhf" / name
            before = path.read_text() if path.exists() else None
            path.write_text(f"{before or ''}\n{line}\n")
            if contract not in broken_contracts(folder):
                raise SystemExit(f"the contract {contract!r} accepts {line!r} in {name}")
            if before is None:
                path.unlink()
            else:
                path.write_text(before)
    print(f"{len(CASES)} forbidden imports, all rejected")


if __name__ == "__main__":
    main()
