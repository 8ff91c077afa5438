"""What tests of the sweep share: a small study, its sweep in this process, and tables compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from simrlhf.study import commands, results
from simrlhf.study.axes import Newcomers, Point
from simrlhf.study.tasks import Cell, Draw, Task
from simrlhf.world import WorldConfig

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


@pytest.fixture
def study(tmp_path: Path) -> str:
    """Path of a study of 12 rows."""
    path = tmp_path / "mine.toml"
    path.write_text(STUDY, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def sweep() -> Callable[..., pd.DataFrame]:
    """Run a sweep in this process and read its rows."""

    def run(name: str, out: Path, *overrides: str, size: str = "smoke", **options) -> pd.DataFrame:
        settings = commands.SweepOptions(out=out, **options)
        commands.sweep(name, size=size, overrides=overrides, options=settings)
        return results.load_results(Path(name).stem, out)

    return run


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    """A task from a world and the cells wanted of one repetition."""

    def make(
        world: WorldConfig,
        cells: list[Cell],
        *,
        largest: int = 0,
        repetition: int = 0,
        seed: int = 0,
        metrics: tuple[str, ...] = ("recovery", "bounds"),
        newcomers: Newcomers | None = None,
        **fit,
    ) -> Task:
        sizes = sorted({cell.n_pairs for cell in cells})
        point = Point(world, tuple(sorted(fit.items())), tuple(sizes), newcomers)
        named = {f"{cell.n_pairs} {cell.estimator}": cell for cell in cells}
        draw = Draw(point, max(largest, *sizes, 0), repetition, named)
        return Task(seed, metrics, (draw,))

    return make


@pytest.fixture(scope="session")
def assert_same_rows() -> Callable[[pd.DataFrame, pd.DataFrame], None]:
    """Equal bit for bit, but for wall-clock seconds."""

    def compare(one: pd.DataFrame, other: pd.DataFrame) -> None:
        pd.testing.assert_frame_equal(
            one.drop(columns="seconds"), other.drop(columns="seconds"), check_exact=True
        )

    return compare
