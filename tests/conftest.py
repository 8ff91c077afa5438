"""One set-up for every test: float64, strict types, keys used once, one thread.

Warnings are errors through pyproject.toml. Rank promotion stays allowed: `(N, n) - (n,)` is plain
NumPy broadcasting, and the estimators use it.
"""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import jax
import pytest

from simrlhf.core import numerics

# before the first array: XLA reads its thread count once (two test processes share two cores)
os.environ.update(numerics.worker_environment(), MPLBACKEND="Agg")
numerics.compile_quickly()
numerics.configure()
jax.config.update("jax_debug_key_reuse", True)
# the same examples on every run, and no failure because the machine was busy
hypothesis.settings.register_profile("simrlhf", deadline=None, derandomize=True)
hypothesis.settings.load_profile("simrlhf")

# every compiled kernel holds some ten memory maps, and Linux allows a process 65,530 of them: the
# next compilation would abort the whole test process
_MOST_MAPS = 40_000


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps() -> None:
    """Forget compiled kernels between test files once they are many; the cache on disk has them."""
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: two processes then end together, and not one long before."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
