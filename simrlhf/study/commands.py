"""What the commands `sweep` and `figure` do, with progress on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from simrlhf.core import checks, numerics
from simrlhf.study import (
    cluster,
    estimate,
    figures,
    honest_report,
    provenance,
    results,
    runner,
    settings,
    spec,
)
from simrlhf.study.checking.report import FOLDER as CHECKS_FOLDER
from simrlhf.study.store import FAILED, Store, Stored
from simrlhf.study.terminal import confirm, console, progress_bar

# planning, the list of keys and the files are slow and large from here on
_MANY_CELLS = 10**6
# a dry run lists no more keys than this: about 4 GB of memory
_UNCOUNTED_CELLS = 10**7


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep is run; what it computes is the study's.

    Attributes:
        out: folder of all results.
        dry_run: say what would be computed, and stop.
        yes: do not ask before a million cells.
        workers, scheduler: run on Dask (see `cluster.open_executor`).
        retry_failed: compute rows of status `FAILED` again.
        mixed: go on with rows that another version of the program made.
    """

    out: Path
    dry_run: bool = False
    yes: bool = False
    workers: int | None = None
    scheduler: str | None = None
    retry_failed: bool = False
    mixed: bool = False

    def __post_init__(self) -> None:
        checks.require(
            self.workers is None or self.scheduler is None,
            f"--workers {self.workers} starts processes here, --scheduler {self.scheduler} uses "
            "running ones; give one of them",
        )
        if self.workers is not None:
            checks.integer("--workers", self.workers, low=1, high=1024)


def sweep(
    study: str,
    *,
    size: str | None = None,
    overrides: Sequence[str] = (),
    options: SweepOptions,
    resume: bool = False,
) -> int:
    """Compute what is missing of a study and say where it is; returns how many rows failed.

    Args:
        size: `smoke` by default.
        resume: go on with the last sweep of this study: its size, settings and `mixed`.
    """
    numerics.configure()
    if resume:
        wanted, options = _last(study, size=size, overrides=overrides, options=options)
    else:
        wanted = spec.load_study(study, size=size or "smoke", overrides=overrides)
    if not _may_be_planned(wanted, options):
        return 0
    store = results.open_store(wanted.name, options.out)
    plan, stored = _plan(wanted, store, options)
    if options.dry_run:
        return 0
    store.remove_leftovers()
    if plan.draws:
        _compute(wanted, store, plan, options)
        stored = store.read(plan.keys)
    else:  # a rerun takes nothing back: rows once accepted stay so
        mixed = options.mixed or results.accepts_mixed(wanted.name, options.out)
        results.write_manifest(wanted, options.out, mixed=mixed)
    return _report(store, stored)


def _last(
    study: str, *, size: str | None, overrides: Sequence[str], options: SweepOptions
) -> tuple[spec.StudySpec, SweepOptions]:
    """What the last sweep asked for, and the options with its `mixed`."""
    given = [flag for flag, value in (("--size", size), ("--set", overrides)) if value]
    checks.require(
        not given,
        f"--resume goes on with the last size and settings; drop {' and '.join(given)}",
    )
    wanted, mixed = results.last_study(spec.study_name(study), options.out)
    spec.require_same_file(wanted, study)
    return wanted, replace(options, mixed=options.mixed or mixed)


def _may_be_planned(wanted: spec.StudySpec, options: SweepOptions) -> bool:
    """Whether so many cells are to be planned: asks, and of a dry run only counts them."""
    cells = f"{wanted.name} ({wanted.size}) has {wanted.n_cells:,} cells"
    if options.dry_run:
        if wanted.n_cells > _UNCOUNTED_CELLS:
            console.print(
                f"{cells}: too many to compare with what is stored (a dry run takes up to "
                f"{_UNCOUNTED_CELLS:,}); cut the study into smaller ones"
            )
        return wanted.n_cells <= _UNCOUNTED_CELLS
    if wanted.n_cells > _MANY_CELLS and not options.yes:
        confirm(cells, remedy="say --yes to go on, --dry-run to see what it takes")
    return True


