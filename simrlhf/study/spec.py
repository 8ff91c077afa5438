"""A study: a grid of worlds, sample sizes and estimators, written as TOML.

```toml
title = "..."            # one line, shown by the figure and the listing
question = "..."         # what the study asks
cell = "recovery"        # a cell function of simrlhf.study.cells

[grid]
n_pairs = [100, 400]
estimators = ["share_b", "full"]
repetitions = 5
seed = 0

[world]                  # fields of WorldConfig; a list sweeps the field
n_users = [8, 32]
d1 = 20

[fit]                    # settings passed to fit()
norm_bound = 3.0

[size.tiny]              # overrides for a size, with plain or dotted keys
repetitions = 2
```
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from simrlhf.core import checks
from simrlhf.study import shipped
from simrlhf.world.config import WorldConfig

SIZES = ("tiny", "smoke", "paper")
_GRID = ("n_pairs", "estimators", "repetitions", "seed")
_FIT = ("norm_bound", "ridge", "init", "max_iterations", "tol")
_WORLD = tuple(field.name for field in fields(WorldConfig))
_SECTIONS = {"grid": _GRID, "world": _WORLD, "fit": _FIT}
_HEADINGS = ("title", "question", "cell")


@dataclass(frozen=True)
class StudySpec:
    """A study with its size and overrides applied, every value checked.

    Attributes:
        name: the file's stem; results and figures carry it.
        title, question, cell: see the module.
        size: which size this is.
        worlds: the swept world settings.
        n_pairs: pairs per user, ascending.
        estimators: names.
        repetitions: independent worlds and samples for each world setting.
        seed: root of all randomness.
        fit: settings passed to `fit`.
    """

    name: str
    title: str
    question: str
    cell: str
    size: str
    worlds: tuple[WorldConfig, ...]
    n_pairs: tuple[int, ...]
    estimators: tuple[str, ...]
    repetitions: int
    seed: int
    fit: tuple[tuple[str, Any], ...]


def load_study(
    name_or_path: str, *, size: str = "smoke", overrides: Sequence[str] = ()
) -> StudySpec:
    """Read a shipped study by name, or a user's TOML file by path.

    Args:
        size: `tiny`, `smoke` or `paper`.
        overrides: `key=value` texts with values in TOML syntax; a key is a field, or
            `section.field` where two sections have it.

    Raises:
        InputError: unknown study, size, key or value, with the nearest spelling.
    """
    path = _find(name_or_path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise checks.InputError(f"{path} is not valid TOML: {error}") from None
    sizes = raw.pop("size", {})
    checks.choice("size", size, SIZES)
    checks.require(
        isinstance(sizes, Mapping) and all(isinstance(t, Mapping) for t in sizes.values()),
        f"size in {path.name} must be tables of overrides, as in [size.tiny]",
    )
    for name in sizes:
        checks.choice(f"size in {path.name}", name, SIZES)
    settings = _flatten(path, raw)
    for key, value in _dotted(sizes.get(size, {})).items():
        settings[_resolve(key, f"{path.name} [size.{size}]")] = value
    for text in overrides:
        key, value = _override(text)
        settings[_resolve(key, "--set")] = value
    return _build(path.stem, size, settings)


def list_studies() -> dict[str, str]:
    """Shipped studies with the question each asks."""
    folder = shipped.shipped_folder("experiments")
    return {
        path.stem: str(tomllib.loads(path.read_text(encoding="utf-8")).get("question", ""))
        for path in sorted(folder.glob("*.toml"))
    }


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        checks.require(path.is_file(), f"no study file {path}; give a name or an existing file")
        return path
    folder = shipped.shipped_folder("experiments")
    known = [item.stem for item in sorted(folder.glob("*.toml"))]
    checks.choice("study", name_or_path, known, remedy="or give the path of a .toml file")
    return folder / f"{name_or_path}.toml"


def _flatten(path: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Sections to dotted keys, refusing what no section knows."""
    settings: dict[str, Any] = {}
    for key, value in raw.items():
        if key in _HEADINGS:
            settings[key] = value
            continue
        checks.choice(f"section in {path.name}", key, [*_SECTIONS, *_HEADINGS, "size"])
        checks.require(isinstance(value, Mapping), f"[{key}] in {path.name} must be a table")
        for field, entry in value.items():
            settings[_resolve(f"{key}.{field}", path.name)] = entry
    for heading in _HEADINGS:
        checks.require(
            isinstance(settings.get(heading), str),
            f'{path.name} needs a line {heading} = "..."',
        )
    return settings


