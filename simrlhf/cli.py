"""The command line: parsing and printing only. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simrlhf.core.checks import InputError

_Size = Literal["tiny", "smoke", "paper"]
_Positional = tyro.conf.Positional


def main() -> None:
    """Entry point: one clear line and status 2 for a foreseeable mistake, never a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "quickstart": quickstart,
                "sweep": sweep,
                "figure": figure,
                "fit": fit,
            },
            prog="simrlhf",
            description="Does the theory of shared low-rank personalised RLHF say what happens?",
            sort_subcommands=False,
        )
    except InputError as error:
        print(f"simrlhf: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("simrlhf: interrupted; finished work is stored, run again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        sys.stderr.close()


def sweep(
    study: _Positional[str] = "",
    *,
    size: _Size = "smoke",
    set: Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="KEY=VALUE")],
    out: Path = Path("results"),
    dry_run: bool = False,
    resume: bool = False,
    list: bool = False,
) -> None:
    """Compute a study's missing rows and store them.

    Example: simrlhf sweep subspace_vs_pairs --size tiny --set repetitions=4

    Args:
        study: name of a shipped study, or the path of a TOML file.
        size: how large: tiny (seconds), smoke (under a minute), paper.
        set: change a setting of the study; may be given many times.
        out: folder of all results.
        dry_run: say what would be computed, and stop.
        resume: go on with the size and settings of the last sweep of this study.
        list: list the shipped studies, and stop.
    """
    from simrlhf.study import commands

    if list:
        commands.print_studies()
    else:
        commands.sweep(
            study, size=size, overrides=set, out=out, dry_run=dry_run, resume=resume
        )


def figure(
    names: _Positional[tuple[str, ...]] = (),
    *,
    out: Path = Path("results"),
    all: bool = False,
) -> None:
    """Draw figures from stored results.

    Example: simrlhf figure subspace_vs_pairs

    Args:
        names: figures to draw; without names the shipped ones are listed.
        out: folder of all results; figures go beside the rows they read.
        all: draw every figure whose results exist.
    """
    from simrlhf.study import commands

    commands.figure(names, out=out, everything=all)
