"""Pessimistic policies: the best guaranteed value over a set of rewards, with a certificate.

    max_pi  min_{Theta in R_i}  <Theta, E_pi phi - E_ref phi>  -  tau KL(pi || ref)

(Algorithm 1; the divergence as RLHF practice has it, `tau = 0` without). Occupancies are a convex
set and R_i is compact and convex, so maximum and minimum change places: with

    f(Theta) = max_pi J(pi; Theta) - tau KL - <Theta, E_ref phi>,

which dynamic programming evaluates and which is convex, the value is `min f` over R_i. Every answer
of the oracle is a policy, whose value is a plane below f; the best mixture of the policies found so
far (`policy.master`) is a policy too, the Markov one with the mixed occupancy. So

    worst value of the mixture  <=  optimum  <=  f at any point of the set,

and the difference is a certificate that does not lean on how either was found.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics
from simrlhf.policy import master
from simrlhf.policy.confidence_sets import Ellipsoids
from simrlhf.policy.likelihood_sets import LikelihoodSets
from simrlhf.policy.responses import Responder, padded_users
from simrlhf.policy.values import feature_expectations, occupancies
from simrlhf.world import MDP

# a central point leaves this share of the gap to the master problem
_CENTRALITY = 0.2
# policies whose weights are below such a share of the largest leave a mixture, if it can do without
_SHARES = (0.1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9)
_FIRST_CAPACITY = 32


class PlanStatus(enum.Enum):
    """How the search for a user's policy ended; the value is a sentence."""

    CONVERGED = "The certificate is below the tolerance."
    MAX_ITERATIONS = "The certificate is above the tolerance; raise max_iterations."


class PessimisticPlan(NamedTuple):
    """Pessimistic policies of N users.

    Attributes:
        policy: `(N, H, S, A)`, Markov and in general randomised.
        value: `(N,)`, guaranteed: the least of `<Theta, g> - tau KL` over the set.
        certificate: `(N,)`, by how much no policy can beat it; never negative but for rounding.
        worst: `(N, d1, d2)`, rewards of the set, near the least favourable one.
        scale: `(N,)`, the range of values that the tolerance is relative to.
        iterations: `(N,)`, policies asked of the oracle.
        status: of every user.
    """

    policy: np.ndarray
    value: np.ndarray
    certificate: np.ndarray
    worst: np.ndarray
    scale: np.ndarray
    iterations: np.ndarray
    status: tuple[PlanStatus, ...]


def pessimistic_policy(
    mdp: MDP,
    sets: Ellipsoids | LikelihoodSets,
    *,
    reference: np.ndarray,
    temperature: float = 0.0,
    tol: float = 1e-6,
    max_iterations: int = 500,
) -> PessimisticPlan:
    """Every user's pessimistic policy over his set of rewards.

    Args:
        sets: `R_i`.
        reference: `mu_ref (H, S, A)`, from whose value a policy's is counted: doing as the
            reference does is worth 0 under every reward, and needs no coverage.
        temperature: tau of the divergence from the reference, a trajectory's.
        tol: largest certificate, relative to the range of values under the centre and over the set.
        max_iterations: policies asked of the oracle.

    Returns:
        The plan; a user whose certificate is above the tolerance has the status that says so.

    Raises:
        InputError: shapes that do not agree, a tolerance out of (0, 1).
    """
    reference = mdp.require_policy("reference", reference)
    shape = (mdp.horizon, mdp.n_states, mdp.n_actions)
    checks.shape("reference", reference, shape, remedy="one policy for all users")
    checks.shape("centre", sets.centre, (None, *mdp.reward_shape), remedy="as the MDP's features")
    checks.real("temperature", temperature, low=0.0)
    checks.real("tol", tol, above=0.0, high=1.0)
    checks.integer("max_iterations", max_iterations, low=1)
    search = _Search(mdp, sets, reference, temperature)
    while search.iteration < max_iterations and search.open(tol).size:
        search.iterate(search.open(tol))
    search.thin(tol)
    gaps = search.upper - search.lower
    converged = gaps <= tol * search.scale
    return PessimisticPlan(
        search.mixtures(),
        search.lower,
        gaps,
        search.best.reshape(-1, *mdp.reward_shape),
        search.scale,
        search.asked,
        tuple(PlanStatus.CONVERGED if one else PlanStatus.MAX_ITERATIONS for one in converged),
    )


