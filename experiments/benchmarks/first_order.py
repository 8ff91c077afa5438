"""How far the paper's training is from the optimum of its own objective, beside `share_b`.

Run: python experiments/benchmarks/first_order.py [--seeds 5] [--out first_order.csv]

Every budget of data passes is a training of its own, with its decay to zero; the learning rate is
the paper's, and the best of a grid by the final training loss, chosen anew for every budget, seed
and variant (its cost, the sum over the grid, is not charged). Medians over the seeds, `>` where the
largest budget was not enough. An epoch counts as one data pass; by the bookkeeping of `share_b`,
where products with the features count forward and backward, it would be two.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

import simrlhf as sim
from simrlhf.core import numerics

# d2 and pairs per user: at d2 = 8 and 200 pairs some users separate, and there is no optimum
WORLDS = {1: 200, 8: 400}
SIZES = {"n_users": 32, "d1": 64, "rank": 4}
NORM = 2.0
PAPER_RATE = 5e-5
GRID = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
BUDGETS = (1, 3, 10, 30, 100, 300, 1000)
GAPS = (1e-3, 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--d2", type=int, choices=WORLDS, nargs="*", default=[*WORLDS])
    parser.add_argument("--most", type=int, default=300, help="largest budget of data passes")
    parser.add_argument("--out", type=Path, help="also write every run as csv")
    arguments = parser.parse_args()
    numerics.configure(cache=False)
    budgets = [budget for budget in BUDGETS if budget <= arguments.most]
    print(f"device {jax.devices()[0].device_kind}, jax {jax.__version__}, float64")
    print(f"{SIZES}, ||Delta_i|| = {NORM:g}, {arguments.seeds} seeds")
    tables = []
    for d2 in arguments.d2:
        runs, newton = [], []
        for seed in range(arguments.seeds):
            world, pairs, best = _case(d2, seed)
            newton += _second_order(world, pairs, best, seed)
            runs += _trainings(world, pairs, best, seed, budgets)
        table = pd.DataFrame(runs)
        tables.append(table.assign(d2=d2, n_pairs=WORLDS[d2]))
        _report(f"d2 = {d2}, n = {WORLDS[d2]}", table, pd.DataFrame(newton))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(tables).to_csv(arguments.out, index=False)
        print(f"\nevery run: {arguments.out}")


def _case(d2: int, seed: int) -> tuple[sim.World, sim.Preferences, sim.FitResult]:
    # equal norms: ||Delta_i||^2 is the mean of the squared singular values over users
    spread = np.geomspace(2.0, 1.0, SIZES["rank"])
    nu = NORM**2 / float(np.sum(spread**2))
    config = sim.WorldConfig(**SIZES, d2=d2, nu=nu, condition=2.0, user_norms="equal")
    world = sim.make_world(config, seed=seed)
    pairs = sim.sample_preferences(world, WORLDS[d2], seed=seed)
    best = sim.fit(pairs, "share_b", rank=SIZES["rank"], tol=1e-10)
    if best.gradient_norm > 1e-8:
        raise SystemExit(f"seed {seed} has no optimum to measure against: {best.message}")
    return world, pairs, best


def _row(world: sim.World, fit: sim.FitResult, best: sim.FitResult) -> dict[str, float]:
    return {
        "gap": fit.neg_log_likelihood - best.neg_log_likelihood,
        "to_truth": sim.subspace_distance(fit.basis, world.basis),
        "to_optimum": sim.subspace_distance(fit.basis, best.basis),
    }


def _second_order(
    world: sim.World, pairs: sim.Preferences, best: sim.FitResult, seed: int
) -> Iterator[dict[str, Any]]:
    """`share_b` stopped after every number of steps, up to the end."""
    for steps in itertools.count(1):
        fit = sim.fit(pairs, "share_b", rank=SIZES["rank"], max_iterations=steps)
        yield {"seed": seed, "steps": steps, "passes": fit.data_passes, **_row(world, fit, best)}
        if fit.iterations < steps or fit.status is sim.FitStatus.CONVERGED:
            return


def _trainings(
    world: sim.World,
    pairs: sim.Preferences,
    best: sim.FitResult,
    seed: int,
    budgets: list[int],
) -> Iterator[dict[str, Any]]:
    for variant, rate, budget in itertools.product(("SI", "G", "WU"), (PAPER_RATE, *GRID), budgets):
        settings = sim.TrainingSettings(
            variant=variant, rank=SIZES["rank"], epochs=budget, learning_rate=rate, seed=seed
        )
        fit = sim.train_first_order(pairs, settings, record=()).fit
        yield {
            "seed": seed, "variant": variant, "rate": rate, "passes": budget,
            **_row(world, fit, best),
        }  # fmt: skip


def _report(name: str, table: pd.DataFrame, newton: pd.DataFrame) -> None:
    print(
        f"\n{name}: mean NLL above the optimum, subspace distance to the truth and to the optimum"
    )
    print("variant  rate            passes       gap  to truth  to optimum   rate chosen")
    tuned = table[table["rate"] != PAPER_RATE]
    chosen = tuned.loc[tuned.groupby(["variant", "passes", "seed"])["gap"].idxmin()]
    for variant in ("SI", "G", "WU"):
        for kind, part in (("paper's 5e-5", table[table["rate"] == PAPER_RATE]), ("tuned", chosen)):
            mine = part[part["variant"] == variant]
            for passes, rows in mine.groupby("passes"):
                middle = rows[["gap", "to_truth", "to_optimum", "rate"]].median()
                print(
                    f"{variant:8} {kind:14} {passes:7d} {middle['gap']:9.1e} "
                    f"{middle['to_truth']:9.3f} {middle['to_optimum']:11.1e} "
                    f"{middle['rate']:13.0e}"
                )
    last = newton.loc[newton.groupby("seed")["steps"].idxmax()]
    middle = last[["gap", "to_truth", "to_optimum", "passes"]].median()
    print(
        f"{'share_b':8} {'second order':14} {middle['passes']:7.0f} {middle['gap']:9.1e} "
        f"{middle['to_truth']:9.3f} {middle['to_optimum']:11.1e}"
    )
    for gap in GAPS:
        ours = newton[newton["gap"] <= gap].groupby("seed")["passes"].min().median()
        parts = [f"share_b {ours:.0f}"]
        for variant, rows in chosen.groupby("variant"):
            middles = rows.groupby("passes")["gap"].median()
            enough = middles.index[middles <= gap]
            parts.append(f"{variant} {enough[0] if len(enough) else f'> {middles.index[-1]}'}")
        lowest = chosen.groupby(["variant", "passes"])["gap"].median().min()
        print(f"data passes to a gap of {gap:g}: {', '.join(parts)} (smallest gap {lowest:.1e})")


if __name__ == "__main__":
    main()
