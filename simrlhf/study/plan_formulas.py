"""Targets of a plan, and what needs no sample: the limits L1 and L2, and Theorem 4.1 as printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.metrics import efficiency_limits, full_limit
from simrlhf.metrics.designs import MOST_IN_MATRICES, matrix_numbers
from simrlhf.world import World, WorldConfig, spectra
from simrlhf.world.config import ISOTROPIC_LAWS

_TOO_MANY = "above 2^53 in all"

Status = Literal["REACHED", "NOT_REACHED", "NONE", "NOT_APPLICABLE"]


class Target(NamedTuple):
    """An error asked for.

    Attributes:
        name: `subspace_distance` or `reward_error`, a column of `metrics.recovery`.
        value: the error.
        ceiling: what is reached without data: the largest distance, the error of `Delta = 0`.
        scale: what turns a bound of `||E||_F / sigma_k`, as of the distance, into one of this.
    """

    name: str
    value: float
    ceiling: float
    scale: float


class Answer(NamedTuple):
    """One line of a plan.

    Attributes:
        kind: `limit`, `printed`, `proved` or `measured`.
        n_pairs: pairs per user; `None` where there is no such number.
        status: REACHED; NOT_REACHED by any n that was tried; NONE, no n will do; NOT_APPLICABLE.
        remark: why there is no number.
        value: of what was drawn, at `n_pairs` or at the largest n tried; NaN for formulas.
    """

    kind: str
    statement: str
    estimator: str
    n_pairs: int | None
    status: Status
    remark: str = ""
    value: float = math.nan


class Limits(NamedTuple):
    """Limits of `n E[error^2]`, means over the drawn worlds.

    Attributes:
        traces: L1 as `subspace`, and L2 of `share_b`, `oracle`, `full` and `local`, each where it
            holds.
        reason: why the others do not.
    """

    traces: dict[str, float]
    reason: str


def make_targets(
    config: WorldConfig, *, distance: float | None, reward_error: float | None
) -> list[Target]:
    """The errors asked for, each refused where it is reached without data.

    Raises:
        InputError: no target, one outside its range, or a spectrum that cannot exist.
    """
    checks.require(
        distance is not None or reward_error is not None,
        "no target: give a subspace distance (distance = 0.3), a reward error (reward_error = "
        "0.5), or both",
    )
    _require_plannable(config)
    values = spectra.singular_values(config)
    spectra.user_norm_target(config, values)
    targets = []
    if distance is not None:
        checks.require(
            config.rank < config.d1,
            f"rank = {config.rank} = d1: the subspace is the whole space and always known; lower "
            "rank, or ask for a reward error",
        )
        ceiling = theory.distance_ceiling(config.rank, config.d1)
        limit = f"{ceiling:.12g} = sqrt(min(k, d1 - k)), which no subspace distance exceeds"
        value = _below("distance", distance, ceiling, limit)
        targets.append(Target("subspace_distance", value, ceiling, 1.0))
    if reward_error is not None:
        ceiling = float(np.linalg.norm(values)) / math.sqrt(config.n_users)
        limit = f"{ceiling:.12g}, the root mean square of ||Delta_i||_F: the error of Delta = 0"
        value = _below("reward_error", reward_error, ceiling, limit)
        targets.append(Target("reward_error", value, ceiling, math.sqrt(config.nu)))
    return targets


def _require_plannable(config: WorldConfig) -> None:
    """Refuse worlds for which the columns of a plan do not mean what they say."""
    for name, asked in (("count_spread", config.count_spread), ("deficiency", config.deficiency)):
        checks.require(
            asked == 0,
            f"{name} = {asked:g}: a plan counts equal pairs for users of a known sigma_k > 0; set "
            f"{name} = 0, or sweep n_pairs and read the measured error",
        )
    checks.require(
        config.features in ISOTROPIC_LAWS,
        f"features = {config.features!r}: a plan turns bounds of ||E||_F into reward errors, which "
        f"needs E[vec x vec x'] = I; choose one of {', '.join(ISOTROPIC_LAWS)}, or sweep n_pairs",
    )


def require_matrices(config: WorldConfig) -> None:
    """Refuse a world with a base model whose limits would need an array larger than 0.5 GB.

    Without a base model the limits are closed forms of any size.

    Raises:
        InputError: one matrix of side `d1 d2` for each user is too much.
    """
    if config.base_norm == 0.0:
        return
    size, needed = config.d1 * config.d2, matrix_numbers(config)
    checks.require(
        needed <= MOST_IN_MATRICES,
        f"base_norm = {config.base_norm:g}: the limits then take matrices of side d1 d2 = {size} "
        f"for each user, {needed} numbers in one array, above the limit {MOST_IN_MATRICES} "
        "(0.5 GB); set base_norm = 0, where closed forms hold at any size, or lower d1, d2 or "
        "n_users",
    )


def local_is_full(config: WorldConfig) -> bool:
    """Whether rank k is no restriction of one user's matrix."""
    return config.rank >= min(config.d1, config.d2)


