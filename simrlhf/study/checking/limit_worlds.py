"""The worlds on which the limits L1, L2, L3 and L5 are judged, and the information in them.

More than thirty kinds: three links, `d2` of 1 and 2, isotropic, bounded-norm and anisotropic
features, with a base model, an ill-conditioned truth, and users with unequal numbers of pairs. They
share few shapes, so that few kernels are compiled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.special

from simrlhf import testing
from simrlhf.core import statistics, subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.metrics import designs, measure_instance
from simrlhf.sampling import sample_preferences
from simrlhf.study.checking.draws import Draw, fitted_draws
from simrlhf.study.checking.form import attempt
from simrlhf.world import World, WorldConfig

# inside the ball of this radius lie all truths below and, at these sizes, nearly all fits
NORM_BOUND = 12.0
# pairs of every user on which an expected loss is taken
_FRESH = 500
_LINKS = ("logistic", "probit", "laplace")
_SHAPES = ({"d1": 8, "d2": 1}, {"d1": 6, "d2": 2})
_VARIANTS = (
    {},
    {"features": "sphere"},
    {"features": "anisotropic", "feature_condition": 4.0},
    {"condition": 2.0},
    {"nu": 0.5},
)
# a base model and longer arrays are other kernels: once for every shape
_OTHER_KERNELS = ({"base_norm": 1.0}, {"count_spread": 0.2})
# the ratio is 1 + c / n with c about 10 to 15; smaller n would need its next term
SIZES = {
    "tiny": ((160, 320, 640), 50),
    "smoke": ((150, 300, 600), 20),
    "paper": ((200, 400, 800, 1600, 3200), 100),
}


class WorldKind(NamedTuple):
    """A kind of world, with a name for tables."""

    name: str
    config: WorldConfig


def limit_worlds(size: str) -> list[WorldKind]:
    """The kinds of world: 34, or four at the size `tiny`."""
    told = [
        *itertools.product(_LINKS, _SHAPES, _VARIANTS),
        *itertools.product(_LINKS[:1], _SHAPES, _OTHER_KERNELS),
    ]
    kinds = [_kind(*parts) for parts in told]
    return kinds if size != "tiny" else [kinds[0], kinds[1], kinds[2], kinds[-3]]


def _kind(link: str, shape: dict[str, int], variant: dict[str, Any]) -> WorldKind:
    # equal norms keep every reward of order one, where links differ most from their value at zero
    settings = {"nu": 1.2, "condition": 1.3, **shape, **variant}
    config = WorldConfig(n_users=4, rank=2, user_norms="equal", link=link, **settings)
    name = ", ".join(f"{key} {value}" for key, value in variant.items()) or "plain"
    return WorldKind(f"{link}, d2 = {shape['d2']}, {name}", config)


class Run(NamedTuple):
    """One share-B fit and what the limits speak of.

    Attributes:
        kind: name of the kind of world.
        world: the truth.
        n_pairs, repetition: mean pairs per user, and number of the world.
        distance: `dist(B_hat, B^<>)`.
        moved: `B_hat (B' B_hat)^{-1} - B`, `(d1, k)`.
        scores: minus the gradient of the summed loss at the truth, `(N, d1, d2)`.
        errors: `E (N, d1, d2)`.
        wilks: `2 [loglik(hat) - loglik(*)]`.
        excess: expected log-loss of a new pair above the truth's, over fresh features; users in
            the proportions of their pairs.
    """

    kind: str
    world: World
    n_pairs: int
    repetition: int
    distance: float
    moved: np.ndarray
    scores: np.ndarray
    errors: np.ndarray
    wilks: float
    excess: float


@lru_cache(maxsize=2)
def limit_runs(size: str) -> list[Run]:
    """Share-B fits of every kind of world, nested in n; kinds have streams of their own."""
    sizes, repetitions = SIZES[size]
    runs = []
    for number, kind in enumerate(limit_worlds(size)):
        fresh: dict[int, Preferences] = {}
        for draw in fitted_draws(
            kind.config, sizes, repetitions, norm_bound=NORM_BOUND, seed=number
        ):
            world, result = draw.world, draw.result
            if draw.repetition not in fresh:
                every = np.full(world.n_users, _FRESH)
                fresh[draw.repetition] = sample_preferences(
                    world, every, seed=10**6 + draw.repetition, soft=True
                )
            instance = measure_instance(world, draw.preferences, result)
            inner = world.basis.T @ result.basis
            runs.append(
                Run(
                    kind.name,
                    world,
                    draw.n_pairs,
                    draw.repetition,
                    subspaces.subspace_distance(result.basis, world.basis),
                    result.basis @ np.linalg.inv(inner) - world.basis,
                    -subspaces.fold(instance.scores, world.n_users),
                    result.delta - world.delta,
                    -2.0 * instance.excess_over_truth,
                    _excess_log_loss(draw, fresh[draw.repetition]),
                )
            )
    return runs


def _excess_log_loss(draw: Draw, fresh: Preferences) -> float:
    """`sum_i (n_i / n) E[KL(P* || P_hat)] / N` over fresh features, whose labels are `P*`."""
    theta = draw.result.theta_init + draw.result.delta
    z = np.einsum("jab,jab->j", fresh.features, theta[fresh.users])
    chance = np.clip(np.asarray(draw.world.link.mean(z)), 1e-300, 1.0 - 1e-16)
    divergence = scipy.special.rel_entr(fresh.labels, chance)
    divergence += scipy.special.rel_entr(1.0 - fresh.labels, 1.0 - chance)
    shares = draw.world.counts(draw.n_pairs) / draw.n_pairs
    return float(np.mean(shares[fresh.users] * divergence))


class Ingredients(NamedTuple):
    """What the limits need to know of a truth."""

    basis: np.ndarray
    factors: np.ndarray
    informations: np.ndarray
    weights: np.ndarray


def ingredients(world: World, n_pairs: int) -> Ingredients:
    """Basis, factors, informations `H_i` and weights `n_i / n` of a world."""
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    weights = world.counts(n_pairs) / n_pairs
    return Ingredients(world.basis, factors, designs.informations(world), weights)


def once_per_world(
    runs: Iterable[tuple[World, int]], limits: Callable[[World, int], Any]
) -> list[Any]:
    """`limits(world, n)` for every run; computed once where world and weights are the same."""
    known: dict[tuple[int, bytes], Any] = {}
    found = []
    for world, n_pairs in runs:
        key = (id(world), (world.counts(n_pairs) / n_pairs).tobytes())
        if key not in known:
            known[key] = limits(world, n_pairs)
        found.append(known[key])
    return found


def feature_covariance(world: World) -> np.ndarray:
    """`E[vec x vec x'] = S (x) I`, of side `d1 d2`."""
    return np.kron(world.feature_covariance, np.eye(world.config.d2))


def by_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean ratio at the largest n of every kind of world, and how far it is off.

    `off` and `wrong_off` are the distances of the mean of `ratio`, and of `wrong`, the ratio to the
    rival, from 1, in units of what is allowed: 4 standard errors (thirty kinds are looked at), and
    15 % where the error is less (`c / n` remains).
    """
    last = rows[rows["n_pairs"] == rows["n_pairs"].max()]
    found = []
    for kind, mine in last.groupby("kind"):
        row: dict[str, Any] = {"kind": kind}
        for name, off in (("ratio", "off"), ("wrong", "wrong_off")):
            mean, error = statistics.mean_and_error(mine[name].to_numpy())
            row |= {f"mean_{name}": mean, f"error_{name}": error}
            row[off] = abs(mean - 1.0) / max(4.0 * error, 0.15)
        found.append(row)
    return pd.DataFrame(found)


def each_kind(table: pd.DataFrame, statement: str) -> testing.Judgement:
    """No kind of world is off, by a rule that finds the rival off in some."""
    return attempt(
        testing.never_violated,
        table["off"],
        1.0,
        tight=(table["wrong_off"], table["wrong_off"]),
        rival=1.0,
        statement=f"{statement}, every kind of world",
    )
