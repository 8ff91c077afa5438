"""`simrlhf quickstart`: the synthetic study and the real votes at smoke size, and a page."""

from __future__ import annotations

import html
import os
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from simrlhf.study import commands, real_data, results, summary
from simrlhf.study.honest_settings import HonestSettings
from simrlhf.study.terminal import console

STUDY = "subspace_vs_pairs"
DATA = "ukpconvarg1"
# smoke size of the evaluation on real votes: a coarse grid around what larger runs choose
SMOKE = HonestSettings(
    ranks=(1, 2),
    ridges=(1.0, 3.0, 10.0, 30.0),
    n_splits=3,
)


class _Part(NamedTuple):
    title: str
    sentences: list[str]
    caption: str
    table: pd.DataFrame
    figures: list[Path]


def run_quickstart(out: Path) -> Path:
    """Run both parts, print what they say, write `OUT/index.html`; returns its path."""
    started = time.perf_counter()
    parts = [_synthetic(out), _real(out)]
    page = out / "index.html"
    page.write_text(_page(out, parts), encoding="utf-8")
    for part in parts:
        console.print(f"\n{part.title}")
        for sentence in part.sentences:
            console.print(f"  * {sentence}")
    for part in parts:
        for path in part.figures:
            console.print(f"figure: {path}")
    console.print(f"page:   {page}   ({time.perf_counter() - started:.0f} s in all)")
    return page


def _synthetic(out: Path) -> _Part:
    console.print("1 of 2: synthetic users, whose truth is known")
    commands.sweep(STUDY, size="smoke", overrides=(), options=commands.SweepOptions(out=out))
    rows = results.load_results(STUDY, out)
    return _Part(
        "Synthetic users: does the shared basis approach the truth as the theory says?",
        summary.summarise_subspace(rows),
        "Median subspace distance over seeds (the oracle knows the basis)",
        summary.median_table(rows).rename_axis(columns=None).reset_index(),
        commands.figure([STUDY], out=out),
    )


def _real(out: Path) -> _Part:
    console.print("2 of 2: real people, crowd votes on which argument convinces")
    run = real_data.evaluate_data(real_data.open_data(DATA), DATA, SMOKE, out / DATA)
    columns = [name for name in run.table.columns if "split" not in name and name != "same_as"]
    return _Part(
        "Real people (UKPConvArg1): who predicts the votes on topics never seen?",
        run.sentences,
        "Means over workers; differences are to global, paired, with standard errors over workers",
        run.table[columns],
        [path for path in run.files if path.suffix == ".png"],
    )


def _page(out: Path, parts: list[_Part]) -> str:
    body = "\n".join(_section(out, part) for part in parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>simrlhf quickstart</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; font-size: 0.85rem; }}
td, th {{ padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }}
</style></head><body>
<h1>simrlhf quickstart</h1>
{body}
</body></html>
"""


def _section(out: Path, part: _Part) -> str:
    items = "\n".join(f"<li>{html.escape(sentence)}</li>" for sentence in part.sentences)
    images = "\n".join(
        f'<p><img src="{_link(path, out)}" alt="{html.escape(part.title)}"></p>'
        for path in part.figures
        if path.suffix == ".png"
    )
    table = part.table.to_html(index=False, float_format="%.4g", border=0)
    title, caption = html.escape(part.title), html.escape(part.caption)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>\n{images}\n<p>{caption}:</p>\n{table}"


def _link(path: Path, out: Path) -> str:
    return html.escape(Path(os.path.relpath(path, out)).as_posix())