def largest_norm(worlds: Sequence[World]) -> float:
    """The largest `||Delta_i||_F` of all users."""
    return max(float(np.linalg.norm(world.delta, axis=(1, 2)).max()) for world in worlds)


def world_limits(worlds: Sequence[World], norm_bound: float | None) -> Limits:
    """L1 and L2 of every estimator whose class has the truth in its interior.

    L2 is the mean over users of `tr Cov_i`, the limit of `n reward_error^2`. `full` has every truth
    in its class; a tail lies outside the others. One LoRA of rank k for each user is share-B of
    that user alone.
    """
    largest = largest_norm(worlds)
    if norm_bound is not None and largest >= norm_bound:
        return Limits({}, f"norms up to {largest:.3g}")
    found = [_traces(world) for world in worlds]
    means = {name: float(np.mean([traces[name] for traces in found])) for name in found[0]}
    if math.isnan(means["full"]):  # bounded features
        return Limits({}, "no closed form")
    return Limits(means, "biased by the tail" if worlds[0].config.tail > 0 else "")


def limit_answers(target: Target, config: WorldConfig, limits: Limits) -> list[Answer]:
    """L1, or L2 of every estimator; of `local` where it is not `full`."""
    if target.name == "subspace_distance":
        wanted = [("L1", "share_b", "subspace")]
    else:
        names = ["share_b", "oracle", "full"] + ["local"] * (not local_is_full(config))
        wanted = [("L2", name, name) for name in names]
    answers = []
    for statement, estimator, name in wanted:
        start = ("limit", statement, estimator)
        if name not in limits.traces:
            answers.append(Answer(*start, None, "NOT_APPLICABLE", limits.reason))
            continue
        trace = limits.traces[name]
        n_pairs = theory.limit_sample_size(trace, target.value)
        reason = _TOO_MANY if math.isfinite(trace) else "not identified"
        answers.append(_of_formula(start, n_pairs, config.n_users, reason))
    return answers


def printed_answers(target: Target, config: WorldConfig, *, delta: float) -> list[Answer]:
    """Theorem 4.1 with `c_1 = 1`, and with the counts of the classes that the paper compares."""
    if target.name != "subspace_distance":
        start = ("printed", "Theorem 4.1", "share_b")
        return [Answer(*start, None, "NOT_APPLICABLE", "distance only")]
    sizes = {
        "n_users": config.n_users,
        "rank": config.rank,
        "d1": config.d1,
        "nu": config.nu,
        "tail_energy": config.n_users * config.tail**2,
    }
    bias = theory.theorem_4_1(log_bracketing=0.0, n_pairs=1, **sizes).value
    reason = _TOO_MANY if bias < target.value else f"tail term {bias:.3g}"
    answers = []
    for name in ["share_b", "full"] + ["local"] * (not local_is_full(config)):
        n_pairs = theory.theorem_4_1_sample_size(
            target.value, d2=config.d2, delta=delta, model_class=name, **sizes
        )
        start = ("printed", "Theorem 4.1", name)
        answers.append(_of_formula(start, n_pairs, config.n_users, reason))
    return answers


def _below(name: str, value: float, ceiling: float, limit: str) -> float:
    value = checks.real(name, value, above=0.0, remedy="no finite n gives 0")
    checks.require(value < ceiling, f"{name} = {value:.12g} must be below {limit}; lower it")
    return value


def _of_formula(
    start: tuple[str, str, str], n_pairs: int | None, n_users: int, reason: str
) -> Answer:
    if n_pairs is None:
        return Answer(*start, None, "NONE", reason)
    if n_users * n_pairs > theory.LARGEST_SAMPLE:
        return Answer(*start, None, "NONE", _TOO_MANY)
    return Answer(*start, n_pairs, "REACHED")


def _traces(world: World) -> dict[str, float]:
    """Traces of one world, of the estimators whose class holds its truth."""
    traces = {"full": full_limit(world)}
    if world.config.tail > 0:
        return traces
    if not local_is_full(world.config):
        alone = [efficiency_limits(world, slice(i, i + 1)) for i in range(world.n_users)]
        traces["local"] = float(np.mean([found.share_b for found in alone]))
    return efficiency_limits(world)._asdict() | traces
