"""The sweep: only what is missing is computed, and a killed run goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import commands, results, runner
from simrlhf.study.spec import load_study
from simrlhf.study.store import Store, content_key

STUDY = """
title = "t"
question = "q"
cell = "recovery"
[grid]
n_pairs = [30, 60]
estimators = ["share_b", "full"]
repetitions = 3
[world]
n_users = 4
d1 = 5
rank = 2
[fit]
norm_bound = 4.0
"""
# wall-clock seconds differ between runs; everything else must not
VOLATILE = ["seconds"]


@pytest.fixture
def study(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(STUDY, encoding="utf-8")
    return str(path)


def _sweep(study: str, out: Path, *overrides: str) -> pd.DataFrame:
    commands.sweep(study, size="smoke", overrides=overrides, out=out)
    return results.load_results("mine", out)


def _missing(study: str, out: Path, *overrides: str) -> int:
    spec = load_study(study, overrides=overrides)
    return runner.plan_study(spec, results.open_store("mine", out)).n_missing


def test_a_second_sweep_computes_nothing_and_a_larger_one_only_what_is_new(
    study: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert _missing(study, out) == 12
    rows = _sweep(study, out)
    assert len(rows) == 12
    assert _missing(study, out) == 0
    assert _missing(study, out, "repetitions=4") == 4
    assert _missing(study, out, "n_pairs=[30, 60, 90]") == 6
    assert _missing(study, out, "world.nu=2.0") == 12  # another world shares nothing
    files = sorted((out / "mine" / "rows").iterdir())
    again = _sweep(study, out)
    assert files == sorted((out / "mine" / "rows").iterdir())
    pd.testing.assert_frame_equal(rows, again)


def test_a_row_does_not_depend_on_what_else_the_sweep_computes(study: str, tmp_path: Path) -> None:
    alone = _sweep(study, tmp_path / "a", "n_pairs=[30]", "estimators=['share_b']")
    among = _sweep(study, tmp_path / "b")
    among = among[among["key"].isin(alone["key"])].reset_index(drop=True)
    for column in ("subspace_distance", "reward_error", "neg_log_likelihood"):
        # the sums run over another padding; the optimum is held to 1e-8 in gradient
        np.testing.assert_allclose(alone[column], among[column], rtol=1e-5)
    assert list(alone["key"]) == list(among["key"])


def _command(study: str, out: Path, *more: str) -> list[str]:
    arguments = ["sweep", study, "--set", "repetitions=8", "--out", str(out), *more]
    return [sys.executable, "-m", "simrlhf.cli", *arguments]


def test_sigkill_loses_at_most_the_task_in_flight(study: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(_command(study, whole), check=True, capture_output=True)
    process = subprocess.Popen(
        _command(study, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    folder = out / "mine" / "rows"
    while not list(folder.glob("*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, "the sweep ended before it could be killed"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(folder.glob("*.parquet")))
    assert 1 <= kept < 8
    with pytest.raises(InputError, match=r"of study 'mine' .* are missing; finish it: .*--resume"):
        results.load_results("mine", out)
    assert _missing(study, out, "repetitions=8") == (8 - kept) * 4
    subprocess.run(_command(study, out, "--resume"), check=True, capture_output=True)
    # same machine, same number of threads: the resumed table is the undisturbed one, bit for bit
    pd.testing.assert_frame_equal(
        results.load_results("mine", whole).drop(columns=VOLATILE),
        results.load_results("mine", out).drop(columns=VOLATILE),
        check_exact=True,
    )


def test_half_written_files_are_never_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write([{"key": "a", "value": 1.0}])
    (tmp_path / ".half.partial").write_bytes(b"PAR1 and then the machine stopped")
    assert store.keys() == {"a"}
    assert len(store.read()) == 1


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.write([{"key": "a", "value": 1.0}])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{path.name} cannot be read .* remove it"):
        store.keys()


def test_rows_written_twice_count_once_and_carry_provenance(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    store = Store(tmp_path)
    path = store.write([{"key": "a", "value": 1.0}])
    store.write([{"key": "a", "value": 1.0}, {"key": "b", "value": 2.0}])
    assert sorted(store.read()["key"]) == ["a", "b"]
    assert b"simrlhf.provenance" in (pq.read_schema(path).metadata or {})


def test_a_content_key_changes_with_everything_it_describes() -> None:
    one = content_key({"n_pairs": 10, "world": {"nu": 1.0}})
    assert one == content_key({"world": {"nu": 1.0}, "n_pairs": 10})
    assert one != content_key({"n_pairs": 10, "world": {"nu": 1.0 + 1e-12}})


def test_a_number_hashes_alike_however_it_is_written() -> None:
    assert content_key({"norm_bound": 3, "n": [1, 2.0]}) == content_key(
        {"norm_bound": 3.0, "n": (1.0, 2)}
    )
    assert content_key({"soft": True}) != content_key({"soft": False})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"size": 3}'])
def test_a_damaged_manifest_is_one_line(study: str, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"study\.json is damaged; run simrlhf sweep mine"):
        commands.sweep(study, size="smoke", overrides=(), out=tmp_path, resume=True)


def test_results_that_do_not_exist_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no results of study 'mine'.*run: simrlhf sweep mine"):
        results.load_results("mine", tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(study: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot .*file/out.*give a writable --out"):
        commands.sweep(study, size="smoke", overrides=(), out=tmp_path / "file" / "out")
