"""What tests of raw comparisons share: a random table with repeats in both orders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from simrlhf.data import PairTable


@pytest.fixture(scope="session")
def random_table() -> Callable[..., tuple[PairTable, np.ndarray, np.ndarray]]:
    """Few items, so that pairs come back in both orders, with ties and items beside themselves."""

    def draw(rng: np.random.Generator, *, n_rows: int = 300, differences: bool = False):
        n_users, n_items = 5, 6
        pairs = rng.integers(0, n_items, (n_rows, 2))
        items = rng.normal(size=(n_items, 3, 1))
        content = {"items": items, "pairs": pairs}
        if differences:
            content = {"differences": items[pairs[:, 0]] - items[pairs[:, 1]]}
        table = PairTable(
            user_ids=rng.integers(0, n_users, n_rows),
            choice=rng.choice([0.0, 0.2, 0.5, 1.0], n_rows),
            **content,
        )
        return table, pairs, np.sign(table.choice - 0.5).astype(int)

    return draw
