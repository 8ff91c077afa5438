"""A study: a grid of worlds, sample sizes and estimators, written as TOML.

```toml
title = "..."            # one line, shown by the figure and the listing
question = "..."         # what the study asks
cell = "recovery"        # a cell function of simrlhf.study.cells

[grid]
n_pairs = {from = 50, to = 3200, points = 7}   # even in the logarithm; samples are nested
estimators = ["share_b", "full"]
metrics = ["recovery", "bounds"]               # and others of cells.METRICS
repetitions = 5
seed = 0
zip = ["n_users", "d1"]                        # these two move together

[world]                  # fields of WorldConfig; a list or a range sweeps the field
n_users = [8, 32]
d1 = [20, 80]
nu = [0.5, 1.0, 2.0]

[decision]               # fields of DecisionConfig, for the metric "decisions"; swept as well
mdp = "garnet"
horizon = [2, 8]

[newcomers]              # of the cell "new_users" alone, whose n_pairs are the newcomers' own
new_users = 8            # the last of the world's n_users; the others are fitted without them
old_pairs = [50, 200]    # pairs of each of those others

[fit]                    # settings passed to fit(); swept in the same way
norm_bound = 3.0         # "none" where None is meant: TOML has no such value

theta_init = "known"     # the world's base reward (the default), "zero", or "global": fitted first

[fit.global_plus_local]  # of one estimator; what a class does not take is left out for it
ridge = 10.0

[size.tiny]              # overrides of keys above for a size, plain or dotted
repetitions = 2
```

What is swept forms a product, but for the keys of `zip`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simrlhf.core import checks
from simrlhf.estimators import ESTIMATORS, check_shape
from simrlhf.study import axes, shipped
from simrlhf.study.axes import Newcomers, Point
from simrlhf.study.cells import CELLS, DECISION_METRICS, DEFAULT_METRICS, METRICS
from simrlhf.study.newcomers import require_newcomers
from simrlhf.study.settings import WHOLE, file_digest, or_none, read_settings, resolve
from simrlhf.study.tasks import BASES, LIMITED, prompts_of, settings_of
from simrlhf.world import spectra
from simrlhf.world.config import WorldConfig
from simrlhf.world.decision_config import DecisionConfig

# sections whose values make a point of the grid
_PLACE = ("world", "decision", "newcomers", "fit")


@dataclass(frozen=True)
class StudySpec:
    """A study with its size and overrides applied, every value checked.

    Attributes:
        name: the file's stem; results and figures carry it.
        title, question, cell: see the module.
        size: which size this is.
        points: the grid.
        estimators, metrics: names.
        repetitions: independent worlds and samples for each point.
        seed: root of all randomness.
        settings: the same study as full keys and values, from which it can be built again.
        digest: hash of the study file; empty where it is not known.
    """

    name: str
    title: str
    question: str
    cell: str
    size: str
    points: tuple[Point, ...]
    estimators: tuple[str, ...]
    metrics: tuple[str, ...]
    repetitions: int
    seed: int
    settings: Mapping[str, Any] = field(compare=False, repr=False)
    digest: str = field(default="", compare=False, repr=False)

    @property
    def n_cells(self) -> int:
        """Rows that the study asks for."""
        sizes = sum(len(point.n_pairs) for point in self.points)
        return sizes * len(self.estimators) * self.repetitions


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
    settings = read_settings(path, size=size, overrides=overrides)
    return build_study(study_name(str(path)), size, settings, digest=file_digest(path))


def study_name(name_or_path: str) -> str:
    """The name that results carry: a study file's stem; other names may have dots in them."""
    path = Path(name_or_path)
    return path.stem if path.suffix == ".toml" else name_or_path


def require_same_file(study: StudySpec, name_or_path: str) -> None:
    """Refuse a study file that is not the one `study` was read from; it may be gone."""
    path = Path(name_or_path)
    if path.suffix != ".toml" or not path.is_file() or not study.digest:
        return
    checks.require(
        file_digest(path) == study.digest,
        f"{path} is not the file of the last sweep of {study.name!r} here, or was changed since; "
        f"leave out --resume to sweep it, or say {study.name} for {path} to go on with the last",
    )


def list_studies() -> dict[str, Path]:
    """Shipped studies by name."""
    folder = shipped.shipped_folder("experiments")
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def build_study(
    name: str, size: str, settings: Mapping[str, Any], *, digest: str = ""
) -> StudySpec:
    """A study from its `settings`: headings, and values by `section.field`."""
    estimators = axes.axis_values("estimators", settings.get("grid.estimators", []), whole=False)
    for estimator in estimators:
        checks.choice("estimator", estimator, ESTIMATORS)
    cell = checks.choice("cell function", settings["cell"], CELLS)
    wanted = settings.get("grid.metrics", [*DEFAULT_METRICS])
    metrics = axes.axis_values("metrics", wanted, whole=False)
    for metric in metrics:
        remedy = f"the cell {cell!r} measures no other"
        checks.choice("metric", metric, CELLS[cell].metrics, remedy=remedy)
    points = _points(settings)
    for point in points:
        checks.require(
            point.world.decision is not None or not {*DECISION_METRICS} & set(metrics),
            f"metrics name one of {', '.join(DECISION_METRICS)}, and the study has no decision "
            "problem; give it a section [decision] with a key mdp",
        )
        require_newcomers(cell, point, estimators)
        for estimator in estimators:
            _check_class(point, estimator)
    return StudySpec(
        name=name,
        title=settings["title"],
        question=settings["question"],
        cell=cell,
        size=size,
        points=points,
        estimators=tuple(dict.fromkeys(estimators)),
        # one order, whatever the file's: it is part of a row's key
        metrics=tuple(name for name in METRICS if name in metrics),
        repetitions=checks.integer("repetitions", settings.get("grid.repetitions", 1), low=1),
        seed=checks.integer("seed", settings.get("grid.seed", 0), low=0, high=2**63 - 1),
        settings=dict(settings),
        digest=digest,
    )


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        checks.require(path.is_file(), f"no study file {path}; give a name or an existing file")
        return path
    known = list_studies()
    checks.choice("study", name_or_path, known, remedy="or give the path of a .toml file")
    return known[name_or_path]


