"""How far new users' rewards are off, what they lose, and what S6 and L5 say of it.

New users are the last of a world's users: they share its basis, and nothing of theirs enters the
fit that they join.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.core import subspaces
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import FitResult
from simrlhf.metrics.bounds import DELTA
from simrlhf.metrics.decisions import expected_gap, has_one_margin, random_values
from simrlhf.metrics.designs import has_informations, informations, moments_of, reward_size
from simrlhf.metrics.efficiency import sees_everything
from simrlhf.policy import value_gaps
from simrlhf.world import World

# estimators whose new users have a limit: on the fitted basis, on the true one, alone
KINDS = ("share_b", "oracle", "full")


class Arrival(NamedTuple):
    """New users of a world and how they were fitted.

    Attributes:
        world: of old and new users.
        estimator: the estimator asked for.
        n_old: the world's first `n_old` users are old, the others new.
        old_pairs, n_pairs: pairs of an old and of a new user, means where users differ.
        preferences: the new users' pairs; those of weight 0 were not seen.
        result: the new users' fit, on a basis or alone.
    """

    world: World
    estimator: str
    n_old: int
    old_pairs: int
    n_pairs: int
    preferences: Preferences
    result: FitResult

    @property
    def users(self) -> slice:
        """The new ones among the world's."""
        return slice(self.n_old, None)

    @property
    def estimate(self) -> np.ndarray:
        """`(M, d1, d2)` whole rewards as fitted."""
        return self.result.theta_init + self.result.delta


def new_user_errors(arrival: Arrival) -> dict[str, float]:
    """Errors of the new users' rewards.

    Returns:
        `reward_error`: `(mean_i E <E_i, x>^2)^{1/2}` over the new users, `E_i` the fitted whole
        reward less the true one, under the features that they compare; `relative_error`: the same
        over that of `Delta = 0`; `largest_norm`: `max_i ||Delta_hat_i||_F`.
    """
    world, users = arrival.world, arrival.users
    size = reward_size(world, arrival.estimate - world.theta[users], users)
    return {
        "reward_error": size,
        "relative_error": size / reward_size(world, world.delta[users], users),
        "largest_norm": float(np.linalg.norm(arrival.result.delta, axis=(1, 2)).max()),
    }


def new_user_gaps(arrival: Arrival) -> dict[str, float]:
    """What the new users lose to the policies that are greedy on their fits, exactly.

    Returns:
        `value_gap`, `worst_gap`, `optimal_value`, `random_value`: as in `decision_gaps`, over the
        new users; `gap_limit`: the mean gap that a normal error with the covariance of L5 (on the
        fitted basis), of L2 (oracle, full) lets expect; NaN where L5 or `decision_gaps` has none.
    """
    world, users = arrival.world, arrival.users
    assert world.mdp is not None
    # first states may be laws of each user's own: old users take part, and lose nothing
    estimates = world.theta.copy()
    estimates[users] = arrival.estimate
    found = value_gaps(world.mdp, world.theta, estimates)
    covariance = None if not has_one_margin(world.mdp) else _covariance(arrival)
    return {
        "value_gap": float(found.gaps[users].mean()),
        "worst_gap": float(found.gaps[users].max()),
        "optimal_value": float(found.optimal[users].mean()),
        "random_value": float(random_values(world)[users].mean()),
        "gap_limit": math.nan if covariance is None else expected_gap(world, covariance, users),
    }


def new_user_bounds(arrival: Arrival) -> dict[str, float]:
    """L5, and S6 for users on a frozen basis.

    Returns:
        `reward_limit`: the root of the mean over the new users of `E||E_0||_Sigma^2` to first order
        (L5 for share_b; its first term alone, which is L2's, for the oracle; L2 for full), NaN for
        other estimators, with a ridge or another base than the world's, and where L1 fails;
        `largest_sine`: that between the frozen basis and the world's; `s6`: a bound of
        `reward_error`, of probability 0.95 over the labels for all new users together, and
        `s6_ceiling`, what 2 R makes of it, at which it says nothing. These three only for users on
        a frozen basis, NaN where S6 does not apply.
    """
    covariance = _covariance(arrival)
    found = {"reward_limit": math.nan}
    if covariance is not None:
        moments = moments_of(arrival.world, arrival.users)
        found["reward_limit"] = float(np.sqrt(np.einsum("npq,nqp->n", moments, covariance).mean()))
    if arrival.result.estimator not in ("adapted", "oracle"):
        return found
    missed = subspaces.missed_sines(arrival.result.basis, arrival.world.basis)
    sine = float(missed.max(initial=0.0))
    return {**found, "largest_sine": sine, **_s6(arrival, sine)}


def _covariance(arrival: Arrival) -> np.ndarray | None:
    """`Cov(vec E_0) (M, p, p)` of every new user to first order, where there is such a limit."""
    world, bound = arrival.world, arrival.result.norm_bound
    outside = bound is not None and np.linalg.norm(world.delta, axis=(1, 2)).max() >= bound
    missed = world.config.tail > 0 and arrival.estimator != "full"
    if arrival.estimator not in KINDS or outside or missed or not _is_plain(arrival):
        return None
    parts = _parts(world, arrival.n_old)
    if parts is None:
        return None
    own, shared, free = parts
    if arrival.estimator == "share_b":
        return own / arrival.n_pairs + shared / arrival.old_pairs
    return (own if arrival.estimator == "oracle" else free) / arrival.n_pairs


