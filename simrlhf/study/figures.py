"""Draw shipped figures: load `paper_figs/NAME.py` by path and let it read a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from simrlhf.core import checks
from simrlhf.study import shipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def list_figures() -> dict[str, str]:
    """Shipped figures with the first line of each script's docstring."""
    return {
        name: (shipped.load_script(path).__doc__ or "").partition("\n")[0]
        for name, path in _scripts().items()
    }


def checks_read(name: str) -> tuple[str, ...]:
    """Checks whose rows a figure draws; none for the figure of a study."""
    return getattr(shipped.load_script(_scripts()[name]), "CHECKS", ())


def draw_figure(name: str, results: Path, out: Path) -> list[Path]:
    """Run a figure's `draw(results, out)`; returns the files written.

    Args:
        results: the folder that holds what the figure reads.
        out: folder for the files; the figure makes it once its results are read.
    """
    script = _scripts()[checks.choice("figure", name, _scripts())]
    return shipped.load_script(script).draw(results, out)


def save(figure: Figure, out: Path, name: str) -> list[Path]:
    """Write a figure as `name.png` and `name.pdf` into the folder `out`, and close it."""
    from matplotlib import pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"{name}.{kind}" for kind in ("png", "pdf")]
    for path in paths:
        figure.savefig(path, dpi=160)
    plt.close(figure)
    return paths


def _scripts() -> dict[str, Path]:
    folder = shipped.shipped_folder("paper_figs")
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}
