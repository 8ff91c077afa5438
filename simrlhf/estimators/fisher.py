"""Variances of fitted rewards from the expected information at the fit.

Chart of the class at a fit `Delta_i = B W_i`: `Delta_i = (B + B_perp K) W_i + B V_i`, with `K`
common to the users of the basis and `V_i` of user i. One pair with feature x and
`c = weight * I(z)` adds `c g g'` to the information about (K, V), where `g` is the gradient of its
reward `z`:

    q = B_perp' x W_i'   in K,      p = B' x   in V_i          (both as vectors).

With `A_i = sum c p p'`, `C_i = sum c q p'` and the ridge `rho` of the fit, eliminating the `V_i`
leaves `S = sum_i sum c (q - C_i A_i^{-1} p)(...)'` about K (`A_i + rho I` for `A_i` throughout
where there is a ridge). A fit with a ridge has the sampling covariance
`(J + rho P)^{-1} J (J + rho P)^{-1}`, J the information and P the Hessian of half the penalty; it
is worked out below in the same blocks. Scores at the fit that vanish in expectation are left out.

Kept are `A_i^{-1} (N, k d2, k d2)`, how the factors follow the basis `(N, (d1 - k) d2, k d2)` and
one matrix of side `k (d1 - k)`. A user whose information is regular has `k d2` pairs at least, so
the first two are not larger than the features of such users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from simrlhf.core import checks
from simrlhf.estimators.charts import Chart, Pairs

# reciprocal condition number below which an information counts as singular
_SINGULAR = 1e-12
# side k (d1 - k) of the information about the basis: 0.5 GB a matrix, a few of them at once
LARGEST_SIDE = 8192
# numbers in the users' blocks (2 GB)
LARGEST_BLOCKS = 2**28
# numbers in one piece of work when errors are read off
_PIECE = 2**22
# numbers of the users' contributions that are added up at once
_BATCH = 2**25


@dataclass(frozen=True, eq=False)
class BasisErrors:
    """Covariance of K: how far the basis may be from the truth.

    Attributes:
        basis, outside: the chart.
        covariance: square of side `(d1 - k) k`, K in C order; `None` where it is infinite.
        bread: `rho` times the inverse penalised information, with a ridge; else `None`.
    """

    basis: np.ndarray
    outside: np.ndarray
    covariance: np.ndarray | None
    bread: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class FisherErrors:
    """What `variances` needs; M models.

    Attributes:
        chart: where the class was differentiated.
        own: `(M, q, q)`, `q = k d2`: covariance of a model's factors given the basis.
        infinite: `(M,)` models whose information is singular.
        follow: `(M, (d1 - k) d2, q)`, `E_i A_i^{-1}` with `E_i = sum c (B_perp' x)(B' x)'`.
        inverse: `(M, q, q)` penalised `A_i^{-1}`; with a ridge only.
        basis_errors: `None` where the basis is known.
        pooled: whether one model serves all users.
    """

    chart: Chart
    own: np.ndarray
    infinite: np.ndarray
    follow: np.ndarray | None
    inverse: np.ndarray | None
    basis_errors: BasisErrors | None
    pooled: bool

    def variances(self, users: np.ndarray, features: np.ndarray) -> np.ndarray:
        """`(m,)` variances of `<Delta_user, x>` for `users (m,)`, `features (m, d1, d2)`."""
        models = np.zeros_like(users) if self.pooled else users
        order = np.argsort(models, kind="stable")
        found = np.empty(len(users))
        basis = self.basis_errors
        side = 0 if basis is None or basis.covariance is None else basis.covariance.shape[0]
        height = max(1, _PIECE // max(side, features[0].size if len(features) else 1))
        for first in range(0, len(order), height):
            rows = order[first : first + height]
            found[rows] = self._piece(models[rows], features[rows])
        return np.maximum(found, 0.0)

    def _piece(self, models: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Variances of rows that are ordered by model."""
        inside, basis = self.chart.inside(features), self.basis_errors
        variances = np.empty(len(models))
        names, starts = np.unique(models, return_index=True)
        spans = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(models)], strict=True)]
        for model, rows in zip(names, spans, strict=True):
            variances[rows] = np.einsum("mi,mi->m", inside[rows] @ self.own[model], inside[rows])
            variances[rows] = np.inf if self.infinite[model] else variances[rows]
        if basis is None:
            return variances
        if basis.covariance is None:
            return np.full(len(models), np.inf)
        assert self.follow is not None
        across = self.chart.across(features)
        moved = np.empty((len(models), basis.covariance.shape[0]))
        for model, rows in zip(names, spans, strict=True):
            left = across[rows] - inside[rows] @ self.follow[model].T
            moved[rows] = self.chart.through(left, model)
        variances += np.einsum("ms,ms->m", moved @ basis.covariance, moved)
        if basis.bread is None or self.inverse is None:
            return variances
        for model, rows in zip(names, spans, strict=True):
            back = inside[rows] @ self.inverse[model] @ self.follow[model].T
            back = self.chart.through(back, model)
            variances[rows] += 2.0 * np.einsum("ms,ms->m", moved[rows] @ basis.bread, back)
        return variances


