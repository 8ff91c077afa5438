"""What a plan draws: a few worlds, and designs and fits of n pairs per user in them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import jax.numpy as jnp
import numpy as np

from simrlhf import theory
from simrlhf.core import checks, numerics, subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.sampling import sample_preferences
from simrlhf.study.axes import Point
from simrlhf.study.cells import run_recovery
from simrlhf.study.tasks import Cell, Draw, Row, Task, draw_seeds
from simrlhf.world import World, WorldConfig, make_world

# the neighbouring n of a search differ by this factor
STEP = 1.1
# work in the samples of all repetitions together when nobody sets `largest`, up to a minute: a pair
# costs as much as its numbers, and as ten more
_DEFAULT_WORK = 2**24
_WORK_PER_PAIR = 10
# numbers in one sample, of which a fit takes five copies (measured with share_b and full)
_MOST_NUMBERS = 2**27
# samples have `largest / 8^j` pairs, of which the first n are used; below so many numbers another
# compilation costs more than it saves
_SHRINK = 8
_SMALL_NUMBERS = 2**20


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """A few drawn worlds, and what was drawn in them so far.

    Worlds and samples are those that a sweep with this seed draws; samples of different n are
    nested.

    Attributes:
        config: the worlds' settings.
        repetitions, seed: how many worlds, and the root of all randomness.
        norm_bound: `R` of the fits, `None` for no bound.
        largest: most pairs per user that a design or a fit has.
        fits: rows of the fits made, by n and estimator.
        bounds: S2 a priori, by n.
    """

    config: WorldConfig
    repetitions: int
    seed: int
    norm_bound: float | None
    largest: int
    fits: dict[tuple[int, str], list[Row]] = field(default_factory=dict)
    bounds: dict[int, float] = field(default_factory=dict)

    @cached_property
    def seeds(self) -> list[tuple[int, int]]:
        """Seeds of world and sample, by repetition."""
        return [draw_seeds(self.seed, repetition) for repetition in range(self.repetitions)]

    @cached_property
    def worlds(self) -> list[World]:
        return [make_world(self.config, seed=first) for first, _ in self.seeds]

    @cached_property
    def candidates(self) -> list[int]:
        """Sample sizes that a search chooses from: 1 on in steps of 10 %, and `largest` itself."""
        steps = math.floor(math.log(self.largest) / math.log(STEP))
        return sorted({round(STEP**step) for step in range(steps + 1)} | {self.largest})


def most_pairs(config: WorldConfig) -> int:
    """Pairs per user that one sample may have: it then takes 1.1 GB, a fit about five times that.

    Raises:
        InputError: not even one.
    """
    numbers = config.n_users * config.d1 * config.d2
    checks.require(
        numbers <= _MOST_NUMBERS,
        f"N d1 d2 = {numbers} must be at most {_MOST_NUMBERS}, 1.1 GB for one pair of every user; "
        "lower n_users, d1 or d2",
    )
    return _MOST_NUMBERS // numbers


def default_largest(config: WorldConfig, repetitions: int) -> int:
    """Pairs per user with which a plan takes half a minute to a minute; at least 1."""
    work = repetitions * config.n_users * (config.d1 * config.d2 + _WORK_PER_PAIR)
    return max(1, _DEFAULT_WORK // work)


def fit_rows(drawing: Drawing, n_pairs: int, estimator: str) -> list[Row]:
    """One fit in every world at n, as rows of a sweep; S2 at its three levels for `share_b`."""
    if (n_pairs, estimator) not in drawing.fits:
        point = Point(drawing.config, (("norm_bound", drawing.norm_bound),), (n_pairs,))
        size = _padded(drawing, n_pairs)
        rows: list[Row] = []
        for repetition in range(drawing.repetitions):  # one task each: one sample in memory
            draw = Draw(point, size, repetition, {f"{repetition}": Cell(n_pairs, estimator)})
            rows += run_recovery(Task(drawing.seed, ("recovery", "bounds"), (draw,)))
        drawing.fits[n_pairs, estimator] = rows
    return drawing.fits[n_pairs, estimator]


def a_priori_bound(drawing: Drawing, n_pairs: int) -> float:
    """S2 a priori at n: the median over the worlds of its bound of the distance.

    The curvature is the worst that R and the largest feature allow; design and noise are drawn. A
    fit is taken to be at least as likely as `Delta^<>`, which is in its ball: the slack is 0.
    Infinite where a design is singular. It falls with n but where R is large, and says nothing
    there: the largest Gaussian feature grows with n.
    """
    if n_pairs < drawing.config.d1 * drawing.config.d2:
        return math.inf
    if n_pairs not in drawing.bounds:
        found = []
        for world, (_, seed) in zip(drawing.worlds, drawing.seeds, strict=True):
            width = _padded(drawing, n_pairs)
            sample = sample_preferences(world, width, seed=seed).first(n_pairs)
            found.append(_a_priori(world, sample, drawing.norm_bound, width))
        drawing.bounds[n_pairs] = float(np.median(found))
    return drawing.bounds[n_pairs]


def _padded(drawing: Drawing, n_pairs: int) -> int:
    """Pairs per user of the sample that n pairs are the first part of."""
    size, config = drawing.largest, drawing.config
    per_pair = config.n_users * config.d1 * config.d2
    while size // _SHRINK >= n_pairs and size * per_pair > _SMALL_NUMBERS:
        size //= _SHRINK
    return size


def _a_priori(
    world: World, preferences: Preferences, norm_bound: float | None, width: int
) -> float:
    config = world.config
    flat = preferences.features.reshape(config.n_users, -1, config.d1 * config.d2)
    margin = theory.worst_margin(
        norm_bound=norm_bound,
        feature_norm=float(np.linalg.norm(flat, axis=2).max()),
        init_norm=float(np.linalg.norm(world.theta_init)),
    )
    smallest, largest = theory.design_extremes(preferences.features, preferences.offsets)
    return theory.oracle_inequality(
        level="a_priori",
        noise_norm=theory.noise_norm(_scores(world, preferences, flat, width), config.rank),
        tail=config.tail * math.sqrt(config.n_users),
        sigma_k=config.sigma_k,
        ceiling=theory.distance_ceiling(config.rank, config.d1),
        curvature=theory.curvature_floor(world.link, margin=margin),
        smallest_design=smallest,
        largest_design=largest,
        curvature_bound=world.link.curvature_bound,
    ).value


def _scores(world: World, preferences: Preferences, flat: np.ndarray, width: int) -> np.ndarray:
    """Scores at the truth, `(d1, N d2)`; `flat (N, n, d1 d2)` are the features, `n <= width`."""
    rewards = np.einsum("njp,np->nj", flat, world.theta.reshape(world.n_users, -1))
    labels = np.asarray(preferences.labels).reshape(rewards.shape)
    n_pairs = rewards.shape[1]
    # padded to few widths: compilation for every n costs more than the numbers
    padding = ((0, 0), (0, width - n_pairs))
    with numerics.float64_scope():
        padded = [jnp.asarray(np.pad(values, padding)) for values in (rewards, labels)]
        slopes = np.asarray(world.link.loss_slope(*padded))[:, :n_pairs]
    blocks = np.einsum("nj,njp->np", slopes, flat)
    return subspaces.unfold(blocks.reshape(world.delta.shape))
