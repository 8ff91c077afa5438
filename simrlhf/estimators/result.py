"""What a fit returns: parameters, certificate, and a sentence on how it ended."""

from __future__ import annotations

import enum
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, links, numerics
from simrlhf.data.preferences import Preferences

_FORMAT = 1


class FitStatus(enum.Enum):
    """How a fit ended; `sentence` says it in words."""

    CONVERGED = "converged: the certificate of the fit, its gradient_norm, is below the tolerance"
    MAX_ITERATIONS = "stopped at max_iterations before the tolerance was met; raise max_iterations"
    STALLED = (
        "stopped where rounding prevents further decrease, above the tolerance; raise tol, or "
        "rescale the features"
    )
    SEPARATED = (
        "separated: some users' labels are fitted without error, so no finite maximiser exists "
        "and convergence is not claimed; set norm_bound or ridge"
    )
    UNCERTIFIED = (
        "a function of yours gave these numbers: no objective is known, so none is met; return an "
        "Outcome where the function has a certificate"
    )

    @property
    def sentence(self) -> str:
        return self.value


@dataclass(frozen=True)
class SharedFactors:
    """`Delta_i = basis @ weights[i]`: one basis `(d1, k)` for all, `weights (N, k, d2)`."""

    basis: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class LocalFactors:
    """`Delta_i = bases[i] @ weights[i]`: `bases (N, d1, k)`, `weights (N, k, d2)`."""

    bases: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class PooledFactors:
    """`Delta_i = basis @ weights` for every user: `basis (d1, k)`, `weights (k, d2)`."""

    basis: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class InputSharedFactors:
    """`Delta_i = weights[i] @ basis`: `weights (N, d1, k)`, one input side `basis (k, d2)`."""

    weights: np.ndarray
    basis: np.ndarray


@dataclass(frozen=True)
class RepresentationFactors:
    """`vec Theta_i = representation @ heads[i]`: `(d1 d2, k)` in C order, and `(N, k)`."""

    representation: np.ndarray
    heads: np.ndarray


@dataclass(frozen=True)
class CoreFactors:
    """`Delta_i = left @ cores[i] @ right.T`: `(d1, k)`, `(N, k, k)`, `(d2, k)`."""

    left: np.ndarray
    cores: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class DiagonalFactors:
    """`Delta_i = left @ diag(weights[i]) @ right.T`: `(d1, k)`, `(N, k)`, `(d2, k)`."""

    left: np.ndarray
    weights: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class GlobalLocalFactors:
    """`Delta_i = common + deviations[i]`: `(d1, d2)` and `(N, d1, d2)`."""

    common: np.ndarray
    deviations: np.ndarray


@dataclass(frozen=True)
class ClusterFactors:
    """`Delta_i = centres[assignment[i]]`: `(K, d1, d2)`, largest cluster first, and `(N,)`."""

    centres: np.ndarray
    assignment: np.ndarray


@dataclass(frozen=True)
class SimplexFactors:
    """`Delta_i = sum_j weights[i, j] vertices[j]`: `(K, d1, d2)`, and `(N, K)` on the simplex."""

    vertices: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class FreeFactors:
    """`Delta_i` without structure: `delta (N, d1, d2)`."""

    delta: np.ndarray


Factors = (
    SharedFactors
    | LocalFactors
    | PooledFactors
    | InputSharedFactors
    | RepresentationFactors
    | CoreFactors
    | DiagonalFactors
    | GlobalLocalFactors
    | ClusterFactors
    | SimplexFactors
    | FreeFactors
)
_FACTOR_CLASSES: dict[str, type] = {kind.__name__: kind for kind in get_args(Factors)}


