"""`cluster`: `Delta_i = C_f(i)`, K rewards and every user in one of the K groups (Park et al.)."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.cluster.vq

from simrlhf.core import streams
from simrlhf.core.links import Link
from simrlhf.estimators.estimator import (
    Estimator,
    Outcome,
    Request,
    Tally,
    both_sides,
    require_matrices,
)
from simrlhf.estimators.kernels import separated_mask
from simrlhf.estimators.problem import PreferenceSource, Problem, stacked_score, sum_over_users
from simrlhf.estimators.result import ClusterFactors
from simrlhf.estimators.user_newton import UserFits, fit_users

# k-means of the users' scores, and random partitions: the best ending is kept
_KMEANS_STARTS = 8
_RANDOM_STARTS = 4
# a Newton step reads the features for rewards, gradient and curvature
_PASSES_PER_STEP = 3
# moves of users must pay more than rounding of the loss
_ROUNDING = 1e-10


class _Ending(NamedTuple):
    assignment: np.ndarray
    fits: UserFits
    loss: float
    rounds: int
    gain: float


class _Search:
    """Park's Algorithm 3 on one problem: exact centres, exact assignments, until nothing moves."""

    def __init__(self, request: Request) -> None:
        self._request, self.problem = request, request.problem
        self.users = np.asarray(self.problem.users)
        self.total = float(self.problem.weights.sum())
        self.passes = 0.0
        self._seen: dict[bytes, _Ending] = {}

    def run(self, assignment: np.ndarray) -> _Ending:
        """Alternate from a partition; the loss falls with every move, so this ends."""
        rounds = 0
        while True:
            assignment = _by_first_user(assignment)
            known = self._seen.get(assignment.tobytes())
            if known is not None:  # another start has been here
                return known
            fits = self._centres(assignment)
            rounds += 1
            moved, gain = self._reassign(assignment, np.asarray(fits.factors))
            loss = float(fits.loss.sum()) / self.total
            ending = _Ending(assignment, fits, loss, rounds, gain / self.total)
            settled = np.array_equal(moved, assignment)
            if settled or rounds >= self._request.max_iterations:
                self._seen[assignment.tobytes()] = ending
                return ending
            assignment = moved

    def pooled(self, assignment: np.ndarray) -> Problem:
        """The same pairs, owned by clusters; tiles sorted, as sums over owners need."""
        owner = assignment[self.users]
        order = np.argsort(owner, kind="stable")
        tiles: list[Any] = [array[order] for array in self.problem[:4]]
        return Problem(*tiles, users=jnp.asarray(owner[order].astype(np.int32)))

    def _centres(self, assignment: np.ndarray) -> UserFits:
        request = self._request
        sizes = np.bincount(assignment, minlength=request.rank)
        fits = _fit_centres(
            self.pooled(assignment),
            request.radius,
            request.ridge * sizes.astype(float),
            request.tolerance * self.total,
            link=request.link,
            n_clusters=request.rank,
        )
        self.passes += 1 + _PASSES_PER_STEP * float(fits.steps)
        return fits

    def _reassign(self, assignment: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, float]:
        """Everybody to the centre under which his answers are likeliest; no cluster left empty.

        Returns the partition, and what its moves gain while the centres stay.
        """
        request = self._request
        losses = np.asarray(
            _loss_under(
                self.problem, jnp.asarray(centres), link=request.link, n_users=request.n_users
            )
        )
        self.passes += 1
        losses = losses + 0.5 * request.ridge * np.sum(centres**2, axis=1)
        everybody = np.arange(request.n_users)
        here = losses[everybody, assignment]
        gain = here - losses.min(axis=1)
        pays = gain > _ROUNDING * (1.0 + np.abs(here))
        moved = np.where(pays, losses.argmin(axis=1), assignment)
        partition = _without_empty(moved, losses[everybody, moved], request.rank)
        return partition, float(gain[pays].sum())


def _cluster(request: Request) -> Outcome:
    """The best of several runs of Algorithm 3.

    Ends where every centre is its users' optimum and no user gains by moving alone while centres
    stay: a local optimum, of which there are many. The certificate is the residual of the centres
    and, where `max_iterations` cut the run short, the mean loss that moves would still gain.
    Fails where users differ continuously, and where so few pairs are given that users cannot be
    told apart.
    """
    search = _Search(request)
    endings = [search.run(start) for start in _starts(search, request)]
    best = min(endings, key=lambda ending: ending.loss)
    order = _largest_first(best.assignment, request.rank)
    place = np.argsort(order)
    assignment = place[best.assignment]
    flat = np.asarray(best.fits.factors)[order]
    centres = np.swapaxes(flat.reshape(request.rank, request.source.d2, -1), 1, 2)
    sizes = np.bincount(assignment, minlength=request.rank)
    multipliers = np.asarray(best.fits.multiplier)[order] / sizes
    free = np.isinf(request.radius) and request.ridge == 0 and request.link.is_preference
    separated = np.zeros(request.rank, bool)
    if free:
        separated = np.asarray(separated_mask(search.pooled(assignment), jnp.asarray(centres)))
    # zero once nobody wants to move
    gradient = float(np.hypot(best.fits.residual / search.total, best.gain))
    return Outcome(
        delta=centres[assignment],
        basis=None,
        factors=ClusterFactors(centres, assignment),
        multipliers=multipliers[assignment],
        loss=best.loss,
        gradient=gradient,
        stalled=best.rounds < request.max_iterations,
        iterations=best.rounds,
        data_passes=search.passes,
        note=f"the best of {len(endings)} starts; clusters of {', '.join(map(str, sizes))} users",
        tally=Tally(search.total, int(sizes[separated].sum())),
    )


