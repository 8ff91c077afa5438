"""The exact second moment of what behaviour policies let users compare."""

from __future__ import annotations

import math

import numpy as np

from simrlhf.core import checks
from simrlhf.world import MDP, Behaviours

# numbers in one array of a (p, p) matrix for each state; three live at once
MOST_IN_MATRICES = 2**27


def pair_moments(mdp: MDP, behaviours: Behaviours) -> np.ndarray:
    """`Sigma = E[vec x vec x']`, `x = phi(tau_0) - phi(tau_1)`, `tau_0 ~ mu_0`, `tau_1 ~ mu_1`.

    `(p, p)`, `p = d1 d2`; `(N, p, p)` where first states differ between users. By a recursion over
    the steps for the first two moments of the features still to come,

        G_h(s) = sum_a pi(a|s) [phi + P_h G_{h+1}]
        C_h(s) = sum_a pi(a|s) [phi phi' + phi (P_h G_{h+1})' + (P_h G_{h+1}) phi' + P_h C_{h+1}]

    and `Sigma = sum_s rho(s) [C^0 + C^1] - cross`, where trajectories that share their start have
    `cross = sum_s rho(s) [G^0 G^1' + G^1 G^0']`, and independent ones the product of the means.

    Raises:
        InputError: `S p^2` numbers above 1 GB.
    """
    behaviours.require_of(mdp)
    size = math.prod(mdp.reward_shape)
    checks.require(
        mdp.n_states * size**2 <= MOST_IN_MATRICES,
        f"second moments of S = {mdp.n_states} states and d1 d2 = {size} features take "
        f"{mdp.n_states * size**2:,} numbers, above the limit {MOST_IN_MATRICES:,}; lower either",
    )
    (mean0, second0), (mean1, second1) = (
        _moments(mdp, policy) for policy in (behaviours.first, behaviours.second)
    )
    start = np.atleast_2d(mdp.initial)
    total = np.tensordot(start, second0 + second1, axes=1)
    if behaviours.shared_start:
        cross = np.einsum("ns,sp,sq->npq", start, mean0, mean1, optimize=True)
    else:
        cross = np.einsum("np,nq->npq", start @ mean0, start @ mean1)
    found = total - cross - cross.swapaxes(1, 2)
    found = 0.5 * (found + found.swapaxes(1, 2))
    return found[0] if mdp.initial.ndim == 1 else found


def _moments(mdp: MDP, policy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second moment of `vec phi(tau)` given the first state, `(S, p)` and `(S, p, p)`."""
    features = mdp.flat_features
    mean = second = None
    for step in reversed(range(mdp.horizon)):
        phi, law = features[step], policy[step]
        weighted = law[..., None] * phi
        square = weighted.swapaxes(1, 2) @ phi
        if mean is None or second is None:
            mean, second = weighted.sum(axis=1), square
            continue
        kernel = mdp.kernels[step]
        after = np.tensordot(kernel, mean, axes=1)
        mixed = weighted.swapaxes(1, 2) @ after
        onward = np.einsum("sa,sat->st", law, kernel)
        mean = (weighted + law[..., None] * after).sum(axis=1)
        second = square + mixed + mixed.swapaxes(1, 2) + np.tensordot(onward, second, axes=1)
    assert mean is not None
    assert second is not None
    return mean, second
