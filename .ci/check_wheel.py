"""Check that a wheel holds exactly the tracked files: the package, and the shipped folders."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("experiments", "paper_figs", "theory_checks")


def expected_files() -> set[str]:
    """Names inside the wheel, from the files that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "simrlhf", *SHIPPED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [name for name in listed.split("\0") if name]
    return {n if n.startswith("simrlhf/") else f"simrlhf/_shipped/{n}" for n in names}


def main(wheel: str) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = expected_files()
    if held != expected:
        missing, extra = sorted(expected - held), sorted(held - expected)
        raise SystemExit(f"{wheel} lacks {missing} and holds {extra} beyond the tracked files")
    print(f"{len(held)} files in the wheel, all of the tracked ones")


if __name__ == "__main__":
    main(sys.argv[1])
