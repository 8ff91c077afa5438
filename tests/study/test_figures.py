"""Figures of value gaps: what they read, and where curves cross."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simrlhf.study import commands, figures, shipped
from simrlhf.study.commands import SweepOptions

STUDIES = (
    "value_gap_vs_pairs",
    "value_gap_vs_users",
    "value_gap_vs_coverage",
    "pessimism_vs_greedy",
    "guaranteed_vs_pairs",
    "new_user_shots",
    "pairs_needed_vs_eps",
)
# figures that hold two estimators against each other
COMPARING = ("value_gap_vs_pairs", "new_user_shots", "pairs_needed_vs_eps")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_tiny_sweep_is_drawn(tmp_path: Path, name: str) -> None:
    both = ', "full"' if name in COMPARING else ""
    few = [f'estimators=["share_b"{both}]', "repetitions=2"]
    options = SweepOptions(out=tmp_path)
    assert commands.sweep(name, size="tiny", overrides=few, options=options) == 0
    drawn = figures.draw_figure(name, tmp_path, tmp_path)
    assert [path.name for path in drawn] == [f"{name}.png", f"{name}.pdf"]
    assert all(path.stat().st_size > 1000 for path in drawn)


def crossing_of(lead_at: dict[int, float], *, noise: float = 0.01) -> float:
    """The figure's crossing for two estimators whose difference is `lead_at` by n."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "n_pairs": n,
            "estimator": name,
            "repetition": r,
            "value_gap": 1.0 + gap + noise * rng.normal(),
        }
        for n, lead in lead_at.items()
        for r in range(8)
        for name, gap in (("share_b", lead), ("full", 0.0))
    ]
    script = shipped.load_script(shipped.shipped_folder("paper_figs") / "value_gap_vs_pairs.py")
    return script.crossing_of(pd.DataFrame(rows), "share_b", "full")


def test_curves_cross_where_the_paired_difference_changes_sign():
    # linear in log n: half way between 100 and 400 is 200
    assert crossing_of({25: -0.4, 100: -0.2, 400: 0.2, 1600: 0.4}) == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize(
    "leads",
    [
        {25: -0.4, 100: -0.3, 400: -0.2},  # never
        {25: -0.2, 100: 0.2, 400: -0.2, 1600: 0.2},  # twice
        {25: -0.002, 100: 0.002},  # within the noise
    ],
)
def test_no_crossing_is_claimed_that_the_worlds_do_not_show(leads):
    assert np.isnan(crossing_of(leads, noise=0.02))
