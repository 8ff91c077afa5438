"""What the commands `sweep` and `figure` do, with progress on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from simrlhf.core import checks, numerics
from simrlhf.study import figures, honest_report, results, runner, spec
from simrlhf.study.terminal import console, progress_bar


def sweep(
    study: str,
    *,
    size: str,
    overrides: Sequence[str],
    out: Path,
    dry_run: bool = False,
    resume: bool = False,
) -> None:
    """Compute what is missing of a study and say where it is."""
    numerics.configure()
    if resume:
        manifest = results.read_manifest(Path(study).stem, out)
        size, overrides = manifest["size"], manifest["overrides"]
    wanted = spec.load_study(study, size=size, overrides=overrides)
    store = results.open_store(wanted.name, out)
    plan = runner.plan_study(wanted, store)
    n_rows = len(plan.keys)
    console.print(
        f"{wanted.name} ({size}): {n_rows} rows, {n_rows - plan.n_missing} stored, "
        f"{plan.n_missing} to compute in {len(plan.tasks)} tasks"
    )
    if dry_run:
        return
    results.write_manifest(wanted, plan.keys, list(overrides), out)
    if plan.tasks:
        with progress_bar() as bar:
            job = bar.add_task(wanted.name, total=plan.n_missing)
            runner.run_study(wanted, store, plan, progress=lambda n: bar.advance(job, n))
    console.print(f"rows: {store.folder}")


def figure(names: Sequence[str], *, out: Path, everything: bool = False) -> list[Path]:
    """Draw figures beside their results; returns the files."""
    known = figures.list_figures()
    if everything:
        names = [name for name in known if _folders(name, out)]
        checks.require(bool(names), f"no results under {out}; run a sweep first")
    if not names:
        for name, sentence in known.items():
            console.print(f"{name:24} {sentence}")
        return []
    drawn = []
    for name in names:
        checks.choice("figure", name, known)
        # without results the figure itself says how to make them
        for source, folder in _folders(name, out) or [(out, results.study_folder(name, out))]:
            drawn += figures.draw_figure(name, source, folder)
    for path in drawn:
        console.print(f"figure: {path}")
    return drawn


def _folders(name: str, out: Path) -> list[tuple[Path, Path]]:
    """What a figure reads and where it goes, for everything under `out` that it can be drawn of."""
    if name != honest_report.FIGURE:
        folder = results.study_folder(name, out)
        return [(out, folder)] if results.has_results(name, out) else []
    inside = sorted(out.iterdir()) if out.is_dir() else []
    return [(place, place) for place in (out, *inside) if honest_report.is_run(place)]


def print_studies() -> None:
    """The shipped studies, a line each."""
    for name, question in spec.list_studies().items():
        console.print(f"{name:24} {question}")
