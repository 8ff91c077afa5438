"""The numerical settings, in one place: precision, threads, compilation cache.

`fit` and `make_world` enter `float64_scope` and leave the caller's settings alone; the command
line and the tests call `configure` once.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from simrlhf.core import checks


@contextmanager
def float64_scope() -> Iterator[None]:
    """Compute in float64 inside the scope, whatever is set outside.

    Products have full precision and mixed types are an error, so nothing drops to float32 unseen.
    """
    with (
        jax.enable_x64(True),
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("strict"),
    ):
        yield


def configure(*, threads: int | None = 1, cache: bool = True) -> None:
    """Set the process up for simulation.

    Args:
        threads: limit of the BLAS and OpenMP pools (`None` leaves them). One by default: XLA does
            the heavy work with a pool of its own, and two pools that spin on the same cores slow
            each other down (on two cores a fit of 18 ms took 90 ms). XLA's pool is fixed when the
            first array is made: a worker that wants one thread starts with `worker_environment`.
        cache: keep compiled kernels between processes in `cache_directory()`.
    """
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    if threads is not None:
        import scipy.linalg  # noqa: F401  its BLAS is a second library, limited once it is loaded
        from threadpoolctl import threadpool_limits

        threadpool_limits(checks.integer("threads", threads, low=1))
    if cache:
        _enable_cache(cache_directory())


def compile_quickly() -> None:
    """Leave out LLVM's passes in this process: for work that compiles for longer than it computes.

    Before the first array is made; a choice in `XLA_FLAGS` stands. Kernels compile in two thirds of
    the time and run slower; results differ by rounding.
    """
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")


def compile_seconds() -> float:
    """Seconds that this process has spent on tracing and compiling since the first such call.

    What a difference of two values says of the time between them, a first run of a kernel is not
    taken for the time that it takes.
    """
    return sum(end - start for start, end in _compilations())


@functools.cache
def _compilations() -> list[tuple[float, float]]:
    """Spans of time in which JAX traced or compiled, kept up to date by JAX itself."""
    spans: list[tuple[float, float]] = []

    def note(event: str, duration_secs: float, **_: object) -> None:
        if not event.startswith("/jax/core/compile/"):
            return
        end = time.perf_counter()
        start = end - duration_secs
        while spans and spans[-1][0] >= start:  # a function traced within this one
            spans.pop()
        spans.append((start, end))

    jax.monitoring.register_event_duration_secs_listener(note)
    return spans


def cache_directory() -> Path:
    """Folder of compiled kernels: `$SIMRLHF_CACHE`, or `simrlhf` in the user's cache folder."""
    chosen = os.environ.get("SIMRLHF_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "simrlhf"


def worker_environment() -> dict[str, str]:
    """Environment of a worker process that shares its machine: one BLAS and one XLA thread."""
    # NPROC is what XLA's CPU client reads; --xla_cpu_multi_thread_eigen=false has no effect there
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    return dict.fromkeys(names, "1")


def _enable_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:  # a read-only home is no reason to refuse work: kernels are compiled again
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
