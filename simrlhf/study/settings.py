"""The settings of a study: its TOML file, the overrides of a size, and `--set`, as one flat table.

A setting is known by its full name, `section.key`; where one section only has the key, the key
alone will do.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from simrlhf.core import checks
from simrlhf.estimators import ESTIMATORS
from simrlhf.study.axes import Newcomers
from simrlhf.world.config import WorldConfig
from simrlhf.world.decision_config import DecisionConfig

SIZES = ("tiny", "smoke", "paper")
_GRID = ("n_pairs", "estimators", "metrics", "repetitions", "seed", "zip")
_FIT = ("norm_bound", "ridge", "penalty", "init", "max_iterations", "tol", "theta_init")
_WORLD = tuple(field.name for field in fields(WorldConfig) if field.name != "decision")
_DECISION = tuple(field.name for field in fields(DecisionConfig))
_SECTIONS = {
    "grid": _GRID,
    "world": _WORLD,
    "decision": _DECISION,
    "newcomers": Newcomers._fields,
    "fit": _FIT,
}
_HEADINGS = ("title", "question", "cell")
# fields that take integers
WHOLE = {
    "grid.n_pairs",
    "fit.max_iterations",
    *(f"newcomers.{name}" for name in Newcomers._fields),
    *(f"fit.{name}.max_iterations" for name in ESTIMATORS),
    *(
        f"{section}.{field.name}"
        for section, config in (("world", WorldConfig), ("decision", DecisionConfig))
        for field in fields(config)
        if str(field.type).startswith("int")
    ),
}
_NONE = {
    *("world.norm_bound", "world.n_groups", "world.minority_share"),
    *("fit.norm_bound", "fit.penalty"),
}


def read_settings(path: Path, *, size: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Headings, and values by `section.key`, with the overrides of `size` and of `--set` applied.

    Raises:
        InputError: not TOML, an unknown section, key or size (with the nearest spelling), a
            missing heading.
    """
    raw = _parse(path)
    sizes = raw.pop("size", {})
    checks.choice("size", size, SIZES)
    checks.require(
        isinstance(sizes, Mapping) and all(isinstance(t, Mapping) for t in sizes.values()),
        f"size in {path.name} must be tables of overrides, as in [size.tiny]",
    )
    changes: dict[str, dict[str, Any]] = {}
    for name, table in sizes.items():  # all of them: a typo must not wait for its size
        checks.choice(f"size in {path.name}", name, SIZES)
        where = f"{path.name} [size.{name}]"
        changes[name] = {resolve(key, where): value for key, value in _dotted(table).items()}
    settings = _flatten(path, raw) | changes.get(size, {})
    for text in overrides:
        key, value = _override(text)
        settings[resolve(key, "--set")] = value
    return settings


def file_digest(path: Path) -> str:
    """Hash of what a study file says, whatever its comments and spacing."""
    text = json.dumps(_parse(path), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_overrides(overrides: Sequence[str], section: str) -> dict[str, Any]:
    """`key=value` texts that may name keys of one section only, as a table of that section."""
    table = {}
    for text in overrides:
        key, value = _override(text)
        name = key.removeprefix(f"{section}.")
        checks.choice("key in --set", name, _SECTIONS[section])
        table[name] = or_none(f"{section}.{name}", value)
    return table


def resolve(key: str, where: str) -> str:
    """`field` or `section.field` to the full `section.field`."""
    section, _, name = key.rpartition(".")
    if section.startswith("fit."):
        checks.choice(f"estimator of {key!r} in {where}", section.removeprefix("fit."), ESTIMATORS)
        checks.choice(f"key of [{section}] in {where}", name, _FIT)
        return key
    if section:
        checks.choice(f"section of {key!r} in {where}", section, _SECTIONS)
        checks.choice(f"key of [{section}] in {where}", name, _SECTIONS[section])
        return key
    checks.require(
        key not in _HEADINGS,
        f"{key} cannot be changed in {where}: {', '.join(_HEADINGS)} are the study's own, one for "
        f"all sizes; only keys of {', '.join(f'[{home}]' for home in _SECTIONS)} can be",
    )
    homes = [home for home, known in _SECTIONS.items() if name in known]
    if not homes:
        every = dict.fromkeys(name for known in _SECTIONS.values() for name in known)
        checks.choice(f"key in {where}", key, every)
    checks.require(
        len(homes) == 1,
        f"key {key!r} in {where} is ambiguous: write "
        + " or ".join(f"{home}.{name}" for home in homes),
    )
    return f"{homes[0]}.{name}"


def or_none(key: str, value: Any) -> Any:
    """A value with "none" read as None where the field takes it: TOML has no such value."""
    section, name = key.split(".")[0], key.rpartition(".")[2]
    return None if f"{section}.{name}" in _NONE and value == "none" else value


def _parse(path: Path) -> dict[str, Any]:
    try:
        # some editors begin a file with a byte order mark
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise checks.InputError(f"{path} is not valid TOML: {error}") from None


def _flatten(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Sections to dotted keys, refusing what no section knows."""
    settings: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _HEADINGS:
            settings[key] = value
            continue
        checks.choice(f"section in {path.name}", key, [*_SECTIONS, *_HEADINGS, "size"])
        checks.require(isinstance(value, Mapping), f"[{key}] in {path.name} must be a table")
        for name, entry in _plain(key, value).items():
            settings[resolve(f"{key}.{name}", path.name)] = entry
    for heading in _HEADINGS:
        checks.require(
            isinstance(settings.get(heading), str),
            f'{path.name} needs a line {heading} = "..."',
        )
    checks.require(
        "grid.estimators" in settings, f"{path.name} names no estimators; list them under [grid]"
    )
    return settings


def _plain(section: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a section; `[fit.NAME]` holds settings of one estimator."""
    if section != "fit":
        return dict(table)
    flat: dict[str, Any] = {}
    for name, entry in table.items():
        if isinstance(entry, Mapping) and name not in _FIT:
            flat |= {f"{name}.{inner}": value for inner, value in entry.items()}
        else:
            flat[name] = entry
    return flat


def _dotted(table: Mapping[str, Any]) -> dict[str, Any]:
    """`[size.tiny]` with plain keys, dotted keys or sections; a range is a value, not a section."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and key in _SECTIONS:
            flat |= {f"{key}.{inner}": entry for inner, entry in _plain(key, value).items()}
        else:
            flat[key] = value
    return flat


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    checks.require(bool(equals), f"--set takes key=value, got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        raise checks.InputError(
            f"--set {text}: {value!r} is not a TOML value; quote text, as in link='\"identity\"'"
        ) from None
