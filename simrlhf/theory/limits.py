"""What no regular estimator beats: limits of the well-specified maximum-likelihood fits.

`H_i` is user i's information per comparison, `w_i = n_i / n`. With `vec` in C order
(`theory.information`), `Mb = B (x) I_{d2}`, `J_i = B_perp (x) W_i'` is the map
`K -> vec(B_perp K W_i)`, `A_i = Mb' H_i Mb` and `Pi_i = I - Mb A_i^{-1} Mb' H_i`.

Proof of L1 and L2. Near the truth `Delta_i - Delta*_i = B_perp K W_i + B V_i`, and K, V are a
chart of the class. The users' V_i enter one information each; eliminating them leaves
`n sum_i w_i J_i' (H_i Pi_i) J_i = n I_eff` about K. `dist^2 = ||K||_F^2` to leading order, and
given K the best `V_i` moves `vec E_i` to `Pi_i J_i vec K`; its own error `(n w_i A_i)^{-1}` adds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from simrlhf.core import checks, subspaces
from simrlhf.theory.statement import BoundStatus

COVARIANCE_KINDS = ("joint", "oracle", "full")
COUNT_KINDS = ("share_b", "oracle", "local", "full", "global")
# eigenvalues below this fraction of the largest are rounding
_SINGULAR = 1e-13


@dataclass(frozen=True, kw_only=True)
class SubspaceLimit:
    """The exact first-order error of the shared subspace (L1).

    Attributes:
        value: `tr I_eff^{-1}`, the limit of `n E[dist(B_hat, B^<>)^2]`; infinite when the factors
            or the informations do not identify the subspace.
        information: `I_eff`, square of side `(d1 - k) k`, about `vec K` in C order.
        status: VACUOUS when the value is infinite.
        statement: which statement this is.
    """

    value: float
    information: np.ndarray
    status: BoundStatus
    statement: str = "L1"

    def distance(self, n_pairs: float) -> float:
        """`sqrt(value / n)`: the root mean square distance at n comparisons per unit weight."""
        return math.sqrt(self.value / checks.real("n_pairs", n_pairs, above=0.0))


def subspace_limit(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    weights: np.ndarray | None = None,
) -> SubspaceLimit:
    """Limit of the subspace distance of the joint share-B fit (L1).

        n E[dist^2] -> tr I_eff^{-1},   I_eff = sum_i w_i J_i' Pi_i' H_i Pi_i J_i

    Fails when the truth is misspecified, the ball `||Delta_i||_F <= R` is active, or n is small
    (the ratio approaches 1 like `1 + c / n`).

    Args:
        basis: `B (d1, k)`, orthonormal columns, spanning the truth: `Delta*_i = B W_i`.
        factors: `W (N, k, d2)`.
        informations: `H (N, p, p)`, symmetric, for instance from `isotropic_fisher`.
        weights: `(N,)` positive `n_i / n`; 1 by default.

    Returns:
        A `SubspaceLimit`; its value is 0 when k = d1.

    Raises:
        InputError: shapes that do not agree, a basis that is not orthonormal, weights not positive.
    """
    basis, factors, informations, weights = checked(basis, factors, informations, weights)
    information = _effective_information(basis, factors, informations, weights)
    identified = _is_positive(information)
    value = float(np.trace(np.linalg.inv(information))) if identified else math.inf
    status = BoundStatus.INFORMATIVE if identified else BoundStatus.VACUOUS
    return SubspaceLimit(value=value, information=information, status=status)


def reward_covariances(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    kind: str = "joint",
) -> np.ndarray:
    """Limit of `n Cov(vec E_i)`, the error of each user's reward vector (L2).

    * `oracle` (true basis known): `w_i^{-1} Mb A_i^{-1} Mb'`;
    * `joint` (share-B): the same `+ Pi_i J_i I_eff^{-1} J_i' Pi_i'`;
    * `full` (no rank): `w_i^{-1} H_i^{-1}`.

    Args:
        basis, factors, informations, weights: as in `subspace_limit`.
        kind: one of the three above.

    Returns:
        `(N, p, p)`; `n E||E_i||_Sigma^2 -> tr(Sigma Cov_i)`.

    Raises:
        InputError: as `subspace_limit`, and where the kind's covariance is infinite because an
            information is singular.
    """
    checks.choice("kind of covariance", kind, COVARIANCE_KINDS)
    basis, factors, informations, weights = checked(basis, factors, informations, weights)
    if kind == "full":
        _require_positive("informations", informations)
        return np.linalg.inv(informations) / weights[:, None, None]
    within = np.kron(basis, np.eye(factors.shape[2]))
    reduced = within.T @ informations @ within
    _require_positive("informations on the columns of basis", reduced)
    inverse = np.linalg.inv(reduced)
    oracle = within @ (inverse / weights[:, None, None]) @ within.T
    if kind == "oracle":
        return oracle
    information = effective_information(basis, factors, informations, weights)
    moved = moved_rewards(basis, factors, informations)
    return oracle + moved @ np.linalg.inv(information) @ np.swapaxes(moved, 1, 2)


def effective_information(
    basis: np.ndarray, factors: np.ndarray, informations: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """`I_eff` of L1, of side `(d1 - k) k`; it is refused where it is singular."""
    information = _effective_information(basis, factors, informations, weights)
    _require_positive("the effective information of the subspace", information[None])
    return information


def moved_rewards(basis: np.ndarray, factors: np.ndarray, informations: np.ndarray) -> np.ndarray:
    """`Pi_i J_i (N, d1 d2, (d1 - k) k)`: how `vec Delta_i` follows the subspace `vec K`.

    `J_i vec K = vec(B_perp K W_i)`; `Pi_i` lets the user's own factor answer.
    """
    within = np.kron(basis, np.eye(factors.shape[2]))
    outside = subspaces.orthonormal_complement(basis)
    moved = np.stack([np.kron(outside, factor.T) for factor in factors])
    # as for I_eff, the pseudo-inverse is exact: a user without information does not answer
    inner = np.linalg.pinv(within.T @ informations @ within, rcond=_SINGULAR, hermitian=True)
    return moved - within @ (inner @ (within.T @ (informations @ moved)))


def parameter_count(kind: str, *, n_users: int, d1: int, d2: int, rank: int) -> int:
    """Free parameters p of a class, the dimension of its smooth part (L3).

        share_b  k (N d2 + d1 - k)      oracle  N k d2      full  N d1 d2
        local    N r (d1 + d2 - r)      global  r (d1 + d2 - r),   r = min(k, d1, d2)

    `sum_i w_i tr(H_i Cov_i) = p` whatever the informations, and
    `2 [loglik(hat) - loglik(*)] -> chi^2_p`. A LoRA of one matrix cannot have a rank above
    `min(d1, d2)`, hence r.

    Args:
        kind: `share_b` (joint), `oracle` (basis given), `local`, `full` or `global` (one for all).
        n_users, d1, d2, rank: N, the shape of a deviation, and k; `full` ignores the rank.
    """
    checks.choice("kind of model", kind, COUNT_KINDS)
    for name, size in (("n_users", n_users), ("d1", d1), ("d2", d2)):
        checks.integer(name, size, low=1)
    if kind == "full":
        return n_users * d1 * d2
    ceiling = min(d1, n_users * d2) if kind == "share_b" else d1
    rank = checks.integer("rank", rank, low=1, high=ceiling, remedy="lower the rank")
    alone = min(rank, d1, d2)
    return {
        "share_b": rank * (n_users * d2 + d1 - rank),
        "oracle": n_users * rank * d2,
        "local": n_users * alone * (d1 + d2 - alone),
        "global": alone * (d1 + d2 - alone),
    }[kind]


def excess_log_loss(parameters: int, *, n_users: int, n_pairs: float) -> float:
    """Limit of the expected held-out log-loss above the truth's: `p / (2 N n)` a comparison (L3).

    Args:
        parameters: `p`, from `parameter_count`.
        n_users, n_pairs: N users with n training comparisons each (the mean where users differ,
            when the held-out comparisons have the users in the same proportions).
    """
    checks.integer("parameters", parameters, low=1)
    checks.integer("n_users", n_users, low=1)
    return parameters / (2.0 * n_users * checks.real("n_pairs", n_pairs, above=0.0))


def _effective_information(
    basis: np.ndarray, factors: np.ndarray, informations: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """`I_eff`: the Schur complement of each `H_i` on the complement of B, seen through `W_i`."""
    (d1, rank), d2 = basis.shape, factors.shape[2]
    outside = subspaces.orthonormal_complement(basis)
    side = d1 - rank
    frame = np.kron(np.hstack([outside, basis]), np.eye(d2))
    rotated = frame.T @ informations @ frame
    cut = side * d2
    cross, inner = rotated[:, :cut, cut:], rotated[:, cut:, cut:]
    # the pseudo-inverse is exact here: a positive semidefinite H has its cross block in the range
    schur = rotated[:, :cut, :cut] - cross @ (
        np.linalg.pinv(inner, rcond=_SINGULAR, hermitian=True) @ np.swapaxes(cross, 1, 2)
    )
    schur = schur.reshape(factors.shape[0], side, d2, side, d2)
    scaled = factors * weights[:, None, None]
    through = np.einsum("icm,iambn->iacbn", scaled, schur, optimize=True)
    information = np.einsum("iacbn,ien->acbe", through, factors, optimize=True)
    information = information.reshape(side * rank, side * rank)
    return 0.5 * (information + information.T)


def _is_positive(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix is positive definite beyond rounding; true of an empty one."""
    if matrix.size == 0:
        return True
    values = np.linalg.eigvalsh(matrix)
    return bool(values[0] > _SINGULAR * values[-1])


