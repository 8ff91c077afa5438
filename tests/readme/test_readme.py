"""The README against the tree: versions agree, commands exist, every file has its line."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import simrlhf

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    """The script with which CI takes commands and blocks out of the README."""
    spec = importlib.util.spec_from_file_location("readme_reader", ROOT / ".ci" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_both_commands_build_their_own_environment(reader):
    for name in ("quickstart-command", "test-command"):
        command = reader.command(README, name)
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
        assert "\n" not in command


def test_every_python_block_is_python(reader):
    python = [block for block in reader.blocks(README) if block.language == "python"]
    assert python
    for block in python:
        compile(block.body, "README.md", "exec")


def test_the_tree_names_every_file_with_its_first_sentence(reader):
    # `python .ci/readme.py tree` writes it anew
    assert reader.command(README, "tree").splitlines() == reader.tree(ROOT).splitlines()


def test_a_tree_shows_folders_first_and_leaves_out_empty_ones(reader, tmp_path: Path):
    for name in reader.TREE:
        (tmp_path / name).mkdir()
    (tmp_path / "simrlhf" / "core").mkdir()
    (tmp_path / "simrlhf" / "core" / "__init__.py").write_text('"""The ground."""\n')
    (tmp_path / "simrlhf" / "core" / "links.py").write_text('"""`Links`: two. More.\n\nEnd."""')
    (tmp_path / "simrlhf" / "cli.py").write_text('"""Commands."""\n')
    (tmp_path / "experiments" / "sweep.toml").write_text('title = "A sweep"\n')
    assert reader.tree(tmp_path).splitlines() == [
        "simrlhf/",
        "  core/       The ground",
        "    links.py  Links: two",
        "  cli.py      Commands",
        "experiments/",
        "  sweep.toml  A sweep",
    ]


def test_the_version_is_the_same_everywhere():
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation is not None
    assert newest is not None
    assert citation[1] == newest[1] == simrlhf.__version__


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from simrlhf.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )


def test_every_command_of_the_table_exists():
    table = re.findall(r"^\| `simrlhf (\w+)", README, re.M)
    assert table
    overview = run_cli("--help").stdout
    for name in table:
        assert name in overview
        assert run_cli(name, "--help").returncode == 0
    assert run_cli("no-such-command").returncode == 2


def run_reader(readme: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "readme.py"), *arguments],
        env={**os.environ, "README": str(readme)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_blocks_share_one_namespace_and_a_failing_one_is_reported_with_its_line(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("# Title\n\n```python\nx = 1\n```\n\n```python\nassert x == 1\n```\n")
    passed = run_reader(readme, "python")
    assert passed.returncode == 0
    assert passed.stdout == "2 Python blocks of the README ran\n"
    readme.write_text(readme.read_text().replace("x == 1", "x == 2"))
    failed = run_reader(readme, "python")
    assert failed.returncode == 1
    assert "line 8" in failed.stderr


def test_a_failing_line_of_a_shell_block_is_an_error_and_unmarked_blocks_do_not_run(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- run -->\n```bash\ntrue\n```\n\n```bash\nfalse\n```\n")
    assert run_reader(readme, "shell").returncode == 0
    readme.write_text("<!-- run -->\n```bash\nfalse\ntrue\n```\n")
    assert run_reader(readme, "shell").returncode != 0


def test_a_marker_without_its_block_is_an_error(tmp_path: Path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- test-command -->\n\nno block here\n")
    assert "0 blocks" in run_reader(readme, "command", "test-command").stderr


def test_the_table_of_verdicts_is_of_the_checks_that_ship(reader):
    """Statements, kinds and claims are those that the checks declare today, in their order."""
    from simrlhf.study.checking.run import list_checks, load_check

    table = reader.VERDICTS.search(README)["body"].strip().splitlines()[2:]
    shown = [re.split(r"(?<!\\) \| ", line.strip("| "))[:3] for line in table]
    declared = [load_check(name).CHECK for name in list_checks()]
    assert shown == [
        [one.statement, str(one.kind), one.claim.replace("|", "\\|")] for one in declared
    ]


def test_a_table_of_verdicts_takes_the_place_of_the_old_one(reader):
    text = "before <!-- verdicts -->\nold\n<!-- /verdicts --> after"
    found = reader.with_verdicts(text, "| a |\n|---|\n| 1 |\n\n- a: said\n")
    assert found == "before <!-- verdicts -->\n| a |\n|---|\n| 1 |\n<!-- /verdicts --> after"
    with pytest.raises(SystemExit, match="README has no"):
        reader.with_verdicts("nothing", "")