def _compute(
    wanted: spec.StudySpec, store: Store, plan: runner.Plan, options: SweepOptions
) -> None:
    with _executor(options) as executor:
        # not before there is somebody to compute: a sweep that cannot start changes nothing
        results.write_manifest(wanted, options.out, mixed=options.mixed)
        with progress_bar() as bar:
            job = bar.add_task(wanted.name, total=plan.n_missing)

            def show(tally: runner.Tally) -> None:
                note = f"{tally.failed} failed" if tally.failed else ""
                bar.update(job, completed=tally.done, note=note)

            runner.run_study(wanted, store, plan, executor=executor, progress=show)


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
        usual = (
            out / CHECKS_FOLDER if figures.checks_read(name) else results.study_folder(name, out)
        )
        for source, folder in _folders(name, out) or [(out, usual)]:
            drawn += figures.draw_figure(name, source, folder)
    for path in drawn:
        console.print(f"figure: {path}")
    return drawn


def print_studies() -> None:
    """The shipped studies: what each asks, and what its sizes compute."""
    for name in spec.list_studies():
        sizes = {size: spec.load_study(name, size=size) for size in settings.SIZES}
        console.print(f"{name}: {sizes['smoke'].question}")
        for size, study in sizes.items():
            console.print(f"    {size:6} {study.n_cells:>9,} rows  {_extent(study)}")


def _extent(study: spec.StudySpec) -> str:
    """What a study sweeps, in a line."""
    swept = []
    for label, values in (
        ("N", {point.world.n_users for point in study.points}),
        ("n", {n for point in study.points for n in point.n_pairs}),
    ):
        low, high = min(values), max(values)
        swept.append(f"{label} = {low}" + (f" to {high}" if high > low else ""))
    return ", ".join(
        [
            f"{len(study.points)} points",
            *swept,
            f"{study.repetitions} repetitions",
            " ".join(study.estimators),
        ]
    )


def _plan(
    wanted: spec.StudySpec, store: Store, options: SweepOptions
) -> tuple[runner.Plan, Stored]:
    """Compare with what is stored, say so, and refuse what cannot work."""
    stored = store.read()
    plan = runner.plan_study(wanted, stored.keys(but_failed=options.retry_failed))
    stored = stored.of(plan.keys)
    _name_damaged(store, stored, aside=bool(plan.draws) and not options.dry_run)
    console.print(
        f"{wanted.name} ({wanted.size}): {len(plan.keys)} rows, "
        f"{len(plan.keys) - plan.n_missing} stored, {plan.n_missing} to compute"
    )
    if not plan.draws:
        foreign = "" if options.mixed else results.made_elsewhere(stored)
        if foreign:
            console.print(foreign)
        return plan, stored
    if not options.mixed:
        results.require_one_program(stored, store.folder, joining=provenance.provenance())
    needs = estimate.estimate(
        plan.draws, stored, stored_bytes=store.size(), processes=options.workers or 1
    )
    console.print(needs.sentence)
    if options.scheduler is None:
        estimate.require_memory(needs)
    return plan, stored


def _name_damaged(store: Store, stored: Stored, *, aside: bool) -> None:
    """Name damaged files, and move them aside if the sweep is to write anyhow."""
    if aside:
        for path in store.set_aside(stored.damaged):
            console.print(f"damaged, set aside, its rows are computed again: {path}")
        return
    for path in stored.damaged:
        console.print(f"damaged, its rows do not count: {path}")


@contextmanager
def _executor(options: SweepOptions) -> Iterator[runner.Executor]:
    if options.workers is None and options.scheduler is None:
        yield runner.run_serially
        return
    with cluster.open_executor(workers=options.workers, scheduler=options.scheduler) as executor:
        yield executor


def _report(store: Store, stored: Stored) -> int:
    """Say what failed, and where the rows are."""
    rows = stored.rows
    failed = rows[rows["status"] == FAILED]
    for message, same in failed.groupby("message"):
        console.print(f"{len(same)} of {len(rows)} rows FAILED: {message}")
    console.print(f"rows: {store.folder}")
    return len(failed)


def _folders(name: str, out: Path) -> list[tuple[Path, Path]]:
    """What a figure reads and where it goes, for everything under `out` that it can be drawn of."""
    read = figures.checks_read(name)
    if read:
        folder = out / CHECKS_FOLDER
        return [(out, folder)] if any((folder / f"{one}.parquet").exists() for one in read) else []
    if name != honest_report.FIGURE:
        folder = results.study_folder(name, out)
        return [(out, folder)] if results.has_results(name, out) else []
    inside = sorted(out.iterdir()) if out.is_dir() else []
    return [(place, place) for place in (out, *inside) if honest_report.is_run(place)]
