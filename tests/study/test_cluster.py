"""Sweeps on Dask: the same rows as in one process, and deaths of workers survived."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask.config
import psutil
import pytest
from distributed import Client

from simrlhf.core import numerics
from simrlhf.core.checks import InputError
from simrlhf.study import cluster, commands, results, runner, worker
from simrlhf.study.spec import load_study

pytestmark = pytest.mark.slow


def _workers() -> list[psutil.Process]:
    """Worker processes under this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture(scope="module")
def two_workers() -> Iterator[runner.Executor]:
    # three deaths of workers blame a task, one more than a test survives; four take longer
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 2}),
        cluster.open_executor(workers=2, scheduler=None) as executor,
    ):
        yield executor


class _Elsewhere:
    """A scheduler and workers that other programs started, without any of our settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen] = []
        self.address = f"tcp://127.0.0.1:{_free_port()}"
        self._without = folder / "without"
        stub = self._without / "simrlhf"
        stub.mkdir(parents=True)
        (stub / "__init__.py").write_text(_MISSING_PACKAGE, encoding="utf-8")
        port = self.address.rpartition(":")[2]
        self._start(self._without, "scheduler", "--host", "127.0.0.1", "--port", port)

    def start_worker(self, path: Path | None = None) -> subprocess.Popen:
        """A worker whose `simrlhf` is the one in `path`, or ours."""
        return self._start(path, "worker", self.address, "--no-nanny", "--nthreads", "1")

    def start_worker_without(self) -> subprocess.Popen:
        return self.start_worker(self._without)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, path: Path | None, *words: str) -> subprocess.Popen:
        ours = numerics.worker_environment()
        environment = {name: text for name, text in os.environ.items() if name not in ours}
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words, "--no-dashboard"],
            env=environment,
            cwd=self._folder,  # `python -m` would find our package in the clone
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process


# what a machine without the package says
_MISSING_PACKAGE = """raise ModuleNotFoundError("No module named 'simrlhf'", name="simrlhf")"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Elsewhere]:
    """Machines of others; nobody installed simrlhf for their scheduler."""
    machines = _Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    yield machines
    machines.close()


def _run(study: str, out: Path, executor, *overrides: str, progress=None) -> None:
    spec = load_study(study, overrides=overrides)
    store = results.open_store("mine", out)
    plan = runner.plan_study(spec, store.keys())
    results.write_manifest(spec, out)
    runner.run_study(spec, store, plan, executor=executor, progress=progress)


def test_a_worker_killed_in_the_middle_of_its_task_is_survived(
    study: str, sweep, tmp_path: Path, two_workers, assert_same_rows
) -> None:
    """Both workers are killed, one after the other, while the sweep goes on."""
    many = ("repetitions=30", "nu=[0.5, 1.0]", "n_pairs=[60, 120]", "n_users=8", "d1=12")
    killed: list[int] = []

    def kill_one(tally: runner.Tally) -> None:
        if tally.done >= 40 * (1 + len(killed)) and len(killed) < 2:
            victim = next(process for process in _workers() if process.pid not in killed)
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    _run(study, tmp_path / "dask", two_workers, *many, progress=kill_one)
    assert len(killed) == 2
    survived = results.load_results("mine", tmp_path / "dask")
    assert survived["status"].ne("FAILED").all()
    # one XLA thread in the workers and in the tests: equal bit for bit
    assert_same_rows(survived, sweep(study, tmp_path / "serial", *many))


