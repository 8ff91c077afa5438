"""The command line as a user meets it: one clear line and status 2 for a foreseeable mistake."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from simrlhf import cli

TYPO = """
title = "t"
question = "q"
cell = "recovery"
[grid]
n_pair = 20
"""


def _run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simrlhf.cli", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


class _Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The same in this process, which has imported everything already."""

    def run(*arguments: str) -> _Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["simrlhf", *arguments])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        return _Done(status, *capsys.readouterr())

    return run


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = _run("sweep", "subspace_vs_pair", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("simrlhf: unknown study 'subspace_vs_pair'")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "subspace_vs_pair"], "unknown study 'subspace_vs_pair'"),
        (["sweep", "subspace_vs_pairs", "--set", "n_user=3"], "did you mean 'n_users'"),
        (["sweep", "subspace_vs_pairs", "--set", "rank=21"], "rank = 21 must be at most 6"),
        (["sweep", "subspace_vs_pairs", "--set", "nu=-0.5"], "nu = -0.5 must be greater than 0"),
        (["sweep", "subspace_vs_pairs", "--resume"], "no results of study 'subspace_vs_pairs'"),
        (["sweep", "m", "--resume", "--size", "tiny"], "the last size and settings; drop --size"),
        (["sweep", "subspace_vs_pairs", "--set", "n_pairs={from=9, to=3}"], "needs points"),
        (["sweep", "typo.toml"], "unknown key of [grid] in typo.toml 'n_pair'"),
        (["sweep", "subspace_vs_pairs", "--workers", "0"], "--workers = 0 must be at least 1"),
        (["figure", "no_such_figure"], "unknown figure 'no_such_figure'"),
        (["figure", "subspace_vs_pairs"], "run: simrlhf sweep subspace_vs_pairs"),
        (["fit", "absent.csv"], "absent.csv"),
        (["fit", "empty.csv"], "empty.csv"),
        (["fit", "ukpconvarg1", "--estimator", "shareb"], "unknown estimator 'shareb'"),
        (["fit", "ukpconvarg1", "--rank", "two"], "--rank 'two' must be auto"),
        (["fit", "ukpconvarg"], "unknown data set 'ukpconvarg': choose one of ukpconvarg1"),
        (["fit", "ukpconvarg1", "--link", "identity"], "its link is logistic, not identity"),
        (["describe", "absent.csv"], "absent.csv: no such file"),
        (["describe", "ukpconvarg1", "--permutations", "3"], "permutations = 3 must be at least"),
        (["plan", "--distance", "5"], "distance = 5 must be below 2"),
        (["plan"], "no target: give a subspace distance"),
        (["plan", "--set", "n_user=3", "--distance", "0.3"], "did you mean 'n_users'"),
        (["plan", "--set", "n_users=[3, 4]", "--distance", "0.3"], "n_users must be an integer"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, command, tmp_path: Path
) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "typo.toml").write_text(TYPO, encoding="utf-8")
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_folder_where_nothing_can_be_written_is_one_line(command) -> None:
    done = command("sweep", "subspace_vs_pairs", "--out", "/proc/results")
    assert done.returncode == 2
    assert "cannot write to /proc/results/subspace_vs_pairs" in done.stderr
    assert "give a writable --out" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--sise", "tiny"], ["--size", "huge"]])
def test_an_unknown_option_or_value_is_refused_without_a_traceback(
    arguments: list[str], command
) -> None:
    done = command("sweep", "subspace_vs_pairs", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["quickstart", "sweep", "figure", "fit", "describe", "plan"])
def test_every_command_explains_itself_with_an_example(name: str, command) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert f"Example: simrlhf {name}" in " ".join(done.stdout.split())


def test_help_needs_none_of_the_heavy_libraries(tmp_path: Path) -> None:
    program = (
        "import sys, simrlhf.cli\n"
        "heavy = {'jax', 'pandas', 'matplotlib', 'scipy', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
