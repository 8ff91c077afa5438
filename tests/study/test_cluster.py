"""Sweeps on Dask: the same rows as in one process, and deaths of workers survived."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import cluster, commands, provenance, results, runner, worker
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


@pytest.fixture
def two_workers() -> Iterator[runner.Executor]:
    with cluster.open_executor(workers=2, scheduler=None) as executor:
        yield executor


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
    many = ("repetitions=60", "nu=[0.5, 1.0]", "n_pairs=[60, 120]", "n_users=8", "d1=12")
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

    def deadly(cell: str, task, code: str):
        if any(draw.repetition == 3 for draw in task.draws):
            os.kill(os.getpid(), signal.SIGKILL)
        return worker.run_remote_task(cell, task, code)

    monkeypatch.setattr(cluster, "run_remote_task", deadly)
    monkeypatch.setattr(runner, "_SECONDS_PER_TASK", 10.0)  # all draws in one task at first
    _run(study, tmp_path, two_workers, "repetitions=6", "estimators=['share_b']", "n_pairs=30")
    rows = results.load_results("mine", tmp_path).set_index("repetition")
    assert rows["status"].eq("FAILED").to_dict() == {r: r == 3 for r in range(6)}
    assert "workers that died over it" in rows.loc[3, "message"]


def test_a_worker_with_other_code_is_refused(
    study: str, tmp_path: Path, two_workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "code_digest", lambda: "0123456789ab")
    with pytest.raises(
        InputError, match=r"runs other code of simrlhf \(\w{12}\) than .*0123456789"
    ):
        _run(study, tmp_path, two_workers)


def test_workers_have_one_thread_each(two_workers) -> None:
    from distributed import Client

    client: Client = two_workers.args[0]

    def threads() -> tuple[str | None, int]:
        return os.environ.get("NPROC"), threading.active_count()

    assert {nproc for nproc, _ in client.run(threads).values()} == {"1"}
    assert set(client.nthreads().values()) == {1}


def test_a_scheduler_that_runs_already_is_used(
    study: str, sweep, tmp_path: Path, assert_same_rows
) -> None:
    """Workers that another program started, without any of our settings."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as running:
        address = running.scheduler_address
        found = sweep(study, tmp_path / "remote", scheduler=address)
    assert_same_rows(found, sweep(study, tmp_path / "serial"))


def test_a_scheduler_that_goes_away_is_one_line_and_what_is_written_stays(
    study: str, tmp_path: Path
) -> None:
    from distributed import LocalCluster

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