def _require_positive(name: str, matrices: np.ndarray) -> None:
    for index, matrix in enumerate(matrices):
        checks.require(
            _is_positive(matrix),
            f"{name}: number {index} is singular, so its covariance is infinite; drop users or "
            "directions without information, or lower the rank",
        )


def checked(
    basis: np.ndarray,
    factors: np.ndarray,
    informations: np.ndarray,
    weights: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of `subspace_limit` as float64 arrays of shapes that agree."""
    basis, factors, informations = (
        np.asarray(array, dtype=np.float64) for array in (basis, factors, informations)
    )
    checks.shape("basis", basis, (None, None))
    d1, rank = basis.shape
    checks.shape("factors", factors, (None, rank, None), remedy="one (k, d2) matrix for each user")
    n_users, _, d2 = factors.shape
    p = d1 * d2
    checks.shape("informations", informations, (n_users, p, p), remedy="p is d1 d2")
    weights = np.ones(n_users) if weights is None else np.asarray(weights, dtype=np.float64)
    checks.shape("weights", weights, (n_users,), remedy="one n_i / n for each user")
    for name, array in (("factors", factors), ("informations", informations), ("weights", weights)):
        checks.finite(name, array)
    checks.require(bool((weights > 0.0).all()), "weights must be positive; drop the other users")
    subspaces.principal_angles(basis, basis)  # refuses columns that are not orthonormal
    return basis, factors, informations, weights
