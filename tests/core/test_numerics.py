"""Numerical settings: what a scope changes, what it leaves alone, threads and the kernel cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from simrlhf.core import checks, numerics


def in_fresh_process(program: str, **environment: str) -> str:
    """What `program` prints in a Python of its own: the settings below are global."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


SETTINGS = """
import jax, jax.numpy as jnp
from simrlhf.core import numerics
def settings():
    config = jax.config
    return (config.jax_enable_x64, config.jax_default_matmul_precision,
            config.jax_numpy_dtype_promotion, jnp.ones(1).dtype.name)
"""


def test_the_scope_computes_in_float64_and_leaves_the_callers_settings_alone():
    program = SETTINGS + (
        "before = settings()\n"
        "with numerics.float64_scope():\n"
        "    inside = settings()\n"
        "try:\n"
        "    with numerics.float64_scope():\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    pass\n"
        "print(before == settings(), before[3], inside[3], inside[1], inside[2])\n"
    )
    assert in_fresh_process(program) == "True float32 float64 highest strict"


def test_configure_sets_the_whole_process():
    program = SETTINGS + "numerics.configure(cache=False)\nprint(*settings())\n"
    assert in_fresh_process(program) == "True highest strict float64"


def test_mixed_types_are_an_error_inside_the_scope():
    with numerics.float64_scope():
        single = jnp.ones(2, jnp.float32)
        with pytest.raises(ValueError, match="no available implicit dtype promotion"):
            single + jnp.ones(2)
        np.testing.assert_array_equal(single + 1.0, 2.0)  # a plain number adapts to its partner


def test_threads_limits_the_blas_pools():
    numpy_loaded = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert numpy_loaded
    with threadpool_limits(2):  # restores what was before the test
        assert max(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas") == 2
        numerics.configure(threads=1, cache=False)
        assert max(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas") == 1


def test_threads_must_be_positive():
    with pytest.raises(checks.InputError, match="threads = 0 must be at least 1"):
        numerics.configure(threads=0, cache=False)


XLA_THREADS = """
import glob, jax.numpy as jnp
(jnp.eye(512) @ jnp.eye(512)).block_until_ready()
names = [open(path).read() for path in glob.glob("/proc/self/task/*/comm")]
print(sum("XLAEigen" in name for name in names))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are named in /proc on Linux only")
def test_a_worker_has_one_xla_thread():
    assert in_fresh_process(XLA_THREADS, **numerics.worker_environment()) == "1"
    # the flag that is often recommended leaves the pool as it is: the wrong variant
    flag = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false", "NPROC": "3"}
    assert in_fresh_process(XLA_THREADS, **flag) == "3"


def test_kernels_are_kept_in_the_folder_the_user_names(tmp_path: Path):
    program = (
        "import jax, jax.numpy as jnp\n"
        "from simrlhf.core import numerics\n"
        "numerics.configure()\n"
        # slower to compile than the 0.1 s below which a kernel is not worth a file
        "def f(x):\n"
        "    for i in range(60):\n"
        "        x = jnp.linalg.qr(x + i)[0]\n"
        "    return x\n"
        "jax.jit(f)(jnp.eye(4)).block_until_ready()\n"
        "print(numerics.cache_directory())\n"
    )
    folder = tmp_path / "kernels"
    assert in_fresh_process(program, SIMRLHF_CACHE=str(folder)) == str(folder)
    assert any(folder.iterdir())


def test_the_cache_folder_defaults_to_the_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SIMRLHF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert numerics.cache_directory() == Path("/elsewhere/simrlhf")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert numerics.cache_directory() == Path.home() / ".cache" / "simrlhf"


def test_a_cache_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    program = SETTINGS + "numerics.configure()\nprint(settings()[0])\n"
    assert in_fresh_process(program, SIMRLHF_CACHE=str(blocked / "kernels")) == "True"


def test_compiling_is_told_from_running():
    def inner(x):
        return jnp.sin(x) @ x

    @jax.jit
    def outer(x):
        return jax.jit(inner)(x) + jax.lax.map(lambda row: row.sum(), x)

    x = jnp.ones((50, 50))
    before = numerics.compile_seconds()
    started = time.perf_counter()
    outer(x).block_until_ready()
    wall = time.perf_counter() - started
    first = numerics.compile_seconds() - before
    # functions traced within others count once
    assert 0.0 < first <= wall
    outer(x).block_until_ready()
    assert numerics.compile_seconds() - before == first
