"""`simrlhf plan`: pairs per user for a target error, by every limit and bound and by fits."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from simrlhf.core import checks, numerics
from simrlhf.study import (
    folders,
    plan_draws,
    plan_formulas,
    plan_report,
    plan_searches,
    provenance,
)
from simrlhf.study.plan_draws import Drawing
from simrlhf.study.plan_formulas import Answer, Limits, Target
from simrlhf.study.terminal import console, progress_bar
from simrlhf.world import WorldConfig


def run_plan(
    world: WorldConfig,
    *,
    distance: float | None = None,
    reward_error: float | None = None,
    repetitions: int = 3,
    largest: int | None = None,
    seed: int = 0,
    fits: bool = True,
    norm_bound: float | None = None,
    delta: float = 0.05,
    out: Path | None = None,
) -> pd.DataFrame:
    """Pairs per user at which each statement says that a target error is reached; prints a table.

    The limits L1 and L2 are formulas, averaged over the drawn worlds; Theorem 4.1 is taken as
    printed, with `c_1 = 1`. S2 is evaluated on drawn designs (a priori) and on fits (the other
    levels), and with fits the error is measured too; these count with their median over the worlds.
    They are no falling functions of n, so bisection over n = 1 .. `largest` in steps of 10 %
    proposes an n, and it stands if the target is met at each further step too, up to twice this n
    and to twice the parameters per user of the class, where the error of a fit can peak, all as far
    as `largest`; otherwise the search goes on behind the step that failed (`lasting_sample`). Where
    `largest` is below the parameters per user, no n is an answer.

    Args:
        world: settings of the truth.
        distance: target of `dist(B_hat, B^<>)` (Definition A.1).
        reward_error: target of `(mean_i E <E_i, x>^2)^{1/2}`, as `metrics.recovery` has it.
        repetitions: worlds drawn.
        largest: most pairs per user of a design or a fit; by default
            `2^24 / (repetitions N (d1 d2 + 10))`, which takes half a minute to a minute.
        seed: of worlds and samples, which are those of a sweep with this seed.
        fits: whether to fit; without fits only the levels that need none are answered.
        norm_bound: `R` of the fits; S2 a priori says nothing without, under the logistic link.
        delta: failure probability of Theorem 4.1.
        out: folder for `plan.csv` and `plan.json` (which has null for what is not finite).

    Returns:
        A row for each target and statement: `target`, `target_value`, `kind` (limit, printed,
        proved, measured), `statement`, `estimator`, `n_pairs` per user and `total_pairs` (missing
        where there is none), `status` (REACHED, NOT_REACHED up to `largest`, NONE, NOT_APPLICABLE),
        `remark`, and the `value` of what was drawn, at `n_pairs` or at `largest`.

    Raises:
        InputError: no target or one outside its range, settings that cannot exist, or sizes above
            the limits; all before anything is drawn.
    """
    numerics.configure()
    targets = plan_formulas.make_targets(world, distance=distance, reward_error=reward_error)
    plan_formulas.require_matrices(world)
    checks.real("delta", delta, above=0.0, high=1.0, remedy="a failure probability")
    checks.integer("repetitions", repetitions, low=1, high=1000)
    checks.integer("seed", seed, low=0, high=2**63 - 1)
    if norm_bound is not None:
        checks.real("norm_bound", norm_bound, above=0.0, remedy="or leave it out for no bound")
    most = plan_draws.most_pairs(world)
    if largest is None:
        largest = plan_draws.default_largest(world, repetitions)
    remedy = "a sample then takes 1.1 GB; lower largest, n_users, d1 or d2"
    checks.integer("largest", largest, low=1, high=most, remedy=remedy)
    _open_folder(out)
    drawing = Drawing(
        config=world, repetitions=repetitions, seed=seed, norm_bound=norm_bound, largest=largest
    )
    limits = plan_formulas.world_limits(drawing.worlds, norm_bound)
    answers = {
        target: [
            *plan_formulas.limit_answers(target, world, limits),
            *plan_formulas.printed_answers(target, world, delta=delta),
        ]
        for target in targets
    }
    for target, found in _searched(drawing, targets, limits, fits=fits).items():
        answers[target] += found
    plan_report.print_plan(drawing, answers, limits, delta=delta)
    table = _as_frame(answers, world.n_users)
    _write(table, drawing, delta, out)
    return table


def _searched(
    drawing: Drawing, targets: list[Target], limits: Limits, *, fits: bool
) -> dict[Target, list[Answer]]:
    with progress_bar() as bar:
        job = bar.add_task("plan", total=None)
        return plan_searches.searched_answers(
            drawing,
            targets,
            limits,
            fits=fits,
            progress=lambda done, total, said: bar.update(
                job, completed=done, total=total, description=said
            ),
        )


def _as_frame(answers: dict[Target, list[Answer]], n_users: int) -> pd.DataFrame:
    table = pd.DataFrame(
        [
            {"target": target.name, "target_value": target.value, **answer._asdict()}
            for target, found in answers.items()
            for answer in found
        ]
    ).astype({"n_pairs": "Int64"})
    table.insert(table.columns.get_loc("n_pairs") + 1, "total_pairs", n_users * table["n_pairs"])
    return table


def _open_folder(out: Path | None) -> None:
    """Make the folder before the work."""
    if out is not None:
        folders.make_writable(Path(out))


def _write(table: pd.DataFrame, drawing: Drawing, delta: float, out: Path | None) -> None:
    if out is None:
        return
    answers = [
        {
            name: None if pd.isna(value) or value == math.inf else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]
    record = {
        "world": asdict(drawing.config),
        "repetitions": drawing.repetitions,
        "seed": drawing.seed,
        "norm_bound": drawing.norm_bound,
        "largest": drawing.largest,
        "delta": delta,
        "provenance": provenance.provenance(),
        "answers": answers,
    }
    csv, text = Path(out) / "plan.csv", Path(out) / "plan.json"
    try:
        table.to_csv(csv, index=False)
        text.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise folders.unwritable(out, error) from None
    console.print(f"wrote: {csv}, {text}")
