"""Features of texts: TF-IDF, latent semantic analysis and length, from training texts only.

A word `w` weighs `(1 + log count) idf` in a text, `idf = log((1 + n) / (1 + n_w)) + 1` where `n_w`
of the `n` training texts hold it, and every text has unit length: scikit-learn's
`TfidfVectorizer(sublinear_tf=True)`. The projections on the leading right singular vectors of the
training matrix, followed by `log(1 + words)`, are centred and scaled by the training texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from simrlhf.core import checks, streams
from simrlhf.data import tables

DIMENSIONS = 50
_WORD = re.compile(r"\b\w\w+\b")


@dataclass(frozen=True, kw_only=True, eq=False)
class TextFeatures:
    """What was learned from the training texts.

    Attributes:
        vocabulary: the `V` words, sorted.
        idf: `(V,)` inverse document frequencies.
        components: `(dimensions, V)` right singular vectors, the largest entry of each positive.
        mean, scale: `(dimensions + 1,)` of the raw features over the training texts.
    """

    vocabulary: tuple[str, ...]
    idf: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def most_dimensions(texts: Sequence[str]) -> int:
    """Latent directions that these texts can have: below their number and that of their words."""
    vocabulary = {word for text in texts for word in words(text)}
    return max(0, min(len(texts), len(vocabulary)) - 1)


def fit(texts: Sequence[str], *, dimensions: int = DIMENSIONS) -> TextFeatures:
    """Learn text features from training texts; `dimensions = 0` keeps the length alone.

    Raises:
        InputError: no texts, or `dimensions` not below the number of texts and of words.
    """
    checks.require(len(texts) > 0, "no texts: at least one is needed to learn features")
    counts = [Counter(words(text)) for text in texts]
    vocabulary = tuple(sorted({word for count in counts for word in count}))
    checks.integer(
        "dimensions", dimensions, low=0, high=most_dimensions(texts),
        remedy=f"there are {len(texts)} texts with {len(vocabulary)} words: lower dimensions",
    )  # fmt: skip
    held = np.zeros(len(vocabulary))
    place = {word: i for i, word in enumerate(vocabulary)}
    for count in counts:
        held[[place[word] for word in count]] += 1
    idf = np.log((1 + len(texts)) / (1 + held)) + 1
    matrix = tfidf(texts, vocabulary=vocabulary, idf=idf)
    components = _right_singular_vectors(matrix, dimensions)
    raw = _raw(matrix, components, texts)
    return TextFeatures(
        vocabulary=vocabulary,
        idf=idf,
        components=components,
        mean=raw.mean(axis=0),
        scale=tables.safe_scales(raw.std(axis=0), np.abs(raw).max()),
    )


def transform(fitted: TextFeatures, texts: Sequence[str]) -> np.ndarray:
    """Features `(len(texts), dimensions + 1)`; words that training never saw count for nothing."""
    matrix = tfidf(texts, vocabulary=fitted.vocabulary, idf=fitted.idf)
    return (_raw(matrix, fitted.components, texts) - fitted.mean) / fitted.scale


def tfidf(
    texts: Sequence[str], *, vocabulary: Sequence[str], idf: np.ndarray
) -> scipy.sparse.csr_array:
    """Rows of unit length (zero where a text has no known word), `(len(texts), V)`."""
    place = {word: i for i, word in enumerate(vocabulary)}
    rows, columns, values = [], [], []
    for row, text in enumerate(texts):
        known = [(place[w], c) for w, c in Counter(words(text)).items() if w in place]
        rows += [row] * len(known)
        columns += [column for column, _ in known]
        values += [count for _, count in known]
    weights = (1 + np.log(values)) * idf[columns] if values else np.zeros(0)
    shape = (len(texts), len(vocabulary))
    length = np.sqrt(np.bincount(rows, weights=weights**2, minlength=shape[0])) if rows else [1.0]
    return scipy.sparse.csr_array((weights / np.take(length, rows), (rows, columns)), shape=shape)


def words(text: str) -> list[str]:
    """The words of two letters or more, in lower case."""
    return _WORD.findall(text.lower())


def save(fitted: TextFeatures, path: str | Path) -> Path:
    """Write the features as `.npz`; `load` reads them back."""
    arrays = {name: getattr(fitted, name) for name in ("idf", "components", "mean", "scale")}
    np.savez_compressed(path, vocabulary=np.array(fitted.vocabulary), **arrays)
    return Path(path)


def load(path: str | Path) -> TextFeatures:
    """Read features written by `save`."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return TextFeatures(vocabulary=tuple(arrays.pop("vocabulary").tolist()), **arrays)


def _raw(
    matrix: scipy.sparse.csr_array, components: np.ndarray, texts: Iterable[str]
) -> np.ndarray:
    length = np.log1p([len(text.split()) for text in texts])
    return np.column_stack([matrix @ components.T, length])


def _right_singular_vectors(matrix: Any, count: int) -> np.ndarray:
    """The leading ones as rows, in falling order, the same at every call and with fixed signs."""
    if count == 0:
        return np.zeros((0, matrix.shape[1]))
    start = streams.generator(0, "text features").standard_normal(min(matrix.shape))
    found: Any = scipy.sparse.linalg.svds(matrix, k=count, v0=start)
    _, values, rows = found
    rows = rows[np.argsort(values)[::-1]]
    largest = np.abs(rows).argmax(axis=1)
    return rows * np.sign(rows[np.arange(count), largest])[:, None]
