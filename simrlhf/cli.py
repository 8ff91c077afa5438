"""The command line: parsing and printing only. Heavy imports wait inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from simrlhf.core.checks import InputError

_Size = Literal["tiny", "smoke", "paper"]
_Positional = tyro.conf.Positional
_Settings = Annotated[tyro.conf.UseAppendAction[list[str]], tyro.conf.arg(metavar="KEY=VALUE")]


def main() -> None:
    """Entry point: one clear line and status 2 for a foreseeable mistake, never a traceback."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "quickstart": quickstart,
                "sweep": sweep,
                "check": check,
                "figure": figure,
                "compare": compare,
                "fit": fit,
                "describe": describe,
                "plan": plan,
            },
            prog="simrlhf",
            description="Does the theory of shared low-rank personalised RLHF say what happens?",
            sort_subcommands=False,
        )
    except InputError as error:
        print(f"simrlhf: {error}", file=sys.stderr)
        sys.exit(2)
    except MemoryError as error:
        said = " ".join(str(error).split())
        print(f"simrlhf: not enough memory ({said}); use fewer users or pairs", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        said = str(stop) or "finished work is stored, run again to go on"
        print(f"simrlhf: interrupted; {said}", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left (`| head`)
        sys.stderr.close()


def sweep(
    study: _Positional[str] = "",
    *,
    size: _Size | None = None,
    set: _Settings,
    out: Path = Path("results"),
    dry_run: bool = False,
    resume: bool = False,
    yes: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    mixed: bool = False,
    list: bool = False,
) -> None:
    """Compute a study's missing rows and store them.

    Example: simrlhf sweep subspace_vs_pairs --size tiny --set repetitions=4

    Args:
        study: name of a shipped study, or the path of a TOML file.
        size: how large: tiny (seconds), smoke (under a minute; so by default), paper.
        set: change a setting of the study; may be given many times.
        out: folder of all results.
        dry_run: say what would be computed and what it takes, and stop.
        resume: go on with the last sweep of this study: its size, settings and --mixed.
        yes: do not ask before a million rows.
        workers: run on so many processes of this machine, one thread each (Dask).
        scheduler: run on the Dask cluster at this address, as tcp://host:8786.
        retry_failed: compute rows again that failed before.
        mixed: go on with rows that another version of the program made.
        list: list the shipped studies, and stop.
    """
    from simrlhf.study import commands

    if list:
        commands.print_studies()
        return
    options = commands.SweepOptions(
        out=out,
        dry_run=dry_run,
        yes=yes,
        workers=workers,
        scheduler=scheduler,
        retry_failed=retry_failed,
        mixed=mixed,
    )
    if commands.sweep(study, size=size, overrides=set, options=options, resume=resume):
        sys.exit(1)


def check(
    ids: _Positional[tuple[str, ...]] = (),
    *,
    size: _Size | None = None,
    out: Path = Path("results"),
    list: bool = False,
    explain: bool = False,
    mutate: bool = False,
    workers: int | None = None,
) -> None:
    """Hold the theory's statements against measurements, and print a verdict on each.

    Example: simrlhf check S2 A2 "Lemma 5"

    A printed claim may be refuted or loose: that is a result. Exit status 1 says that a proved
    statement, a definition or a limit failed, or that a check had no power against its wrong rival.

    Args:
        ids: statements, as S2, A11, "Lemma 5" or lemma_5; without any, all of them.
        size: how much evidence: tiny (seconds each; so for --mutate), smoke (minutes for all; so by
            default), paper.
        out: folder of all results; verdicts.json, verdicts.md and the evidence go to OUT/checks.
        list: list the checks, and stop.
        explain: print claim, procedure, rival and tolerance of each, and stop.
        mutate: spoil every formula of the theory instead, and say which check notices; status 1
            where none does.
        workers: processes, of one thread each; as many as this machine has cores by default.
    """
    from simrlhf.study.checking import command

    if list:
        command.print_checks()
    elif explain:
        command.explain(ids)
    elif mutate:
        if not command.mutate(ids, size=size or "tiny", out=out):
            sys.exit(1)
    elif not command.check(ids, size=size or "smoke", out=out, workers=workers):
        sys.exit(1)


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


def compare(
    study: _Positional[str],
    *,
    columns: tuple[str, ...] = (),
    against: str = "share_b",
    out: Path = Path("results"),
) -> None:
    """Say which estimator wins where, in paired differences over the repetitions of a sweep.

    Example: simrlhf compare regimes --columns reward_error held_out_nll

    Args:
        study: name of a swept study.
        columns: what is compared (subspace_distance, reward_error, held_out_nll): all by default.
        against: the estimator that the others are held against.
        out: folder of all results; comparison.csv goes beside the rows.
    """
    from simrlhf.study.comparison import run_compare

    run_compare(study, columns=columns, against=against, out=out)


def fit(
    data: _Positional[str],
    *,
    estimator: str = "share_b",
    rank: str = "auto",
    ridge: str = "auto",
    norm_bound: float | None = None,
    link: str = "logistic",
    dimensions: int = 50,
    splits: int = 5,
    min_train: int = 10,
    min_test: int = 5,
    seed: int = 0,
    out: Path = Path("results"),
) -> None:
    """Judge estimators on held-out groups of real comparisons, and keep one fitted to all pairs.

    Example: simrlhf fit ukpconvarg1 --estimator share_b --rank auto

    share_b, global, full and local are evaluated beside the one asked for; rank and ridge are
    chosen on validation groups, the table is of test groups.

    Args:
        data: name of a shipped data set (ukpconvarg1), or a parquet, csv, jsonl or npz file.
        estimator: the one whose model is kept; any but oracle.
        rank: auto, a number, or numbers to choose from as 1,2,4.
        ridge: auto, a number, or numbers to choose from as 1,10,100.
        norm_bound: R in ||Delta_i||_F <= R; none by default.
        link: logistic, probit, laplace or label_flip (label_flip:0.2 for a rate of 0.2) for
            preferences, identity for regression on real-valued choices.
        dimensions: latent dimensions of text features; numeric ones are taken as they are.
        splits: random splits by group.
        min_train: training pairs that a user needs to be fitted in a split.
        min_test: test pairs that a user needs to be scored in a split.
        seed: of the splits.
        out: folder of all results; tables, figure and model go into a folder named after the data.
    """
    from simrlhf.study import real_data

    real_data.run_fit(
        data,
        estimator=estimator,
        ranks=rank,
        ridges=ridge,
        norm_bound=norm_bound,
        link=link,
        dimensions=dimensions,
        n_splits=splits,
        min_train=min_train,
        min_test=min_test,
        seed=seed,
        out=out,
    )


def describe(
    data: _Positional[str],
    *,
    link: str = "logistic",
    dimensions: int = 50,
    permutations: int = 200,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Say what a file of comparisons holds, and what may trouble a fit of it.

    Example: simrlhf describe ukpconvarg1

    Users and pairs, repeats and agreement, position bias, cyclic preferences, conditioning of the
    features, users whose labels are separable, and whether users share structure beyond chance.

    Args:
        data: name of a shipped data set (ukpconvarg1), or a parquet, csv, jsonl or npz file.
        link: logistic, probit, laplace or label_flip (label_flip:0.2 for a rate of 0.2) for
            preferences, identity for regression on real-valued choices.
        dimensions: latent dimensions of text features; numeric ones are taken as they are.
        permutations: draws of each null of the spectrum.
        seed: of these draws.
        out: folder for describe.json and users.csv; by default nothing is written.
    """
    from simrlhf.study.describe import run_describe

    run_describe(
        data, link=link, dimensions=dimensions, permutations=permutations, seed=seed, out=out
    )


def plan(
    *,
    set: _Settings,
    distance: float | None = None,
    reward_error: float | None = None,
    norm_bound: float | None = None,
    repetitions: int = 3,
    largest: int | None = None,
    fits: bool = True,
    delta: float = 0.05,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Say how many pairs per user a target error takes: by limits, by bounds, and by fits.

    Example: simrlhf plan --set n_users=32 --set d1=20 --set rank=3 --distance 0.3

    Args:
        set: a setting of the world, as of a study's [world]; may be given many times.
        distance: target of the subspace distance.
        reward_error: target of the root mean square error of the rewards.
        norm_bound: R in ||Delta_i||_F <= R of the fits; none by default.
        repetitions: worlds drawn for what is not a closed form.
        largest: most pairs per user that are tried.
        fits: also fit, for the bounds that need a fit and for the measured error.
        delta: failure probability of Theorem 4.1.
        seed: of worlds and samples.
        out: folder for plan.csv and plan.json; by default nothing is written.
    """
    from simrlhf.study.plan import run_plan
    from simrlhf.study.settings import parse_overrides
    from simrlhf.world import WorldConfig

    run_plan(
        WorldConfig(**parse_overrides(set, "world")),
        distance=distance,
        reward_error=reward_error,
        norm_bound=norm_bound,
        repetitions=repetitions,
        largest=largest,
        fits=fits,
        delta=delta,
        seed=seed,
        out=out,
    )


def quickstart(*, out: Path = Path("results")) -> None:
    """See the whole program in minutes: a synthetic study, real votes, figures and a page.

    Example: simrlhf quickstart

    Args:
        out: folder of all results.
    """
    from simrlhf.study.quickstart import run_quickstart

    run_quickstart(out)


if __name__ == "__main__":
    main()