def fisher_errors(
    pairs: Pairs,
    chart: Chart,
    *,
    ridge: float,
    variance: float,
    known: BasisErrors | None = None,
    pooled: bool = False,
) -> FisherErrors:
    """The parts of `FisherErrors` in one pass over the models.

    Args:
        ridge: `rho`, of every model's matrix.
        variance: of a label, where `I` is for variance 1 (identity link); 1 for preferences.
        known: errors of the chart's basis where other data gave it; `None` where these pairs did.
        pooled: one model for all users.

    Raises:
        InputError: matrices above `LARGEST_SIDE` or `LARGEST_BLOCKS`.
    """
    _require_size(pairs, chart)
    d1, d2 = pairs.features.shape[1:]
    k = d1 if chart.basis is None else chart.basis.shape[1]
    q, moves = k * d2, chart.outside is not None
    own, infinite = np.zeros((pairs.n_models, q, q)), np.zeros(pairs.n_models, bool)
    inverse = np.zeros_like(own) if ridge > 0 else None
    follow = np.zeros((pairs.n_models, (d1 - k) * d2, q)) if moves else None
    joint = _Joint(chart, ridge) if moves and known is None else None
    for model, (features, information) in enumerate(pairs.of_models()):
        inside = chart.inside(features)
        scaled = inside * information[:, None]
        gram = inside.T @ scaled
        inverted, infinite[model] = _inverse(gram + ridge * np.eye(q), pseudo=moves)
        own[model] = inverted @ gram @ inverted if ridge > 0 else inverted
        if inverse is not None:
            inverse[model] = inverted
        if follow is not None:
            across = chart.across(features)
            follow[model] = across.T @ scaled @ inverted
            if joint is not None:
                left = across - inside @ follow[model].T
                joint.add(model, left, information, follow[model])
    own *= variance
    errors = known if joint is None else joint.errors(variance)
    return FisherErrors(chart, own, infinite, follow, inverse, errors, pooled)


class _Joint:
    """The information about K, summed over models: `meat` without the penalty, `pull` its Hessian.

    The penalised information is `meat + rho pull`: with `q~ = q - C (A + rho I)^{-1} p`,
    `sum c q~ q~' = D - C (A + rho I)^{-1} C' - rho C (A + rho I)^{-2} C'`.
    """

    def __init__(self, chart: Chart, ridge: float) -> None:
        self.chart, self.ridge = chart, ridge
        self.meat = _Carried(chart)
        self.pull = _Carried(chart) if ridge > 0 else None

    def add(
        self, model: int, left: np.ndarray, information: np.ndarray, follow: np.ndarray
    ) -> None:
        """Add a model: `left (n, (d1 - k) d2)` is what `B_perp' x` has that `B' x` cannot give."""
        self.meat.add(model, left * np.sqrt(information)[:, None])
        if self.pull is not None:
            self.pull.add(model, follow.T)

    def errors(self, variance: float) -> BasisErrors:
        """Covariance of K."""
        basis, outside, weights = self.chart
        assert basis is not None
        assert outside is not None
        assert weights is not None
        meat = self.meat.total()
        if self.pull is None:
            inverted, singular = _inverse(meat)
            return BasisErrors(basis, outside, None if singular else variance * inverted)
        pull = self.pull.total()
        pull += np.kron(np.eye(outside.shape[1]), np.einsum("icb,ieb->ce", weights, weights))
        inverted, singular = _inverse(meat + self.ridge * pull)
        covariance = None if singular else variance * (inverted @ meat @ inverted)
        return BasisErrors(basis, outside, covariance, variance * self.ridge * inverted)


