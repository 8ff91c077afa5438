"""Brackets that are really built, for a class small enough to list (Definition 4.2).

Members have d1 = 2 and rank 1: `Delta_i = b w_i'` with `b = (cos a, sin a)`, `a` in `[0, pi)` (the
sign goes into `w_i`), and `||w_i|| <= R`. With `rho = epsilon / (4 N C_R X)` as in `theory.covers`,
angles in steps `s = 4 arcsin(rho / (4 R))` have every `b` within `rho / (2 R)`, the chord of half a
step; a grid of step `rho / sqrt(d2)`, each of whose cells is given the point of the ball nearest to
its centre, has every `w_i` within `rho / 2`. So every member is within rho of a listed one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.core.links import Link
from simrlhf.theory.covers import log_bracketing_bound
from simrlhf.theory.link_constants import link_constants

_D1 = 2
_MOST = 200_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Brackets:
    """Brackets `f -+ half_width` around the label probabilities f of the listed members.

    Attributes:
        link: the link of the labels.
        members: `(C, N, 2, d2)`.
        half_width: `epsilon / (4 N)`, on every user and label.
        size: `epsilon`.
        feature_norm: `X`; brackets hold on pairs with `||x||_F <= X`.
        norm_bound: `R`; they hold members with `||Delta_i||_F <= R`.
        log_count_bound: `log_bracketing_bound` at this size, which `log C` does not exceed for d2
            up to 4; the list's cubic grid is not the smallest cover, and for larger d2 it may.
    """

    link: Link
    members: np.ndarray
    half_width: float
    size: float
    feature_norm: float
    norm_bound: float
    log_count_bound: float


def construct_brackets(
    link: Link, *, n_users: int, d2: int, norm_bound: float, feature_norm: float, size: float
) -> Brackets:
    """List brackets of a given size that hold every share-B member with d1 = 2 and k = 1.

    Args:
        link: a preference link.
        n_users, d2: N and the columns of a deviation, both small.
        norm_bound: `R`, above 0.
        feature_norm: `X`, above 0.
        size: `epsilon`, above 0.

    Raises:
        InputError: more than 200,000 brackets; the message says how many.
    """
    n_users, d2 = checks.integer("n_users", n_users, low=1), checks.integer("d2", d2, low=1)
    norm_bound = checks.real("norm_bound", norm_bound, above=0.0)
    feature_norm = checks.real("feature_norm", feature_norm, above=0.0)
    bound = log_bracketing_bound(
        n_users=n_users,
        n_pairs=1,
        d1=_D1,
        d2=d2,
        rank=1,
        norm_bound=norm_bound,
        feature_norm=feature_norm,
        lipschitz_mean=link_constants(link, margin=norm_bound * feature_norm).lipschitz_mean,
        size=size,
    )
    resolution = bound.terms["resolution"]
    step = 4.0 * math.asin(min(resolution / (4.0 * norm_bound), 1.0))
    n_angles = math.ceil(math.pi / step)
    per_axis = math.ceil(2.0 * norm_bound * math.sqrt(d2) / resolution)
    # an upper count, before anything large is made
    log_count = math.log(n_angles) + d2 * n_users * math.log(per_axis)
    checks.require(
        log_count <= math.log(_MOST),
        f"size = {size:.12g} needs up to 1e{log_count / math.log(10.0):.0f} brackets, more than "
        f"{_MOST}; raise the size",
    )
    angles = (np.arange(n_angles) + 0.5) * math.pi / n_angles
    heads = _ball_grid(d2, norm_bound, per_axis)
    chosen = np.array(list(itertools.product(range(len(heads)), repeat=n_users)))
    basis = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    members = np.einsum("ap,cnq->acnpq", basis, heads[chosen])
    return Brackets(
        link=link,
        members=members.reshape(-1, n_users, _D1, d2),
        half_width=size / (4.0 * n_users),
        size=size,
        feature_norm=feature_norm,
        norm_bound=norm_bound,
        log_count_bound=bound.value,
    )


def _ball_grid(dimension: int, radius: float, per_axis: int) -> np.ndarray:
    """Centres of cubic cells that meet the ball, moved into it; `(count, dimension)`."""
    half = radius / per_axis
    axis = -radius + half * (2.0 * np.arange(per_axis) + 1.0)
    cells = np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1)
    cells = cells.reshape(-1, dimension)
    nearest = np.linalg.norm(np.maximum(np.abs(cells) - half, 0.0), axis=1)
    cells = cells[nearest <= radius]
    # the projection onto a convex set takes no point of the set further away
    lengths = np.linalg.norm(cells, axis=1, keepdims=True)
    return cells * np.minimum(1.0, radius / np.maximum(lengths, radius))


def bracket_ends(brackets: Brackets, probes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of every bracket: two arrays `(C, N, Q, 2)`, the labels 0 and 1 last.

    Their difference, summed over users and labels, is Definition 4.2's L1 size at each probe.

    Args:
        brackets: from `construct_brackets`.
        probes: `(Q, 2, d2)`, features of pairs.
    """
    middle = _probabilities(brackets, brackets.members, probes)
    return middle - brackets.half_width, middle + brackets.half_width


def brackets_cover(brackets: Brackets, thetas: np.ndarray, probes: np.ndarray) -> np.ndarray:
    """Whether each member lies in one bracket on all probes, for all users and labels; `(T,)`.

    Args:
        brackets: from `construct_brackets`.
        thetas: `(T, N, 2, d2)`, members of the class.
        probes: `(Q, 2, d2)`, features of pairs, of norm at most X.

    Raises:
        InputError: a member or a probe outside its ball, or of the wrong shape.
    """
    lower, upper = bracket_ends(brackets, probes)
    wanted = _probabilities(brackets, thetas, probes)
    for name, arrays, limit in (
        ("thetas", thetas, brackets.norm_bound),
        ("probes", probes, brackets.feature_norm),
    ):
        largest = float(np.linalg.norm(arrays, axis=(-2, -1)).max())
        checks.require(
            largest <= limit * (1.0 + 1e-12),
            f"{name} have norm {largest:.12g}, more than the {limit:.12g} of the brackets",
        )
    return np.array([_inside(lower, p, upper).any() for p in wanted])


def _inside(lower: np.ndarray, value: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.all((lower <= value) & (value <= upper), axis=(1, 2, 3))


def _probabilities(brackets: Brackets, thetas: np.ndarray, probes: np.ndarray) -> np.ndarray:
    n_users, _, d2 = brackets.members.shape[1:]
    checks.shape("thetas", thetas, (None, n_users, _D1, d2))
    checks.shape("probes", probes, (None, _D1, d2))
    rewards = np.einsum("tnpq,mpq->tnm", thetas, probes)
    with numerics.float64_scope():
        return np.stack(
            [np.asarray(brackets.link.mean(jnp.asarray(z))) for z in (-rewards, rewards)], axis=-1
        )
