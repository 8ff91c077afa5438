"""Faults: whatever happens to a sweep, a rerun ends with the table of an undisturbed one.

Processes are started by a fork server that has imported the program, for a sweep that is killed
a dozen times would otherwise spend its life importing.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import commands, results, runner
from simrlhf.study.spec import load_study
from simrlhf.study.store import Store

MANY = ("repetitions=100", "nu=[0.5, 1.0, 2.0]", "n_users=8", "d1=12", "n_pairs=[60, 120]")


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simrlhf.study.commands"])
    return context


def _sweep(study: str, out: str, overrides: tuple[str, ...]) -> None:
    """In a process of its own; its standard error would only mix with the test's."""
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    options = commands.SweepOptions(out=Path(out))
    commands.sweep(study, size="smoke", overrides=overrides, options=options)


def _rows(out: Path) -> Path:
    return out / "mine" / "rows"


def _files(out: Path) -> set[str]:
    return {path.name for path in _rows(out).glob("*.parquet")}


def _wait_for_new_file(out: Path, before: set[str], process) -> None:
    deadline = time.monotonic() + 60
    while process.is_alive() and not _files(out) - before and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.slow
def test_killed_a_dozen_times_at_random_moments(
    study: str, sweep, tmp_path: Path, processes, assert_same_rows
) -> None:
    """Nothing is lost but tasks in flight: what was stored before a kill is there after it."""
    out = tmp_path / "killed"
    random = np.random.default_rng(20)
    kills, stored, moments = 0, 0, []
    while kills < 12:
        before = _files(out)
        process = processes.Process(target=_sweep, args=(study, str(out), MANY))
        process.start()
        # half of the kills fall while the store is read and the first task runs, half later
        if kills % 2:
            _wait_for_new_file(out, before, process)
        time.sleep(random.uniform(0.0, 0.4))
        seen = _files(out)
        finished = not process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert not finished, f"the sweep ended before kill {kills}: give it more to do"
        assert seen <= _files(out)
        found = Store(_rows(out)).read()
        assert found.damaged == []
        assert len(found.rows) >= stored
        stored = len(found.rows)
        moments.append(stored)
        kills += 1
    assert len(set(moments)) > 5, "the kills all fell at the same place"
    with pytest.raises(InputError, match=r"rows of study 'mine' .* are missing; finish it"):
        results.load_results("mine", out)
    assert_same_rows(sweep(study, out, *MANY), sweep(study, tmp_path / "whole", *MANY))


def test_two_sweeps_on_one_store_at_once(
    study: str, sweep, tmp_path: Path, processes, assert_same_rows
) -> None:
    few = ("repetitions=20",)
    out = tmp_path / "shared"
    writers = [processes.Process(target=_sweep, args=(study, str(out), few)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    # rows that both computed lie there twice, or the two have never met
    written = sum(pq.read_metadata(path).num_rows for path in _rows(out).glob("*.parquet"))
    assert written > 80
    assert_same_rows(results.load_results("mine", out), sweep(study, tmp_path / "whole", *few))


@pytest.fixture
def one_draw_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that hold next to nothing, for tests that need many files of little work."""
    monkeypatch.setattr("simrlhf.study.estimate._BYTES_PER_TASK", 1)


@pytest.mark.usefixtures("one_draw_a_file")
def test_files_damaged_between_sweeps_are_computed_again(
    study: str, sweep, tmp_path: Path, assert_same_rows
) -> None:
    out = tmp_path / "damaged"
    whole = sweep(study, out, "repetitions=6", "nu=[0.5, 1.0]")
    paths = sorted(_rows(out).glob("*.parquet"))
    assert len(paths) >= 4
    paths[0].write_bytes(paths[0].read_bytes()[:1000])
    paths[1].write_bytes(b"")
    flipped = bytearray(paths[2].read_bytes())
    flipped[len(flipped) // 2] ^= 0x10
    paths[2].write_bytes(bytes(flipped))
    assert_same_rows(sweep(study, out, "repetitions=6", "nu=[0.5, 1.0]"), whole)
    aside = {path.name for path in (_rows(out) / "damaged").iterdir()}
    assert aside == {path.name for path in paths[:3]}


@pytest.mark.usefixtures("one_draw_a_file")
def test_a_disk_that_fills_up_in_the_middle_stops_the_sweep_in_a_line(
    study: str, sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_same_rows
) -> None:
    out = tmp_path / "full"
    honest, calls = os.fsync, []

    def fills_up(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 5:  # two files with their folder are through
            raise OSError(28, "No space left on device")
        honest(handle)

    with monkeypatch.context() as planted:
        planted.setattr("simrlhf.study.store.os.fsync", fills_up)
        with pytest.raises(InputError, match=r"cannot write results .*No space left") as caught:
            sweep(study, out, "repetitions=6", "nu=[0.5, 1.0]")
    assert "\n" not in str(caught.value)
    assert len(_files(out)) == 2
    assert list(_rows(out).glob(".*")) == []
    freed = sweep(study, out, "repetitions=6", "nu=[0.5, 1.0]")
    assert_same_rows(freed, sweep(study, tmp_path / "w", "repetitions=6", "nu=[0.5, 1.0]"))


@pytest.mark.slow
def test_a_really_full_file_system(study: str, tmp_path: Path) -> None:
    """The same on a file system of 100 kB, where the machine lets a test mount one."""
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    place = tmp_path / "tiny"
    place.mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            [*alone, "mount", "-t", "tmpfs", "-o", "size=100k", "none", str(place)],
            capture_output=True,
        ).returncode
    ):
        pytest.skip("this machine lets no test mount a file system")
    arguments = f"sweep {study} --set repetitions=60 --set 'nu={{from=0.5, to=4, points=9}}'"
    script = (
        f"mount -t tmpfs -o size=100k none {place} && "
        f"{sys.executable} -m simrlhf.cli {arguments} --out {place}; echo status $?; "
        f"cp -r {place} {tmp_path}/copy"
    )
    done = subprocess.run([*alone, "bash", "-c", script], capture_output=True, text=True)
    assert "status 2" in done.stdout
    said = [line for line in done.stderr.splitlines() if line.startswith("simrlhf:")]
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert "Traceback" not in done.stderr
    found = Store(tmp_path / "copy" / "mine" / "rows").read()
    assert found.damaged == []
    assert len(found.rows) > 0


def test_an_interrupt_is_one_line_and_leaves_a_clean_store(study: str, tmp_path: Path) -> None:
    arguments = ["sweep", study, "--set", "repetitions=2000", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "simrlhf.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(_files(tmp_path)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "the sweep ended before it could be interrupted"
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("simrlhf: interrupted; finished work is stored")
    assert "Traceback" not in said
    assert list(_rows(tmp_path).glob(".*")) == []
    spec = load_study(study, overrides=["repetitions=2000"])
    plan = runner.plan_study(spec, results.open_store("mine", tmp_path).keys())
    assert 0 < plan.n_missing < spec.n_cells