def _points(settings: Mapping[str, Any]) -> tuple[Point, ...]:
    """The grid; points that differ in the number of pairs alone share one sample."""
    swept = {"grid.n_pairs": 200, **settings}
    swept = {
        key: axes.axis_values(key, value, whole=key in WHOLE)
        for key, value in swept.items()
        if key == "grid.n_pairs" or key.partition(".")[0] in _PLACE
    }
    groups = [
        [resolve(name, "zip") if "." not in name else name for name in group]
        for group in axes.zip_groups(settings.get("grid.zip", []), _zip_names(swept))
    ]
    sizes: dict[tuple, set[int]] = {}
    for line in axes.grid_points(swept, groups):
        part: dict[str, dict[str, Any]] = {section: {} for section in ("grid", *_PLACE)}
        for key, value in line.items():
            section, _, name = key.partition(".")
            part[section][name] = or_none(key, value)
        n_pairs = checks.integer("n_pairs", part["grid"]["n_pairs"], low=1)
        place = (
            _world(part["world"], part["decision"]),
            _checked_fit(part["fit"]),
            _newcomers(part["newcomers"]),
        )
        sizes.setdefault(place, set()).add(n_pairs)
    return tuple(
        Point(world, fit, tuple(sorted(found)), newcomers)
        for (world, fit, newcomers), found in sizes.items()
    )


def _newcomers(table: Mapping[str, Any]) -> Newcomers | None:
    """Who comes late, or nobody; whether the cell has any use for them is seen later."""
    if not table:
        return None
    missing = [name for name in Newcomers._fields if name not in table]
    checks.require(
        not missing,
        f"[newcomers] needs {' and '.join(missing)}; as in new_users = 8, old_pairs = 200",
    )
    return Newcomers(
        **{name: checks.integer(f"newcomers.{name}", table[name], low=1) for name in table}
    )


def _zip_names(swept: Mapping[str, Any]) -> list[str]:
    """Keys that may be zipped: full ones, and short ones where they are unambiguous."""
    short = [key.partition(".")[2] for key in swept if key.count(".") == 1]
    return [*swept, *(name for name in short if name != "norm_bound")]


def _checked_fit(table: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Settings of `fit`, refused here if `fit` would refuse them in the first task."""
    for key, value in table.items():
        estimator, _, name = key.rpartition(".")
        accepted = ESTIMATORS[estimator].accepts if estimator else LIMITED
        checks.require(
            name not in LIMITED or name in accepted,
            f"fit.{key}: {estimator} takes no {name}; it takes {', '.join(accepted) or 'none'}",
        )
        _check_setting(f"fit.{key}", name, value)
    return tuple(sorted(table.items()))


def _check_setting(key: str, name: str, value: Any) -> None:
    if name in ("norm_bound", "penalty") and value is None:
        return
    if name in ("norm_bound", "penalty", "tol"):
        checks.real(key, value, above=0.0)
    elif name == "ridge":
        checks.real(key, value, low=0.0)
    elif name == "max_iterations":
        checks.integer(key, value, low=1, high=2**31 - 1)
    else:
        known = {"init": ("spectral", "random"), "theta_init": BASES}
        checks.choice(key, value, known[name])


def _check_class(point: Point, estimator: str) -> None:
    """Refuse an estimator that cannot take a point's shape: every row of it would fail."""
    world, settings = point.world, dict(settings_of(point.fit, estimator))
    n_users = world.n_users - (point.newcomers.new_users if point.newcomers else 0)
    if estimator == "oracle":  # its basis comes from the world
        return
    try:
        check_shape(
            ESTIMATORS[estimator],
            n_users=n_users,
            d1=world.d1,
            d2=world.d2,
            rank=world.rank,
            link=world.link,
            norm_bound=settings.get("norm_bound"),
            ridge=settings.get("ridge", 0.0),
        )
    except checks.InputError as error:
        where = f"N = {n_users}, d1 = {world.d1}, d2 = {world.d2}, link = {world.link}"
        raise checks.InputError(f"at {where}: {error}") from None


def _world(table: Mapping[str, Any], decision: Mapping[str, Any]) -> WorldConfig:
    """A world whose spectrum and norms can exist; checked here, before any work."""
    problem = DecisionConfig(**decision) if decision else None
    checks.require(
        problem is None or problem.mdp != "given",
        "decision.mdp = 'given' is for make_world(config, mdp=...); a study makes its own",
    )
    world = WorldConfig(**table, decision=problem)
    prompts_of(world, seed=0)  # refused here if a data set has fewer texts than that
    spectra.user_norm_target(world, spectra.singular_values(world))
    return world
