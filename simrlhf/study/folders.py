"""Folders of results: made before the work, so that none is done in vain."""

from __future__ import annotations

import os
from pathlib import Path

from simrlhf.core import checks


def make_writable(folder: Path) -> None:
    """Make a folder, or see that one can be written to.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    checks.require(os.access(folder, os.W_OK), f"cannot write to {folder}; give a writable --out")


def unwritable(folder: Path, error: OSError) -> checks.InputError:
    """The error of a folder that refused a file."""
    return checks.InputError(f"cannot write to {folder} ({error.strerror}); give a writable --out")
