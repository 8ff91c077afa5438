"""Where the shipped studies, checks and figures lie: the clone's folders, or the wheel's copy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import simrlhf
from simrlhf.core import checks

FOLDERS = ("experiments", "theory_checks", "paper_figs")


def shipped_folder(name: str) -> Path:
    """Path of one of the top-level folders; inside a wheel they are under `simrlhf/_shipped`."""
    package = Path(simrlhf.__file__).parent
    for base in (package / "_shipped", package.parent):
        folder = base / checks.choice("shipped folder", name, FOLDERS)
        if folder.is_dir():
            return folder
    raise checks.InputError(
        f"this installation has no {name} folder; install the wheel, or work in a clone"
    )


def load_script(path: Path) -> ModuleType:
    """Load a shipped figure or check by its path: nothing is installed as a top-level package."""
    spec = importlib.util.spec_from_file_location(f"simrlhf_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