class Evaluation(NamedTuple):
    """Per-user quality on a set of pairs.

    Attributes:
        neg_log_likelihood: `(N,)` weighted mean loss per pair.
        accuracy: `(N,)` share of pairs whose preferred item scores higher; equal scores count one
            half, soft labels count by their probability. NaN for the identity link.
        n_pairs: `(N,)` pairs of each user.
    """

    neg_log_likelihood: np.ndarray
    accuracy: np.ndarray
    n_pairs: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class FitResult:
    """One fitted model of every user's reward `Theta_i = theta_init + delta_i`.

    Attributes:
        estimator: its name.
        delta: `(N, d1, d2)`.
        basis: `(d1, k)` top-k left space of the fitted aggregate, columns in order of singular
            value. Where the aggregate has rank below k the last columns are arbitrary.
        factors: the class's own parameters.
        multipliers: `(N,)` of the norm bound, in units of the summed loss; positive where active.
        neg_log_likelihood: weighted mean over pairs (for the identity link half the mean square).
        gradient_norm: norm of the gradient of that mean, penalty included; at an active bound the
            KKT residual; for `nuclear` the duality gap. The certificate of the fit. Estimators that
            minimise something else (`least_squares`) certify that; NaN where nothing is minimised.
        status: how it ended. `message` adds what the numbers say about it.
        iterations, data_passes: work done; one pass is one full read of the features.
        rank, norm_bound, ridge, link, theta_init, user_ids: what was asked.
    """

    estimator: str
    delta: np.ndarray
    basis: np.ndarray
    factors: Factors
    multipliers: np.ndarray
    neg_log_likelihood: float
    gradient_norm: float
    status: FitStatus
    message: str
    iterations: int
    data_passes: float
    rank: int
    norm_bound: float | None
    ridge: float
    link: str
    theta_init: np.ndarray
    user_ids: np.ndarray

    @property
    def n_users(self) -> int:
        return self.delta.shape[0]

    def rewards(self, users: Sequence[int] | np.ndarray, features: np.ndarray) -> np.ndarray:
        """Rewards `<theta_init + delta[user], x>` of items (or reward differences of pairs).

        Args:
            users: `(m,)` indices `0 .. N-1`, or one index for all rows.
            features: `(m, d1, d2)` or `(m, d1)`.
        """
        features = checks.numbers("features", features)
        if features.ndim == 2:
            features = features[..., None]
        checks.shape("features", features, (None, *self.delta.shape[1:]))
        users = np.asarray(users)
        checks.require(
            users.shape in ((), features.shape[:1])
            and (np.issubdtype(users.dtype, np.integer) or users.size == 0),
            f"users must be one index or {len(features)} indices (integers), got shape "
            f"{users.shape} of {users.dtype}; user_ids gives the name of each index",
        )
        users = np.broadcast_to(users, features.shape[:1]).astype(int)
        low, high = int(users.min(initial=0)), int(users.max(initial=0))
        checks.require(
            low >= 0 and high < self.n_users,
            f"user index {low if low < 0 else high} is outside 0..{self.n_users - 1}, the users "
            "of this fit",
        )
        shared = np.einsum("mab,ab->m", features, self.theta_init)
        return shared + np.einsum("mab,mab->m", features, self.delta[users])

    def evaluate(self, preferences: Preferences) -> Evaluation:
        """Loss and accuracy of every user of `preferences`, matched to this fit by `user_ids`."""
        checks.require(
            isinstance(preferences, Preferences),
            f"evaluate needs Preferences, got {type(preferences).__name__}",
        )
        checks.require(
            preferences.link == self.link,
            f"the fit has the {self.link} link, the data the {preferences.link} link; evaluate on "
            "data of the same kind",
        )
        place = {name: i for i, name in enumerate(self.user_ids.tolist())}
        unknown = [name for name in preferences.user_ids.tolist() if name not in place]
        checks.require(
            not unknown,
            f"{len(unknown)} users of the data are not in this fit (the first is "
            f"{unknown[0] if unknown else ''}); keep the users it was fitted on",
        )
        mine = np.asarray([place[name] for name in preferences.user_ids.tolist()])
        scores = self.rewards(mine[preferences.users], preferences.features)
        link, labels = links.get_link(self.link), preferences.labels
        with numerics.float64_scope():
            losses = np.asarray(link.loss(jnp.asarray(scores), jnp.asarray(labels)))
        if link.is_preference:
            first = np.where(scores == 0, 0.5, scores > 0)
            hits = labels * first + (1.0 - labels) * (1.0 - first)
        else:
            hits = np.full(scores.shape, np.nan)
        weight = np.bincount(preferences.users, preferences.weights)
        return Evaluation(
            np.bincount(preferences.users, preferences.weights * losses) / weight,
            np.bincount(preferences.users, preferences.weights * hits) / weight,
            preferences.counts,
        )

    def save(self, path: str | Path) -> Path:
        """Write the fit to one `.npz` file (arrays and a JSON header, no pickles)."""
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(path.name + ".npz")
        header = {
            "format": _FORMAT,
            "factors": type(self.factors).__name__,
            "status": self.status.name,
            **{name: getattr(self, name) for name in _SCALARS},
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"factors.{name}": value for name, value in vars(self.factors).items()}
        arrays["user_ids"] = _plain(self.user_ids)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(path, header=np.asarray(json.dumps(header)), **arrays)
        except OSError as error:
            raise checks.InputError(
                f"cannot write {path} ({error.strerror}); give a path in a writable folder"
            ) from None
        return path


_SCALARS = (
    *("estimator", "neg_log_likelihood", "gradient_norm", "message", "iterations", "data_passes"),
    *("rank", "norm_bound", "ridge", "link"),
)
_ARRAYS = ("delta", "basis", "multipliers", "theta_init")
# what a file that is no archive, is cut short or holds other things makes np.load and json raise
_UNREADABLE = (AttributeError, EOFError, KeyError, OSError, TypeError, ValueError)
_UNREADABLE += (zipfile.BadZipFile, zlib.error)


def load_fit(path: str | Path) -> FitResult:
    """Read a fit that `FitResult.save` wrote."""
    path = Path(path)
    checks.require(path.is_file(), f"no fit at {path}: give the .npz file that save() returned")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        header = json.loads(str(arrays.pop("header")))
        if header["format"] == _FORMAT:
            return _from_stored(header, arrays)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise checks.InputError(
            f"{path} is not a saved fit ({type(error).__name__}: {reason}); fit and save again"
        ) from None
    raise checks.InputError(
        f"{path} has format {header['format']}, this version reads {_FORMAT}; fit and save again"
    )


def _from_stored(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> FitResult:
    parts = {n.removeprefix("factors."): a for n, a in arrays.items() if n.startswith("factors.")}
    stored: dict[str, Any] = header | arrays
    return FitResult(
        factors=_FACTOR_CLASSES[header["factors"]](**parts),
        status=FitStatus[header["status"]],
        user_ids=arrays["user_ids"],
        **{name: stored[name] for name in (*_SCALARS, *_ARRAYS)},
    )


def _plain(names: np.ndarray) -> np.ndarray:
    """Object arrays of names as text or numbers, which need no pickle."""
    return np.asarray(names.tolist()) if names.dtype == object else names
