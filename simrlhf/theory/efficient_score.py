"""The efficient score: where the fitted subspace of one run lies, to first order in `1 / sqrt n`.

With `g_i = -grad_i F(Delta*)` as `vec` in C order, the score about `K` is `sum_i J_i' g_i` and that
about the user's own factor `Mb' g_i`. Taking from the first what the second explains,

    S_eff = sum_i (J_i - Mb A_i^{-1} Mb' H_i J_i)' g_i = sum_i J_i' Pi_i' g_i,

whose covariance is `n I_eff`. So `vec K_hat = (n I_eff)^{-1} S_eff + O(1 / n)`, run by run, and L1
is the mean square of its first term.
"""

from __future__ import annotations

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.theory import limits


def efficient_score_step(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    scores: np.ndarray,
    *,
    n_pairs: float,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """First-order displacement of the fitted subspace (the sharper form of L1).

        B_hat (B' B_hat)^{-1} - B  =  B_perp mat((n I_eff)^{-1} sum_i J_i' Pi_i' g_i)  +  O(1 / n)

    Its squared norm has expectation `tr I_eff^{-1} / n`. The remainder is of order `1 / n`, the
    step itself `1 / sqrt n`; so the remainder of single runs has slope -1, which no random
    fluctuation of the step hides. Fails where L1 does.

    Args:
        basis, factors, informations, weights: as in `subspace_limit`.
        scores: `(N, d1, d2)`, minus the gradient of the summed loss at the truth.
        n_pairs: n.

    Returns:
        `(d1, k)`, columns orthogonal to `basis`.

    Raises:
        InputError: as `subspace_limit`, and where the subspace is not identified.
    """
    basis, factors, informations, weights = limits.checked(basis, factors, informations, weights)
    (d1, rank), (n_users, _, d2) = basis.shape, factors.shape
    scores = np.asarray(scores, dtype=np.float64)
    checks.shape("scores", scores, (n_users, d1, d2), remedy="one (d1, d2) matrix for each user")
    checks.finite("scores", scores)
    n_pairs = checks.real("n_pairs", n_pairs, above=0.0)
    information = limits.effective_information(basis, factors, informations, weights)
    moved = limits.moved_rewards(basis, factors, informations)
    efficient = np.einsum("ipq,ip->q", moved, scores.reshape(n_users, d1 * d2))
    step = np.linalg.solve(n_pairs * information, efficient)
    return subspaces.orthonormal_complement(basis) @ step.reshape(d1 - rank, rank)