def _dotted(table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": entry for inner, entry in value.items()}
        else:
            flat[key] = value
    return flat


def _resolve(key: str, where: str) -> str:
    """`field` or `section.field` to the full `section.field`."""
    section, _, field = key.rpartition(".")
    if section:
        checks.choice(f"section of {key!r} in {where}", section, _SECTIONS)
        checks.choice(f"key of [{section}] in {where}", field, _SECTIONS[section])
        return key
    homes = [name for name, known in _SECTIONS.items() if field in known]
    if not homes:
        every = [field for known in _SECTIONS.values() for field in known]
        checks.choice(f"key in {where}", key, every)
    checks.require(
        len(homes) == 1,
        f"key {key!r} in {where} is ambiguous: write "
        + " or ".join(f"{home}.{field}" for home in homes),
    )
    return f"{homes[0]}.{field}"


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    checks.require(bool(equals), f"--set takes key=value, got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        raise checks.InputError(
            f"--set {text}: {value!r} is not a TOML value; quote text, as in link='\"identity\"'"
        ) from None


def _build(name: str, size: str, settings: Mapping[str, Any]) -> StudySpec:
    from simrlhf.estimators import ESTIMATORS

    part = {
        section: {
            key.partition(".")[2]: value
            for key, value in settings.items()
            if key.startswith(f"{section}.")
        }
        for section in _SECTIONS
    }
    grid = part["grid"]
    estimators = _many(grid.get("estimators", ["share_b"]))
    for estimator in estimators:
        checks.choice("estimator", estimator, ESTIMATORS)
    n_pairs = sorted({checks.integer("n_pairs", n, low=1) for n in _many(grid.get("n_pairs", 200))})
    checks.require(bool(n_pairs and estimators), "n_pairs and estimators must not be empty")
    return StudySpec(
        name=name,
        title=settings["title"],
        question=settings["question"],
        cell=settings["cell"],
        size=size,
        worlds=tuple(_worlds(part["world"])),
        n_pairs=tuple(n_pairs),
        estimators=tuple(dict.fromkeys(estimators)),
        repetitions=checks.integer("repetitions", grid.get("repetitions", 1), low=1),
        seed=checks.integer("seed", grid.get("seed", 0), low=0, high=2**63 - 1),
        fit=_checked_fit(part["fit"]),
    )


def _checked_fit(table: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Settings of `fit`, refused here if `fit` would refuse them in the first task."""
    if "norm_bound" in table:
        checks.real("fit.norm_bound", table["norm_bound"], above=0.0)
    checks.real("fit.ridge", table.get("ridge", 0.0), low=0.0)
    checks.real("fit.tol", table.get("tol", 1e-8), above=0.0)
    checks.integer("fit.max_iterations", table.get("max_iterations", 1), low=1, high=2**31 - 1)
    checks.choice("fit.init", table.get("init", "spectral"), ("spectral", "random"))
    return tuple(sorted(table.items()))


def _worlds(table: Mapping[str, Any]) -> list[WorldConfig]:
    """The product of all fields given as lists; each world is checked here, before any work."""
    from simrlhf.world import spectra

    axes = {key: _many(value) for key, value in table.items()}
    for key, values in axes.items():
        checks.require(bool(values), f"world.{key} is empty; give at least one value")
    worlds = []
    for values in itertools.product(*axes.values()):
        world = WorldConfig(**dict(zip(axes, values, strict=True)))
        spectra.user_norm_target(world, spectra.singular_values(world))
        worlds.append(world)
    return worlds


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
