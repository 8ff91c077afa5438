"""One set-up for every test: float64, strict types, keys used once, one thread.

Warnings are errors through pyproject.toml. Rank promotion stays allowed: `(N, n) - (n,)` is plain
NumPy broadcasting, and the estimators use it.
"""

from __future__ import annotations

import os

import hypothesis
import jax

from simrlhf.core import numerics

# before the first array: XLA reads its thread count once (two test processes share two cores)
os.environ.update(numerics.worker_environment(), MPLBACKEND="Agg")
numerics.configure()
jax.config.update("jax_debug_key_reuse", True)
# the same examples on every run, and no failure because the machine was busy
hypothesis.settings.register_profile("simrlhf", deadline=None, derandomize=True)
hypothesis.settings.load_profile("simrlhf")