class _Carried:
    """`sum_i sum_j vec(l_ij W_i') vec(l_ij W_i')'` for rows `l_ij` of shape `(o, d2)`.

    Where d2 < k through `sum_j l_ij l_ij'`, of side `o d2` instead of `o k`; many users at once, as
    a product for each would write the whole sum as often as there are users.
    """

    def __init__(self, chart: Chart) -> None:
        assert chart.outside is not None
        assert chart.weights is not None
        self.chart = chart
        _, self.k, self.d2 = chart.weights.shape
        self.n_outside = chart.outside.shape[1]
        self.squares = self.d2 < self.k
        side = self.n_outside * self.k
        shape = (self.k**2, self.n_outside**2) if self.squares else (side, side)
        self.sum = np.zeros(shape)
        self.left: list[np.ndarray] = []
        self.right: list[np.ndarray] = []
        self.waiting = 0

    def add(self, model: int, rows: np.ndarray) -> None:
        """Add the rows `(n, o d2)` of a model."""
        if self.squares:
            assert self.chart.weights is not None
            weights = self.chart.weights[model]
            square = (rows.T @ rows).reshape(self.n_outside, self.d2, self.n_outside, self.d2)
            pairs = np.einsum("cb,ed->bdce", weights, weights)
            self.left.append(pairs.reshape(self.d2**2, -1))
            rows = square.transpose(1, 3, 0, 2).reshape(self.d2**2, -1)
        else:
            rows = self.chart.through(rows, model)
        self.right.append(rows)
        self.waiting += rows.size
        if self.waiting > _BATCH:
            self._flush()

    def total(self) -> np.ndarray:
        """Square of side `o k`."""
        self._flush()
        if not self.squares:
            return self.sum
        blocks = self.sum.reshape(self.k, self.k, self.n_outside, self.n_outside)
        side = self.n_outside * self.k
        return np.ascontiguousarray(blocks.transpose(2, 0, 3, 1)).reshape(side, side)

    def _flush(self) -> None:
        if self.right:
            right = np.concatenate(self.right)
            left = np.concatenate(self.left) if self.squares else right
            self.sum += left.T @ right
            self.left, self.right, self.waiting = [], [], 0


def _inverse(matrix: np.ndarray, *, pseudo: bool = False) -> tuple[np.ndarray, bool]:
    """Inverse of a positive semidefinite matrix, and whether it is singular.

    Where it is, zeros or the pseudo-inverse. A singular user still tells something about the basis,
    for which the pseudo-inverse is exact: `C_i` vanishes where `A_i` does.
    """
    if matrix.size == 0:
        return matrix, False
    factor, failed = scipy.linalg.lapack.dpotrf(matrix, lower=1)
    if not failed:
        size = float(np.abs(matrix).sum(axis=0).max())
        condition, _ = scipy.linalg.lapack.dpocon(factor, size, uplo="L")
        if condition > _SINGULAR:
            lower, _ = scipy.linalg.lapack.dpotri(factor, lower=1)
            lower = np.tril(lower)
            return lower + np.tril(lower, -1).T, False
    if pseudo:
        return np.linalg.pinv(matrix, rcond=_SINGULAR, hermitian=True), True
    return np.zeros_like(matrix), True


def _require_size(pairs: Pairs, chart: Chart) -> None:
    d1, d2 = pairs.features.shape[1:]
    k = d1 if chart.basis is None else chart.basis.shape[1]
    side = (d1 - k) * k if chart.outside is not None else 0
    checks.require(
        side <= LARGEST_SIDE,
        f"the information about the basis has side k (d1 - k) = {side:,}, above the limit "
        f'{LARGEST_SIDE:,}; use method="bootstrap", which forms no such matrix',
    )
    blocks = pairs.n_models * k * d2 * (k * d2 + ((d1 - k) * d2 if side else 0))
    checks.require(
        blocks <= LARGEST_BLOCKS,
        f"the users' informations hold {blocks:,} numbers, above the limit {LARGEST_BLOCKS:,} "
        f'(2 GB); use method="bootstrap", or fit fewer users at once',
    )