def _is_plain(arrival: Arrival) -> bool:
    """Whether the fit maximises the likelihood itself, over deviations from the world's base."""
    result = arrival.result
    return result.ridge == 0.0 and np.array_equal(result.theta_init, arrival.world.theta_init)


# the rows of a world follow one another
@lru_cache(maxsize=2)
def _parts(world: World, n_old: int) -> tuple[np.ndarray, ...] | None:
    """`own` and `shared` of L5 and L2's `H^{-1}` `(M, p, p)`, over the users' shares of pairs."""
    if world.config.deficiency or not has_informations(world):
        return None
    found = informations(world)
    if not sees_everything(found):
        return None
    factors = np.einsum("ak,nab->nkb", world.basis, world.delta)
    shares = np.ones(world.n_users) if world.count_factors is None else world.count_factors
    own, shared = theory.new_user_covariances(
        world.basis,
        factors[:n_old],
        found[:n_old],
        shares[:n_old],
        new_factors=factors[n_old:],
        new_informations=found[n_old:],
    )
    each = shares[n_old:, None, None]
    return own / each, shared, np.linalg.inv(found[n_old:]) / each


def _s6(arrival: Arrival, sine: float) -> dict[str, float]:
    """The mean over users of S6 in the norm of the reward error: `||E||_Sigma <= c ||E||_F`."""
    world, bound = arrival.world, arrival.result.norm_bound
    stretch = np.linalg.eigvalsh(moments_of(world, arrival.users))[:, -1]
    ceiling = math.inf if bound is None else 2.0 * bound
    log_concave = world.link.is_preference and world.link.is_log_concave
    if not (log_concave and _is_plain(arrival)):
        return {"s6": math.nan, "s6_ceiling": math.nan}
    bounds = [_s6_of_user(arrival, user, sine, ceiling) for user in range(len(stretch))]
    squares = np.minimum(bounds, ceiling) ** 2
    return {
        "s6": float(np.sqrt(np.mean(stretch * squares))),
        "s6_ceiling": float(np.sqrt(np.mean(stretch))) * ceiling,
    }


def _s6_of_user(arrival: Arrival, user: int, sine: float, ceiling: float) -> float:
    """S6 of one new user, `||E_0||_F <=`, given his pairs and his fit.

    The proof (`theory.new_users`) needs of curvature only that the loss on the basis is strongly
    convex on the segment from `V0` to the fit. `s lambda_min(Z'Z)` with one s for all pairs says
    so, and is vacuous where one reward is large; here every pair has its own, the smaller curvature
    of its label's loss at the segment's ends: `lambda_min(Z' diag(s_j) Z)`.

    NaN for a user whose truth lies outside the ball: `V0` need not be feasible.
    """
    world, prefs, basis = arrival.world, arrival.preferences, arrival.result.basis
    truth = world.delta[arrival.users][user]
    if arrival.result.norm_bound is not None and np.linalg.norm(truth) > arrival.result.norm_bound:
        return math.nan
    mine = prefs.user(user)
    mine = np.arange(mine.start, mine.stop)[prefs.weights[mine] > 0]
    x, labels = prefs.features[mine], prefs.labels[mine]
    missed = truth - basis @ (basis.T @ truth)
    base, of_truth, of_missed, of_fit = (
        np.einsum("jab,ab->j", x, matrix)
        for matrix in (world.theta_init, truth, missed, arrival.result.delta[user])
    )
    curvatures = np.minimum(
        *(
            np.asarray(world.link.loss_curvature(base + z, labels))
            for z in (of_truth - of_missed, of_fit)
        )
    )
    projected = np.einsum("ak,jab->jkb", basis, x).reshape(len(mine), -1)
    width = theory.link_constants(world.link, margin=float(np.abs(base + of_truth).max()))
    n_new = world.n_users - arrival.n_old
    design = projected.T @ projected
    inside = world.basis.T @ truth
    return theory.new_user_bound(
        noise=theory.new_user_noise_bound(
            design, score_width=width.score_width, delta=DELTA / n_new
        ),
        missed=theory.missed_truth(
            largest_sine=sine,
            inside_norm=float(np.linalg.norm(inside)),
            outside_norm=float(np.linalg.norm(truth - world.basis @ inside)),
        ),
        missed_rewards=float(np.linalg.norm(of_missed)),
        smallest_design=_smallest(projected.T @ (curvatures[:, None] * projected)),
        largest_design=float(np.linalg.eigvalsh(design)[-1]),
        curvature=1.0,  # each pair's own is in the design
        curvature_bound=world.link.curvature_bound,
        ceiling=ceiling,
    ).value


def _smallest(matrix: np.ndarray) -> float:
    """Smallest eigenvalue, 0 where it is rounding: fewer pairs than parameters."""
    values = np.linalg.eigvalsh(matrix)
    return float(values[0]) if values[0] > 1e-10 * values[-1] else 0.0
