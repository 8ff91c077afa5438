"""What the README promises, taken from its text: commands to copy and blocks to run.

    readme.py command NAME   print the block that follows the comment <!-- NAME -->
    readme.py python         run the Python blocks, top to bottom, in one namespace
    readme.py shell          run the bash blocks that follow the comment <!-- run -->
    readme.py tree           write the tree of files at the end anew, from their first sentences
    readme.py verdicts FILE  write the table of verdicts anew, from the verdicts.md of a full run

Blocks run in the current folder. `README` in the environment names another file.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

README = Path(os.environ.get("README", Path(__file__).resolve().parents[1] / "README.md"))
FENCE = re.compile(
    r"^(?:<!-- (?P<tag>[a-z-]+) -->\n+)?```(?P<language>\w+)\n(?P<body>.*?)^```$", re.M | re.S
)
VERDICTS = re.compile(r"<!-- verdicts -->\n(?P<body>.*?)<!-- /verdicts -->", re.S)
TREE = ("simrlhf", "experiments", "paper_figs", "theory_checks")


class Block(NamedTuple):
    """A fenced block: its language, the comment above it, its text and first line number."""

    language: str
    tag: str | None
    body: str
    line: int


def blocks(text: str) -> list[Block]:
    """Every fenced block of a Markdown text that names its language."""
    return [
        Block(
            found["language"], found["tag"], found["body"], text.count("\n", 0, found.start("body"))
        )
        for found in FENCE.finditer(text)
    ]


def command(text: str, name: str) -> str:
    """The one block tagged `name`."""
    tagged = [block.body.strip() for block in blocks(text) if block.tag == name]
    if len(tagged) != 1:
        raise SystemExit(f"README has {len(tagged)} blocks after <!-- {name} -->, expected one")
    return tagged[0]


def run_python(text: str) -> int:
    """Run the Python blocks as one program; a traceback shows the README's line numbers."""
    chosen = [block for block in blocks(text) if block.language == "python"]
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in chosen:
        exec(compile("\n" * block.line + block.body, str(README), "exec"), namespace)
    return len(chosen)


def run_shell(text: str) -> int:
    """Run each bash block tagged `run`; the first command that fails ends everything."""
    chosen = [block.body for block in blocks(text) if block.tag == "run"]
    for body in chosen:
        subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", body], stdin=subprocess.DEVNULL, check=True
        )
    return len(chosen)


def tree(root: Path) -> str:
    """One line for every source file under `root`: its name and its first sentence."""
    rows = [row for folder in TREE for row in _rows(root / folder, depth=0)]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{sentence}".rstrip() for name, sentence in rows)


def _rows(path: Path, depth: int) -> list[tuple[str, str]]:
    name = "  " * depth + path.name
    if path.is_file():
        return [(name, _sentence(path))]
    inside = sorted(path.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
    rows = [
        row
        for entry in inside
        if entry.is_dir() or (entry.suffix in (".py", ".toml") and entry.name != "__init__.py")
        for row in _rows(entry, depth + 1)
    ]
    start = path / "__init__.py"
    return [(f"{name}/", _sentence(start) if start.exists() else ""), *rows] if rows else []


def _sentence(path: Path) -> str:
    """First sentence of a module's docstring, or the title of a study."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        return tomllib.loads(text)["title"]
    paragraph = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
    return re.split(r"(?<!\.)\.(?: |$)", paragraph.replace("`", ""))[0]


def with_tree(text: str, root: Path) -> str:
    """The README's text with its tree written anew."""
    return text.replace(command(text, "tree"), tree(root))


def with_verdicts(text: str, document: str) -> str:
    """The README's text with the table of a `verdicts.md`, which ends at its first empty line."""
    table = document.split("\n\n")[0].strip()
    found = VERDICTS.search(text)
    if not found:
        raise SystemExit("README has no <!-- verdicts --> ... <!-- /verdicts --> to fill")
    return text[: found.start("body")] + table + "\n" + text[found.end("body") :]


def main(arguments: list[str]) -> None:
    text = README.read_text(encoding="utf-8")
    match arguments:
        case ["command", name]:
            print(command(text, name))
        case ["python"]:
            print(f"{run_python(text)} Python blocks of the README ran")
        case ["shell"]:
            print(f"{run_shell(text)} shell blocks of the README ran")
        case ["verdicts", file]:
            document = Path(file).read_text(encoding="utf-8")
            README.write_text(with_verdicts(text, document), encoding="utf-8")
        case ["tree"]:
            README.write_text(with_tree(text, README.parent), encoding="utf-8")
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