def test_a_draw_that_kills_its_workers_is_a_row_and_its_neighbours_live(
    study: str, tmp_path: Path, two_workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draw of repetition 3 kills every worker that touches it."""

    def deadly_runner():
        def deadly(cell: str, packed: bytes, code: str):
            if any(draw.repetition == 3 for draw in pickle.loads(packed).draws):
                os.kill(os.getpid(), signal.SIGKILL)
            return worker.portable_runner()(cell, packed, code)

        return deadly

    monkeypatch.setattr(cluster, "portable_runner", deadly_runner)
    monkeypatch.setattr(runner, "_SECONDS_PER_TASK", 10.0)  # all draws in one task at first
    _run(study, tmp_path, two_workers, "repetitions=6", "estimators=['share_b']", "n_pairs=30")
    rows = results.load_results("mine", tmp_path).set_index("repetition")
    assert rows["status"].eq("FAILED").to_dict() == {r: r == 3 for r in range(6)}
    assert "workers that died over it" in rows.loc[3, "message"]


def _other_release(folder: Path) -> Path:
    """A package of our name with another digest, and nothing else of what a task needs."""
    study = folder / "simrlhf" / "study"
    study.mkdir(parents=True)
    (study.parent / "__init__.py").touch()
    (study / "__init__.py").touch()
    text = "def code_digest():\n    return '0123456789ab'\n"
    (study / "provenance.py").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (True, r"runs other code of simrlhf \(0123456789ab\) than this process \(\w{12}\)"),
        (False, r"cannot run simrlhf \(ModuleNotFoundError: No module named 'simrlhf'\)"),
    ],
)
def test_a_worker_with_another_simrlhf_or_none_stops_the_sweep(
    study: str, sweep, tmp_path: Path, elsewhere, other: bool, reason: str
) -> None:
    """Not one name of our package can be read there, by the scheduler neither."""
    if other:
        process = elsewhere.start_worker(_other_release(tmp_path / "other"))
    else:
        process = elsewhere.start_worker_without()
    try:
        with pytest.raises(InputError, match=rf"^worker on {os.uname().nodename} {reason}; inst"):
            sweep(study, tmp_path / "out", scheduler=elsewhere.address)
    finally:
        process.kill()
        process.wait()


def test_a_sweep_whose_last_worker_went_says_so_and_waits_for_another(
    study: str, tmp_path: Path, sweep, elsewhere, assert_same_rows, monkeypatch, capfd
) -> None:
    """On a scheduler that runs already; a launcher brings the next worker."""
    monkeypatch.setattr(cluster, "_SECONDS_BETWEEN_LOOKS", 0.5)
    monkeypatch.setattr(runner, "_SECONDS_PER_TASK", 1e-9)  # one draw in each task
    many = ("repetitions=10",)
    first = elsewhere.start_worker()
    heard: list[str] = []

    def kill_first(tally: runner.Tally) -> None:
        if tally.done >= 8 and first.poll() is None:
            first.kill()
            first.wait()
            threading.Thread(target=replace, daemon=True).start()

    def replace() -> None:
        # once the sweep has said that it waits; one that never does must not hang the tests
        deadline = time.monotonic() + 30
        while "waits until one comes" not in "".join(heard) and time.monotonic() < deadline:
            time.sleep(0.1)
            heard.append(capfd.readouterr().err)
        elsewhere.start_worker()

    with cluster.open_executor(workers=None, scheduler=elsewhere.address) as executor:
        _run(study, tmp_path / "dask", executor, *many, progress=kill_first)
        _assert_one_thread_each(executor.args[0])
    said = "".join(heard) + capfd.readouterr().err
    assert said.count("has no worker") == said.count("has workers again") == 1
    assert_same_rows(
        results.load_results("mine", tmp_path / "dask"), sweep(study, tmp_path / "serial", *many)
    )


def test_workers_of_this_machine_have_one_thread_each(
    study: str, tmp_path: Path, two_workers
) -> None:
    _run(study, tmp_path, two_workers)
    _assert_one_thread_each(two_workers.args[0])


def _assert_one_thread_each(client: Client) -> None:
    """Each worker has computed: its BLAS and XLA's pool exist as they are going to stay."""

    def threads() -> tuple[set[int], int]:
        from threadpoolctl import threadpool_info

        names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
        pools = {pool["num_threads"] for pool in threadpool_info()}
        return pools, sum("XLAEigen" in name for name in names)

    assert set(client.nthreads().values()) == {1}
    for pools, xla in client.run(threads).values():
        assert (pools, xla) == ({1}, 1)


def test_a_scheduler_that_goes_away_is_one_line_and_what_is_written_stays(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 2)
    many = ("repetitions=60", "nu=[0.5, 1.0]")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as running,
        cluster.open_executor(workers=None, scheduler=running.scheduler_address) as executor,
    ):

        def leave(tally: runner.Tally) -> None:
            if tally.done >= 8:
                running.close()

        with pytest.raises(InputError, match=r"the Dask scheduler went away .* are kept") as caught:
            _run(study, tmp_path, executor, *many, progress=leave)
    assert "\n" not in str(caught.value)
    assert len(results.open_store("mine", tmp_path).keys()) >= 8


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", r"no Dask scheduler answers at nonsense .*port.*start one with: dask"),
        ("tcp://127.0.0.1:9", r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*start one"),
    ],
)
def test_an_unreachable_scheduler_is_one_line(
    study: str, tmp_path: Path, address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_SECONDS_TO_ANSWER", 1)
    options = commands.SweepOptions(out=tmp_path, scheduler=address)
    started = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        commands.sweep(study, size="smoke", overrides=(), options=options)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 60