@dataclass(frozen=True, eq=False)
class _Known:
    """What every user's policies found so far look like, with room for more."""

    slopes: np.ndarray
    offsets: np.ndarray
    queries: np.ndarray

    @classmethod
    def empty(cls, n_users: int, q: int, p: int) -> _Known:
        return cls(
            np.zeros((n_users, _FIRST_CAPACITY, q)),
            np.zeros((n_users, _FIRST_CAPACITY)),
            np.zeros((n_users, _FIRST_CAPACITY, p)),
        )

    @property
    def capacity(self) -> int:
        return self.offsets.shape[1]

    def doubled(self) -> _Known:
        room = self.capacity
        return _Known(
            *(
                np.pad(array, [(0, 0), (0, room), *[(0, 0)] * (array.ndim - 2)])
                for array in (self.slopes, self.offsets, self.queries)
            )
        )


class _Search:
    """The state of the search for all users; those that are done are left alone.

    Policy 0 of everybody is the reference, with the plane 0.
    """

    def __init__(
        self,
        mdp: MDP,
        sets: Ellipsoids | LikelihoodSets,
        reference: np.ndarray,
        temperature: float,
    ) -> None:
        n_users = sets.n_users
        self._sets = sets
        self._mdp, self._reference, self._temperature = mdp, reference, temperature
        self._centre = sets.flat_centre
        self._root = np.broadcast_to(sets.root, (n_users, *sets.root.shape[1:]))
        self._radius = np.asarray(sets.radius)
        start = mdp.initial_of(n_users)
        self._respond = Responder(mdp, start, temperature=temperature, reference=reference)
        base = feature_expectations(mdp, reference)
        self._base = np.broadcast_to(base.reshape(-1, self._centre.shape[1]), self._centre.shape)
        self._known = _Known.empty(n_users, *self._root.shape[:0:-1])
        self._u = np.zeros((n_users, self._root.shape[2]))
        self._weights = np.zeros((n_users, _FIRST_CAPACITY))
        self._weights[:, 0] = 1.0
        self.lower = np.zeros(n_users)
        self.upper = np.full(n_users, np.inf)
        self.best = self._centre.copy()
        self.asked = np.zeros(n_users, dtype=np.int64)
        self.scale = np.zeros(n_users)
        self.iteration = 0
        # where no reward at all is in the set nothing is guaranteed beyond the reference's value
        nothing = sets.holds(np.zeros_like(sets.centre))
        self.upper[nothing] = 0.0
        self.best[nothing] = 0.0

    def open(self, tol: float) -> np.ndarray:
        """Users who are not done; at first all, whose range of values is not known yet."""
        if self.iteration == 0:
            return np.arange(self.lower.size)
        return np.flatnonzero(self.upper - self.lower > tol * self.scale)

    def iterate(self, users: np.ndarray) -> None:
        """Ask the oracle once for each of `users`, and move to the centre of what is left."""
        self.iteration += 1
        if self.iteration >= self._known.capacity:
            self._known = self._known.doubled()
            self._weights = np.pad(self._weights, ((0, 0), (0, self._weights.shape[1])))
        self._ask(users)
        gaps = self.upper[users] - self.lower[users]
        scale = np.where(self.scale[users] > 0.0, self.scale[users], 1.0)
        known, count = self._known, self.iteration + 1
        # batches of few sizes, so that few are compiled
        padded = padded_users(users, self.lower.size)
        scales = np.where(self.scale[padded] > 0.0, self.scale[padded], 1.0)
        there = np.zeros((padded.size, known.capacity), dtype=bool)
        there[:, :count] = True
        mu = np.maximum(_CENTRALITY * gaps / scale, 1e-12) / (count + 1)
        with numerics.float64_scope():
            found = master.centres(
                master.Cuts(
                    jnp.asarray(known.slopes[padded] / scales[:, None, None]),
                    jnp.asarray(known.offsets[padded] / scales[:, None]),
                    jnp.asarray(there),
                ),
                self._sets.region_of(padded),
                jnp.asarray(self._u[padded]),
                jnp.asarray(np.concatenate([mu, np.full(padded.size - users.size, 1.0)])),
            )
            u, weights, lower = (np.asarray(array)[: users.size] for array in found)
        self._u[users] = u
        better = lower * scale > self.lower[users]
        self.lower[users[better]] = (lower * scale)[better]
        self._weights[users[better]] = weights[better]

    def _ask(self, users: np.ndarray) -> None:
        radius, root = self._radius[users, None], self._root[users]
        theta = self._centre[users] + radius * np.einsum("npq,nq->np", root, self._u[users])
        answer = self._respond(theta, users)
        gap = answer.features - self._base[users]
        value = answer.value - np.sum(theta * self._base[users], axis=1)
        slopes = radius * np.einsum("npq,np->nq", root, gap)
        offsets = np.sum(gap * self._centre[users], axis=1)
        if self._temperature > 0.0:  # minus tau KL; without a temperature it is rounding
            offsets = offsets + value - np.sum(gap * theta, axis=1)
        place = self.iteration
        self._known.slopes[users, place] = slopes
        self._known.offsets[users, place] = offsets
        self._known.queries[users, place] = theta
        self.asked[users] += 1
        if place == 1:
            self.scale[users] = np.abs(value) + np.linalg.norm(slopes, axis=1)
        lowest = value < self.upper[users]
        self.upper[users[lowest]] = value[lowest]
        self.best[users[lowest]] = theta[lowest]
        if not self._sets.closed_form:
            return
        alone = self._sets.worst(slopes, offsets)
        better = alone > self.lower[users]
        self.lower[users[better]] = alone[better]
        self._weights[users[better]] = 0.0
        self._weights[users[better], place] = 1.0

    def thin(self, tol: float) -> None:
        """Leave out of every mixture what its certificate can do without, where that is known."""
        if not self._sets.closed_form:
            return
        done = np.zeros(self.lower.size, dtype=bool)
        largest = self._weights.max(axis=1, keepdims=True)
        for share in _SHARES:
            weights = np.where(self._weights > share * largest, self._weights, 0.0)
            weights /= weights.sum(axis=1, keepdims=True)
            pulls = np.einsum("nmq,nm->nq", self._known.slopes, weights)
            value = self._sets.worst(pulls, np.sum(self._known.offsets * weights, axis=1))
            allowed = np.maximum(tol * self.scale, self.upper - self.lower)
            take = ~done & (self.upper - value <= allowed)
            self._weights[take], self.lower[take] = weights[take], value[take]
            done |= take

    def mixtures(self) -> np.ndarray:
        """The Markov policies with the mixed occupancies, `(N, H, S, A)`."""
        seen = occupancies(self._mdp, self._reference)
        mixed = self._weights[:, 0, None, None, None] * seen
        for place in range(1, self._weights.shape[1]):
            users = np.flatnonzero(self._weights[:, place])
            if users.size:
                found = self._respond.occupancies(self._known.queries[users, place], users)
                mixed[users] += self._weights[users, place, None, None, None] * found
        total = mixed.sum(axis=-1, keepdims=True)
        reached = total > 0.0
        return np.where(reached, mixed / np.where(reached, total, 1.0), self._reference)
