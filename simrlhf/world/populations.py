"""Populations: laws of the right directions `V (N d2, r)` of `Delta* = U diag(sigma) V'`.

Whatever V is, as long as its columns are orthonormal the singular values are exactly those asked
for. Rows of V belong to users, `d2` each, so V says who shares what with whom.

Clusters and mixtures. For memberships `A (N, K)` of full column rank, `A = A~ R` (QR), take
`V = (A~ (x) I_{d2}) Q'` with Q' Haar and orthonormal, `(K d2, r)`. Its columns are orthonormal, and
the blocks are `Delta_i = sum_j a_ij C_j` with `C_j = sum_l (R^-1)_{jl} U diag(sigma) Q'_l'`: users
with equal rows of A have equal Deltas.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

from simrlhf.core import checks
from simrlhf.world.config import WorldConfig

# drawn memberships are taken where their smallest singular value is this share of the largest: the
# components C_j are then known to 1e-10
_INDEPENDENT = 1e-6
_ATTEMPTS = 100


def right_directions(
    config: WorldConfig, columns: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Orthonormal `V (N d2, columns)`, and the memberships `(N, K)` where there are any.

    The first `k` columns follow the population, those of a tail lie in their complement: with a
    tail users deviate from their group.

    Raises:
        InputError: no independent memberships were found at this concentration.
    """
    rows, top = config.n_users * config.d2, min(columns, config.true_rank)
    if config.population == "haar" and config.user_norms != "lognormal":
        return haar(rows, columns, random), None
    memberships, scales = None, np.ones(rows)
    if config.population == "haar":
        factors = np.exp(config.norm_spread * random.standard_normal(config.n_users))
        scales = np.repeat(factors, config.d2)
        leading = _nearest_orthonormal(scales[:, None] * random.standard_normal((rows, top)))
    elif config.population == "core":
        leading = _on_a_shared_side(config, top, random)
    elif config.population == "signs":
        leading = _signs(config, random)
    elif config.population == "minority":
        memberships = _two_parts(config, random)
        leading = _with_a_minority(config, memberships[:, 1] > 0, top, random)
    else:
        memberships = _groups(config, random)
        leading = _of_groups(config, memberships, top, random)
    if columns == top:
        return leading, memberships
    rest = scales[:, None] * random.standard_normal((rows, columns - top))
    return np.hstack([leading, _orthonormal_outside(leading, rest)]), memberships


def haar(rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """Uniform orthonormal `(rows, columns)`."""
    q, r = np.linalg.qr(random.standard_normal((rows, columns)))
    return q * np.sign(np.diagonal(r))


def _groups(config: WorldConfig, random: np.random.Generator) -> np.ndarray:
    """Memberships `(N, K)`: rows of one 1 for clusters, Dirichlet for a mixture."""
    n_users, groups = config.n_users, config.groups
    if config.population == "clusters":
        smallest = None if config.minority_share is None else config.minority_size
        sizes = _sizes(n_users, groups, smallest)
        return np.eye(groups)[random.permutation(np.repeat(np.arange(groups), sizes))]
    for _ in range(_ATTEMPTS):
        drawn = random.dirichlet(np.full(groups, config.concentration), n_users)
        values = np.linalg.svd(drawn, compute_uv=False)
        if values[-1] > _INDEPENDENT * values[0]:
            return drawn
    raise checks.InputError(
        f"concentration = {config.concentration:g} with n_groups = {groups} and N = {n_users} "
        f"gave no independent memberships in {_ATTEMPTS} draws; bring it nearer to 1, or lower "
        "n_groups"
    )


def _sizes(n_users: int, groups: int, smallest: int | None) -> list[int]:
    """Users of each group, the smallest last where its size is given."""
    if smallest is None or groups == 1:
        return [len(part) for part in np.array_split(np.arange(n_users), groups)]
    others = np.array_split(np.arange(n_users - smallest), groups - 1)
    return [*(len(part) for part in others), smallest]


def _of_groups(
    config: WorldConfig, memberships: np.ndarray, columns: int, random: np.random.Generator
) -> np.ndarray:
    groups, d2 = memberships.shape[1], config.d2
    inner = haar(groups * d2, columns, random).reshape(groups, d2, columns)
    if config.population == "clusters":  # the same R, and users of a group equal to the last bit
        frame = memberships / np.linalg.norm(memberships, axis=0)
    else:
        frame = np.linalg.qr(memberships)[0]
    return np.einsum("nk,kbr->nbr", frame, inner).reshape(config.n_users * d2, columns)


def _on_a_shared_side(config: WorldConfig, columns: int, random: np.random.Generator) -> np.ndarray:
    """Blocks `V_0 C_i'` with `V_0 (d2, k)` for all: `Delta_i` lies in one right space as well."""
    side = haar(config.d2, config.rank, random)
    cores = haar(config.n_users * config.rank, columns, random)
    cores = cores.reshape(config.n_users, config.rank, columns)
    return np.einsum("bk,nkr->nbr", side, cores).reshape(-1, columns)


def _signs(config: WorldConfig, random: np.random.Generator) -> np.ndarray:
    """k columns of a Hadamard matrix over `sqrt(N)`, but the constant one if that can be spared."""
    patterns = scipy.linalg.hadamard(config.n_users) / np.sqrt(config.n_users)
    others = 1 + random.permutation(config.n_users - 1)
    chosen = np.append(others, 0)[: config.rank]
    return patterns[random.permutation(config.n_users)][:, chosen]


def _two_parts(config: WorldConfig, random: np.random.Generator) -> np.ndarray:
    """`(N, 2)`: majority and minority."""
    few = random.permutation(np.arange(config.n_users) < config.minority_size)
    return np.stack([~few, few], axis=1).astype(float)


def _with_a_minority(
    config: WorldConfig, few: np.ndarray, columns: int, random: np.random.Generator
) -> np.ndarray:
    """The last column has entries in the blocks of `few (N,)` only, the others everywhere."""
    rows = np.repeat(few, config.d2)
    last = np.zeros((rows.size, 1))
    last[rows] = haar(int(rows.sum()), 1, random)
    others = random.standard_normal((rows.size, columns - 1))
    return np.hstack([_orthonormal_outside(last, others), last])


def _orthonormal_outside(basis: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Orthonormal columns of the part of `drawn` outside of `basis`."""
    found = drawn
    for _ in range(2):  # the second time removes the rounding of the first
        found = found - basis @ (basis.T @ found)
        found = np.linalg.qr(found)[0]
    return found


def _nearest_orthonormal(matrix: np.ndarray) -> np.ndarray:
    """`M (M'M)^{-1/2}`, of the columns' space; no column of the answer comes before another."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right
