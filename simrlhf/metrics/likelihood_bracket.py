"""Pessimism over the rank-k likelihood-ratio set, which is not convex, between two values.

    R = { (B, W) :  2 [F(B W) - F(B_hat W_hat)] <= zeta^2,  ||W_j||_F <= R_0 for every user j }

(Park et al., Algorithm 7, with the basis free). It couples the users, and what user i must guard
against is its shadow `R_i = { Theta_init + B W_i }`. With randomised policies

    V_i = max_pi min_{R_i} <Theta, g_pi> = min { f_i(Theta) : Theta in the convex hull of R_i },

`f_i(Theta) = max_pi <Theta, g_pi>`, which dynamic programming evaluates.

*Above.* Any point of the hull will do: `V_i <= f_i(Theta)`. Points of R_i that are bad for a policy
are fits to one more comparison, of feature `g` and lost, whose weight is raised until the other
pairs' likelihood is at the edge of the set: such a fit is optimal in `(F, <Theta_i, g>)`, and is in
the set whatever the fit's search may have missed.

*Below.* A user freed from the common basis has a larger set, which is convex: as the others cannot
fit better than they do alone,

    F_i(Theta_i) <= F_i(hat) + zeta^2 / 2 + [F_{-i}(hat) - min F_{-i}].

The minimum is that of a fit to the other users, taken for the best of its class.

Between the two lies what the mixture of policies found is worth against the worst point that the
search finds. Where it meets the value above, both are V_i unless the search missed a worse point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.core.links import get_link
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult, fit
from simrlhf.policy import (
    LikelihoodSets,
    feature_expectations,
    likelihood_set,
    pessimistic_policy,
)
from simrlhf.policy.responses import Responder
from simrlhf.world import MDP

# of the logarithm of the lost comparison's weight: steps to either side of the edge of the set, the
# ends, and what is near enough to the edge
_STRIDE = 1.5
_FARTHEST = 27.0
_EDGE = 2e-3
_NOTHING = 1e-12


class LikelihoodBracket(NamedTuple):
    """Of every user asked for.

    Attributes:
        users: `(m,)`.
        lower, upper: `(m,)`, between which `V_i` lies.
        searched: `(m,)`, the most that a mixture of policies is worth against the worst point that
            was found for it; near `upper` where the search has come to its end.
        slice: `(m,)`, the value over the slice at the fitted basis, which is above `V_i` too.
        fits: `(m,)`, how many fits it took.
        radius: zeta.
    """

    users: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    searched: np.ndarray
    slice: np.ndarray
    fits: np.ndarray
    radius: float


def likelihood_bracket(
    mdp: MDP,
    preferences: Preferences,
    result: FitResult,
    *,
    reference: np.ndarray,
    confidence: float = 0.95,
    users: Sequence[int] | np.ndarray | None = None,
    tol: float = 1e-2,
    max_rounds: int = 20,
) -> LikelihoodBracket:
    """The pessimistic value of users over the rank-k likelihood-ratio set, from both sides.

    `zeta^2` is the chi-square quantile of `p = k (N d2 + d1 - k)` degrees, so that R holds the
    truth of all users at once with the nominal probability (Wilks). Takes some ten fits a round.

    Args:
        preferences: what `result` was fitted to.
        result: a share_b fit with a norm bound.
        reference: `mu_ref (H, S, A)`, from whose value all are counted.
        users: whose; all by default.
        tol: of the difference between `upper` and `searched`, relative to the value under the fit.
        max_rounds: points of the hull that are searched for, for a user.

    Raises:
        InputError: another estimator, no norm bound, fewer than two users, a link without a convex
            loss.
    """
    checks.require(
        result.estimator == "share_b",
        f"the set is that of share_b's class, the fit is of {result.estimator}",
    )
    checks.require(
        result.norm_bound is not None,
        "the set may be unbounded where pairs separate; fit with a norm_bound",
    )
    n_users, d1, d2 = result.delta.shape
    checks.require(n_users > 1, "one user shares his basis with nobody; take policy.likelihood_set")
    level = checks.real("confidence", confidence, above=0.0, high=1.0 - 1e-9)
    checks.real("tol", tol, above=0.0)
    checks.integer("max_rounds", max_rounds, low=1)
    chosen = np.arange(n_users) if users is None else np.asarray(users, dtype=int)
    checks.require(
        bool(((chosen >= 0) & (chosen < n_users)).all()),
        f"users must be 0 to {n_users - 1}, got {chosen.tolist()}",
    )
    degrees = theory.parameter_count(
        "share_b", n_users=n_users, d1=d1, d2=d2, rank=result.basis.shape[1]
    )
    zeta = float(np.sqrt(scipy.stats.chi2.ppf(level, degrees)))
    reference = mdp.require_policy("reference", reference)
    search = _Search(mdp, preferences, result, reference, zeta)
    lower, of_slice = search.freed(), search.sliced()
    found = [search.hull(user, tol=tol, max_rounds=max_rounds) for user in chosen]
    upper, searched, fits = (np.array(column) for column in zip(*found, strict=True))
    return LikelihoodBracket(
        chosen,
        lower[chosen],
        np.minimum(upper, of_slice[chosen]),
        searched,
        of_slice[chosen],
        fits,
        zeta,
    )


class _Search:
    """One fit, its set and its decision problem."""

    def __init__(
        self,
        mdp: MDP,
        preferences: Preferences,
        result: FitResult,
        reference: np.ndarray,
        zeta: float,
    ) -> None:
        self._mdp, self._preferences, self._result = mdp, preferences, result
        self._reference, self._zeta = reference, zeta
        self._centre = result.theta_init + result.delta
        n_users = len(self._centre)
        base = feature_expectations(mdp, reference)
        flat = self._centre.reshape(n_users, -1)
        self._base = np.broadcast_to(base.reshape(-1, flat.shape[1]), flat.shape)
        self._respond = Responder(
            mdp, mdp.initial_of(n_users), temperature=0.0, reference=reference
        )
        self._loss = self._losses(result.delta)
        # where the last search for a user's worst point ended
        self._weight: dict[int, float] = {}

    def freed(self) -> np.ndarray:
        """Values over the sets of users who leave the common basis, `(N,)`: below `V_i`."""
        gains = np.array([self._gain_without(user) for user in range(len(self._centre))])
        radius = np.sqrt(self._zeta**2 + 2.0 * np.maximum(gains, 0.0))
        return self._value(likelihood_set(
            self._centre, self._preferences, radius,
            norm_bound=self._bound, theta_init=self._result.theta_init,
        ))  # fmt: skip

    def sliced(self) -> np.ndarray:
        """Values over the sets at the fitted basis, `(N,)`: above `V_i`."""
        return self._value(likelihood_set(
            self._centre, self._preferences, self._zeta, norm_bound=self._bound,
            basis=self._result.basis, theta_init=self._result.theta_init,
        ))  # fmt: skip

    def hull(self, user: int, *, tol: float, max_rounds: int) -> tuple[float, float, int]:
        """Value over a growing hull of points of `R_i`, what the search makes of it, and fits."""
        points, plans = [self._centre[user].ravel()], [np.zeros(self._centre[user].size)]
        upper, searched, fits = np.inf, -np.inf, 0
        scale = max(self._best(points[0], user)[0], 1e-300)
        for _ in range(max_rounds):
            # policies are added until they answer the worst point of the hull
            while True:
                worst, mixture, value = _matrix_game(np.array(plans), np.array(points))
                reached, plan = self._best(worst, user)
                upper = min(upper, reached)
                if reached <= value + 0.1 * tol * scale:
                    break
                plans.append(plan)
            mixed = mixture @ np.array(plans)
            point, tries = self._worst_point(user, mixed)
            fits += tries
            # a search may end at a point that is better than one of the hull
            searched = max(searched, min(value, float(point @ mixed)))
            if upper - searched <= tol * scale:
                break
            points.append(point)
        return upper, searched, fits

    @property
    def _bound(self) -> float:
        assert self._result.norm_bound is not None
        return self._result.norm_bound

    def _value(self, sets: LikelihoodSets) -> np.ndarray:
        return pessimistic_policy(self._mdp, sets, reference=self._reference, tol=1e-4).value

    def _best(self, theta: np.ndarray, user: int) -> tuple[float, np.ndarray]:
        """`f_i(theta)` and the `g (p,)` of the policy that attains it."""
        gap = self._respond(theta[None], np.array([user])).features[0] - self._base[user]
        return float(theta @ gap), gap

    def _losses(self, delta: np.ndarray) -> np.ndarray:
        """`F_j (N,)`."""
        given = self._preferences
        theta = self._result.theta_init + delta
        z = np.einsum("jab,jab->j", given.features, theta[given.users])
        loss = given.weights * np.asarray(get_link(given.link).loss(z, given.labels))
        return np.bincount(given.users, weights=loss, minlength=given.n_users)

    def _gain_without(self, user: int) -> float:
        """By how much the others fit better on a basis of their own."""
        rest = self._preferences.of_users(np.arange(len(self._centre)) != user)
        found = self._fit(rest, self._result.basis)
        delta = np.insert(found.delta, user, 0.0, axis=0)
        return float(np.sum(np.delete(self._loss - self._losses(delta), user)))

    def _fit(self, given: Preferences, start: np.ndarray) -> FitResult:
        base = self._result.theta_init
        return fit(
            given,
            rank=start.shape[1],
            norm_bound=self._bound,
            init=start,
            theta_init=base if base.any() else None,
            tol=1e-7,
        )

    def _worst_point(self, user: int, direction: np.ndarray) -> tuple[np.ndarray, int]:
        """A point of `R_i` of least `<Theta, direction>`, near its edge, and the fits it took."""
        size = np.linalg.norm(direction)
        inside = [(-np.inf, self._centre[user].ravel())]
        if size <= _NOTHING:
            return inside[0][1], 0
        allowed, start, fits = 0.5 * self._zeta**2, self._result.basis, 0

        # what was fitted once is not fitted again: from another start it could come out otherwise
        @cache
        def excess(logarithm: float) -> float:
            nonlocal start, fits
            fits += 1
            given = self._with_lost(user, direction / size, float(np.exp(logarithm)))
            found = self._fit(given, start)
            start = found.basis
            lost = float(np.sum(self._losses(found.delta) - self._loss))
            if lost <= allowed:
                inside.append((logarithm, (self._result.theta_init + found.delta[user]).ravel()))
            # of a logarithm, for it grows as the weight's square at first
            return float(np.log(max(lost, _NOTHING) / allowed))

        low = high = self._weight.get(user, 0.0)
        if excess(low) > 0.0:
            while excess(low := low - _STRIDE) > 0.0 and low > -_FARTHEST:
                high = low + _STRIDE
        else:
            while excess(high := high + _STRIDE) <= 0.0 and high < _FARTHEST:
                low = high
        if high < _FARTHEST and low > -_FARTHEST:
            scipy.optimize.brentq(excess, low, high, xtol=_EDGE, rtol=1e-12)
        self._weight[user], point = max(inside, key=lambda one: one[0])
        return point, fits

    def _with_lost(self, user: int, feature: np.ndarray, weight: float) -> Preferences:
        """The pairs, and one more of the user: `feature` against nothing, lost."""
        given = self._preferences
        return Preferences.from_pairs(
            np.append(given.users, user),
            np.concatenate([given.features, feature.reshape(1, *given.features.shape[1:])]),
            np.append(given.labels, 0.0),
            weights=np.append(given.weights, weight),
            link=given.link,
        )


def _matrix_game(plans: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The worst point of the hull for the best mixture of plans: `(p,)`, weights `(m,)`, value.

    max over mixtures of the least `<point, mixture'plans>`, a linear programme and its dual.
    """
    table = plans @ points.T
    count = len(plans)
    found = scipy.optimize.linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.hstack([-table.T, np.ones((len(points), 1))]),
        b_ub=np.zeros(len(points)),
        A_eq=np.append(np.ones(count), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0.0, None)] * count + [(None, None)],
    )
    shares = -found.ineqlin.marginals
    return (shares / shares.sum()) @ points, found.x[:count], float(found.x[-1])