@partial(jax.jit, static_argnames=("link", "n_clusters"))
def _fit_centres(
    problem: Problem,
    radius: float,
    ridges: np.ndarray,
    tolerance: float,
    *,
    link: Link,
    n_clusters: int,
) -> UserFits:
    n_tiles, height, d2, d1 = problem.rows.shape
    return fit_users(
        problem,
        problem.rows.reshape(n_tiles, height, d2 * d1),
        jnp.zeros((n_clusters, d2 * d1)),
        link=link,
        radius=jnp.asarray(radius),
        ridge=jnp.asarray(ridges),
        tolerance=jnp.asarray(tolerance),
    )


@partial(jax.jit, static_argnames=("link", "n_users"))
def _loss_under(problem: Problem, centres: jax.Array, *, link: Link, n_users: int) -> jax.Array:
    """Summed loss of every user under every flat centre: `(N, K)`."""
    n_tiles, height, d2, d1 = problem.rows.shape
    flat = problem.rows.reshape(n_tiles, height, d2 * d1)

    def under(centre: jax.Array) -> jax.Array:
        losses = problem.weights * link.loss(flat @ centre + problem.offsets, problem.labels)
        return sum_over_users(problem, losses.sum(axis=1), n_users)

    return jax.lax.map(under, centres).T


def _starts(search: _Search, request: Request) -> list[np.ndarray]:
    """Partitions to begin with: k-means of the users' directions at zero, and random ones."""
    n_users, k = request.n_users, request.rank
    if k == 1 or k == n_users:
        return [np.arange(n_users) % k]
    random = streams.generator(request.seed, "clusters")
    directions = _directions(search, request)
    _, kinds = np.unique(directions, axis=0, return_inverse=True)
    if kinds.max() < k:  # users with the same answers belong together
        found = [kinds.ravel()]
    else:
        found = [
            scipy.cluster.vq.kmeans2(directions, k, minit="++", seed=random, missing="raise")[1]
            for _ in range(_KMEANS_STARTS)
        ]
    found += [random.permutation(np.arange(n_users) % k) for _ in range(_RANDOM_STARTS)]
    return [_without_empty(places, random.random(n_users), k) for places in found]


def _directions(search: _Search, request: Request) -> np.ndarray:
    """Every user's mean score at zero, in the K leading directions of all: `(N, K)`."""
    problem = search.problem
    slopes = problem.weights * request.link.loss_slope(problem.offsets, problem.labels)
    score = np.asarray(stacked_score(problem, slopes, request.n_users))
    score = score.reshape(request.n_users, -1)
    weight = np.asarray(sum_over_users(problem, problem.weights.sum(axis=1), request.n_users))
    mean = score / np.maximum(weight, 1e-300)[:, None]
    search.passes += 1
    right = np.linalg.svd(mean, full_matrices=False)[2][: request.rank]
    return mean @ right.T


def _without_empty(assignment: np.ndarray, losses: np.ndarray, n_clusters: int) -> np.ndarray:
    """Empty clusters get the users who fit worst where they are, out of clusters of two or more."""
    assignment = np.array(assignment)
    sizes = np.bincount(assignment, minlength=n_clusters)
    for empty in np.flatnonzero(sizes == 0):
        may_go = sizes[assignment] > 1
        user = int(np.argmax(np.where(may_go, losses, -np.inf)))
        sizes[assignment[user]] -= 1
        assignment[user] = empty
        sizes[empty] = 1
    return assignment


def _by_first_user(assignment: np.ndarray) -> np.ndarray:
    """The same partition with clusters numbered by their first user."""
    _, first, index = np.unique(assignment, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[index]


def _largest_first(assignment: np.ndarray, n_clusters: int) -> np.ndarray:
    """Clusters by size, then by their first user."""
    sizes = np.bincount(assignment, minlength=n_clusters)
    return np.argsort(-sizes, kind="stable")


def _limit(source: PreferenceSource) -> int:
    return source.n_users


def _check(request: Request) -> None:
    # curvature of every tile (a user has one, or a few), before those of a cluster are added up
    require_matrices("cluster", request.n_users, side=request.source.d1 * request.source.d2)


CLUSTER = Estimator(
    "cluster",
    "Delta_i = C_f(i): K rewards, every user in one of K groups; rank is K.",
    "Park et al. 2024, Algorithm 3 (3.6)",
    _cluster,
    needs_rank=True,
    rank_limit=_limit,
    side=both_sides,
    check=_check,
)
