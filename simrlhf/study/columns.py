"""The columns of a row that say which world it is of, and who is new in it."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from simrlhf.study.axes import Newcomers
from simrlhf.world import DecisionConfig, WorldConfig

_DECISION = "decision"
WORLD_COLUMNS = (
    *(field.name for field in fields(WorldConfig) if field.name != _DECISION),
    *(f"{_DECISION}_{field.name}" for field in fields(DecisionConfig)),
)
# what rows must agree in to be of one setting, beside those of the fit
POINT_COLUMNS = (*WORLD_COLUMNS, *Newcomers._fields)


def world_columns(config: WorldConfig) -> dict[str, Any]:
    """The fields of a world, those of its decision problem as `decision_NAME`."""
    columns = asdict(config)
    decision = columns.pop(_DECISION) or {}
    return columns | {f"{_DECISION}_{name}": value for name, value in decision.items()}


def newcomer_columns(newcomers: Newcomers | None) -> dict[str, int]:
    """`new_users` and `old_pairs`; nothing in a study without new users."""
    return {} if newcomers is None else newcomers._asdict()
