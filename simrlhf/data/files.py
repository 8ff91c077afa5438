"""Files that users bring: one schema for parquet, csv, jsonl (the last two also .gz) and npz.

One row for each comparison:

* `user_id`: who compared (read as a name, so 7 and "7" are the same user);
* `choice`: 1 where the first was preferred, 0 the second, or the probability of the first; any
  real number when `link="identity"` (regression);
* the content, in one of three ways: numeric differences `x0, x1, ...` (first minus second), two
  numeric items `a_0, a_1, ...` and `b_0, b_1, ...`, or two texts `text_a` and `text_b`. Matrix
  features `(d1, d2)` are written `x0_0, x0_1, ...` or `a_0_0, ...`: row, then column;
* optional: `weight` (non-negative), `group` (the unit of an honest split, such as the topic) and
  `pair_id`.

Other columns are ignored, unless one looks like a misspelt optional name. Every error is one line
with the file, the line or row (from 1), the field, the value and the remedy.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

from simrlhf.core import links
from simrlhf.data import readers, schema, text
from simrlhf.data.preferences import Preferences
from simrlhf.data.tables import PairTable


def load_table(path: str | Path, *, link: str = "logistic") -> PairTable:
    """Read a file of comparisons as it stands.

    Raises:
        InputError: one line that names the file, the row, the field, the value and the remedy.
    """
    is_preference = links.get_link(link).is_preference
    fields = schema.table_fields(readers.read(path), is_preference=is_preference)
    return PairTable(**fields, link=link)


def load_preferences(
    path: str | Path,
    *,
    link: str = "logistic",
    text_features: text.TextFeatures | None = None,
    dimensions: int = text.DIMENSIONS,
) -> Preferences:
    """Read a file of comparisons as `Preferences`; numeric features are taken as they are.

    Args:
        text_features: the features of texts, fitted elsewhere. By default they are fitted to the
            texts of this very file: right for a description, not for a held-out evaluation, which
            learns them from its training rows (`simrlhf.study.honest`).
        dimensions: number of latent dimensions when they are fitted here.
    """
    table = load_table(path, link=link)
    if table.texts is None:
        return table.to_preferences()
    fitted = text_features or text.fit(table.texts, dimensions=dimensions)
    return table.to_preferences(item_features=text.transform(fitted, table.texts))


def save_table(table: PairTable, path: str | Path) -> Path:
    """Write a table in the schema; the extension of `path` chooses the format.

    Returns:
        The path. `load_table` reads the same comparisons back (items in order of appearance).
    """
    place = Path(path)
    kind = readers.extension(place)
    fields = schema.file_fields(table)
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == ".npz":
        # a text becomes a fixed-width string there: Python objects would need pickle to read
        arrays: dict = {name: np.array(list(values)) for name, values in fields.items()}
        np.savez_compressed(place, **arrays)
    elif kind.startswith(".jsonl"):
        _write_jsonl(fields, place)
    else:
        import pandas

        frame = pandas.DataFrame(fields)
        if kind == ".parquet":
            frame.to_parquet(place, index=False)
        else:
            frame.to_csv(place, index=False)
    return place


def _write_jsonl(fields: dict[str, np.ndarray], place: Path) -> None:
    opened = gzip.open if place.name.lower().endswith(".gz") else open
    with opened(place, "wt", encoding="utf-8") as file:
        for row in zip(*(values.tolist() for values in fields.values()), strict=True):
            file.write(json.dumps(dict(zip(fields, row, strict=True)), ensure_ascii=False) + "\n")
