"""What a sweep costs beside its fits, how it scales over workers, and how fast rows are read.

    python experiments/benchmarks/sweep_speed.py            # overhead, workers, reading, planning
    python experiments/benchmarks/sweep_speed.py reading    # or one part of it

Overhead: a sweep of 2,000 cells in one process, with compiled kernels at hand; all wall-clock time
that is not inside a call of `fit`. Workers: the same kind of sweep on one and on two Dask workers,
each tied to a core, without the start of the cluster. Reading: 5,000 rows in 1,000 files.
Planning: which of a million cells are missing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from simrlhf.core import numerics
from simrlhf.study import cluster, results, runner
from simrlhf.study.spec import StudySpec, load_study
from simrlhf.study.tasks import Task

STUDY = "subspace_vs_pairs"
# 2,000 cells: five estimators, four sample sizes, one hundred repetitions
INSTANCES = {
    "N=16, n<=400, d1=20, k=3": ("n_users=16", "n_pairs=[50, 100, 200, 400]"),
    "N=32, n<=200, d1=64, k=4": (
        "n_users=32",
        "d1=64",
        "rank=4",
        "n_pairs=[25, 50, 100, 200]",
    ),
}
REPETITIONS = 100
ROUNDS = 3


def main() -> None:
    parts = {"overhead": overhead, "workers": workers, "reading": reading, "planning": planning}
    numerics.configure()
    for name in sys.argv[1:] or parts:
        parts[name]()


def overhead() -> None:
    """Share of a sweep's time that is spent outside the fits."""
    for label, overrides in INSTANCES.items():
        spec = _study(overrides)
        _sweep(_study(overrides, repetitions=2), runner.run_serially)  # compiles
        seconds, folder = _sweep(spec, runner.run_serially)
        rows = results.open_store(spec.name, folder).read().rows
        fits = float(rows["seconds"].sum())
        files = len(list((folder / spec.name / "rows").glob("*.parquet")))
        print(
            f"overhead, {label}: {len(rows)} cells in {seconds:.1f} s, fits {fits:.1f} s, "
            f"everything else {1 - fits / seconds:.1%}; {files} files, median fit "
            f"{1e3 * rows['seconds'].median():.1f} ms"
        )


def workers() -> None:
    """Speed of two workers over one, alternating."""
    label, overrides = next(iter(INSTANCES.items()))
    spec = _study(overrides)
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for count in taken:
            with cluster.open_executor(workers=count, scheduler=None) as executor:
                _pin(executor.args[0])
                _sweep(_study(overrides, repetitions=4), executor)  # every worker loads its kernels
                taken[count].append(_sweep(spec, executor)[0])
    one, two = (float(np.median(taken[count])) for count in (1, 2))
    print(
        f"workers, {label}, {spec.n_cells} cells: one {one:.1f} s, two {two:.1f} s "
        f"({one / two:.2f} times; medians of {ROUNDS}, each worker on a core of its own)"
    )


def reading() -> None:
    """`load_results` on many small files."""
    spec = _study(INSTANCES["N=16, n<=400, d1=20, k=3"], repetitions=1000, n_pairs=50)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = results.open_store(spec.name, folder)
        plan = runner.plan_study(spec, ())
        template = runner.run_task(spec.cell, Task(spec.seed, spec.metrics, plan.draws[:1]))
        by_name = {row["estimator"]: row for row in template.rows}
        for draw in plan.draws:
            rows = [
                {**by_name[cell.estimator], "key": key, "repetition": draw.repetition}
                for key, cell in draw.cells.items()
            ]
            store.write(rows, facts=template.facts)
        results.write_manifest(spec, folder)
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            rows = results.load_results(spec.name, folder)
            taken.append(time.perf_counter() - started)
        files = len(list(store.folder.glob("*.parquet")))
        print(
            f"reading: {len(rows)} rows of {rows.shape[1]} columns from {files} files in "
            f"{np.median(taken):.2f} s (median of 5, files in the page cache)"
        )


def planning() -> None:
    """What a sweep of a million cells does before its first fit, with half of them stored."""
    spec = _study(INSTANCES["N=16, n<=400, d1=20, k=3"], repetitions=50_000)
    half = sorted(runner.study_keys(spec))[::2]
    started = time.perf_counter()
    plan = runner.plan_study(spec, half)
    seconds = time.perf_counter() - started
    print(f"planning: {spec.n_cells:,} cells, {plan.n_missing:,} missing, in {seconds:.1f} s")


def _study(overrides: tuple[str, ...], **more: int) -> StudySpec:
    settings = {"repetitions": REPETITIONS} | more
    texts = [*overrides, *(f"{key}={value}" for key, value in settings.items())]
    return load_study(STUDY, overrides=texts)


def _sweep(spec: StudySpec, executor: runner.Executor) -> tuple[float, Path]:
    folder = Path(tempfile.mkdtemp())
    store = results.open_store(spec.name, folder)
    started = time.perf_counter()
    runner.run_study(spec, store, runner.plan_study(spec, store.keys()), executor=executor)
    return time.perf_counter() - started, folder


def _pin(client) -> None:
    """Tie each worker to a core."""
    cores = sorted(os.sched_getaffinity(0))

    def tie(core: int) -> None:
        os.sched_setaffinity(0, {core})

    for place, worker in enumerate(sorted(client.scheduler_info()["workers"])):
        client.run(tie, cores[place % len(cores)], workers=[worker])


if __name__ == "__main__":
    main()
