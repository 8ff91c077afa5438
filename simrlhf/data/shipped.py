"""Data sets of real people's votes that ship with the package, each with its notice."""

from __future__ import annotations

import csv
import gzip
import io
import json
from importlib import resources
from importlib.resources.abc import Traversable

import numpy as np

from simrlhf.core import checks
from simrlhf.data.tables import PairTable

_DATASETS = {
    "ukpconvarg1": (
        "Crowd votes on which of two arguments is more convincing, with worker ids, over 32 "
        "topics (Habernal and Gurevych, ACL 2016). Licence: CC BY 4.0."
    ),
}
_CHOICES = {"a1": 1.0, "a2": 0.0}


def shipped_datasets() -> dict[str, str]:
    """Names of the shipped data sets, each with one sentence and its licence."""
    return dict(_DATASETS)


def load_shipped(name: str = "ukpconvarg1", *, min_votes: int = 200) -> PairTable:
    """The table of a shipped data set; no network, from a clone or a wheel alike.

    `ukpconvarg1`: texts, one row for each strict vote ("equally convincing" is left out) of the
    workers with at least `min_votes` of them; the group is the topic and side of the debate, which
    an honest split keeps whole.

    Raises:
        InputError: an unknown name, or no worker with that many votes.
    """
    checks.choice("data set", name, _DATASETS)
    folder = resources.files("simrlhf.data").joinpath("shipped", name)
    arguments = [json.loads(line) for line in _lines(folder, "arguments.jsonl.gz")]
    place = {(a["topic"], a["id"]): i for i, a in enumerate(arguments)}
    rows = csv.DictReader(_lines(folder, "assignments.csv.gz"))
    votes = [row for row in rows if row["value"] in _CHOICES]
    table = PairTable(
        user_ids=np.array([v["worker"] for v in votes]),
        choice=np.array([_CHOICES[v["value"]] for v in votes]),
        texts=tuple(a["text"] for a in arguments),
        pairs=np.array([[place[v["topic"], v[side]] for side in ("arg1", "arg2")] for v in votes]),
        groups=np.array([v["topic"] for v in votes]),
        pair_ids=np.array([f"{v['topic']}/{v['arg1']}/{v['arg2']}" for v in votes]),
    )
    return table.with_at_least(min_votes)


def notice(name: str) -> str:
    """Source, licence and changes of a shipped data set, as its notice states them."""
    checks.choice("data set", name, _DATASETS)
    folder = resources.files("simrlhf.data").joinpath("shipped", name)
    return folder.joinpath("NOTICE.txt").read_text(encoding="utf-8")


def _lines(folder: Traversable, name: str) -> io.StringIO:
    raw = folder.joinpath(name).read_bytes()
    return io.StringIO(gzip.decompress(raw).decode("utf-8"))
