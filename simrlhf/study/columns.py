"""The columns of a row that say which world it is of."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from simrlhf.world import DecisionConfig, WorldConfig

_DECISION = "decision"
WORLD_COLUMNS = (
    *(field.name for field in fields(WorldConfig) if field.name != _DECISION),
    *(f"{_DECISION}_{field.name}" for field in fields(DecisionConfig)),
)


def world_columns(config: WorldConfig) -> dict[str, Any]:
    """The fields of a world, those of its decision problem as `decision_NAME`."""
    columns = asdict(config)
    decision = columns.pop(_DECISION) or {}
    return columns | {f"{_DECISION}_{name}": value for name, value in decision.items()}
