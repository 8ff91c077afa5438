"""A call of `fit`, checked before any computation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import get_link
from simrlhf.estimators.estimator import Estimator, Request
from simrlhf.estimators.problem import PreferenceSource

# a dense matrix of this side (2 GB) is the largest that a fit forms
_LARGEST_SIDE = 16384


def check_request(
    preferences: PreferenceSource,
    entry: Estimator,
    *,
    rank: int | str | None,
    norm_bound: float | None,
    ridge: float,
    penalty: float | None,
    init: str | np.ndarray,
    basis: np.ndarray | None,
    theta_init: np.ndarray | str | None,
    max_iterations: int,
    tol: float,
    seed: int,
) -> Request:
    """The arguments of `fit` as a request; its rank is 0 where `rank="auto"` is to be chosen.

    Raises:
        InputError: for every foreseeable mistake.
    """
    checks.require(
        callable(getattr(preferences, "chunks", None)),
        f"preferences must be Preferences or a source with chunks(), got "
        f"{type(preferences).__name__}; build them with Preferences.from_pairs",
    )
    seed = checks.integer("seed", seed, low=0, high=2**63 - 1)
    basis = _known_basis(basis, entry, preferences)
    check_size(entry, d1=preferences.d1, d2=preferences.d2)
    request = Request(
        source=preferences,
        link=get_link(preferences.link),
        rank=_rank(rank, entry, basis, preferences),
        radius=_radius(norm_bound),
        ridge=checks.real("ridge", ridge, low=0.0),
        penalty=None if penalty is None else checks.real("penalty", penalty, above=0.0),
        init=init,
        basis=basis,
        theta_init=_base(theta_init, entry, preferences),
        tolerance=checks.real("tol", tol, above=0.0),
        max_iterations=checks.integer("max_iterations", max_iterations, low=1, high=2**31 - 1),
        seed=seed,
        reads_base=entry.reads_base,
        waits_for_base=isinstance(theta_init, str),
    )
    for name, given in (
        ("norm_bound", norm_bound is not None),
        ("ridge", request.ridge > 0),
        ("penalty", penalty is not None),
    ):
        checks.require(
            not given or name in entry.accepts,
            f"{entry.name} takes no {name}; it takes "
            f"{' and '.join(entry.accepts) or 'no penalty and no bound'}: leave {name} out",
        )
    _check_class(entry, request)
    return request


def check_size(entry: Estimator, *, d1: int, d2: int) -> None:
    """Refuse features of which an estimator would form a matrix larger than 2 GB.

    Raises:
        InputError: a side above 16,384.
    """
    side = entry.side(d1, d2)
    checks.require(
        side <= _LARGEST_SIDE,
        f"{entry.name} forms a matrix of side {side:,} from features of {d1:,} x {d2:,}, above the "
        f"limit {_LARGEST_SIDE} (2 GB); reduce the features, for instance by principal components",
    )


class _Shape(NamedTuple):
    """What classes ask of a source before there is one."""

    n_users: int
    d1: int
    d2: int


def check_shape(
    entry: Estimator,
    *,
    n_users: int,
    d1: int,
    d2: int,
    rank: int,
    link: str = "logistic",
    norm_bound: float | None = None,
    ridge: float = 0.0,
) -> None:
    """Refuse what `fit` would refuse of an estimator on data of this shape, before there are any.

    Raises:
        InputError: as `check_request`, for sizes, rank and link.
    """
    check_size(entry, d1=d1, d2=d2)
    source: Any = _Shape(n_users, d1, d2)
    _check_class(
        entry,
        Request(
            source=source,
            link=get_link(link),
            rank=checks.integer("rank", rank, low=1),
            radius=_radius(norm_bound),
            ridge=ridge,
            penalty=None,
            init="spectral",
            basis=None,
            theta_init=np.zeros((d1, d2)),
            tolerance=1.0,
            max_iterations=1,
            seed=0,
        ),
    )


def _check_class(entry: Estimator, request: Request) -> None:
    """What the class says of the request, then its largest rank: the class knows the reason."""
    source, rank = request.source, max(request.rank, 1)  # 0 while it is to be chosen
    entry.check(request._replace(rank=rank))
    checks.integer(
        "rank",
        rank,
        low=1,
        high=entry.rank_limit(source),
        remedy=_limit(entry, source),
    )


def _limit(entry: Estimator, source: PreferenceSource) -> str:
    return (
        f"the limit of {entry.name} for {source.n_users} users and d1 x d2 = {source.d1} x "
        f"{source.d2} is {entry.rank_limit(source)}"
    )


def _base(
    theta_init: np.ndarray | str | None, entry: Estimator, preferences: PreferenceSource
) -> np.ndarray:
    shape = (preferences.d1, preferences.d2)
    if isinstance(theta_init, str):
        checks.choice("theta_init", theta_init, ("global",), remedy="or pass a (d1, d2) matrix")
        checks.require(
            entry.name != "global",
            'theta_init="global" fits the base by global, which leaves global itself nothing to '
            "fit: leave theta_init out",
        )
    if theta_init is None or isinstance(theta_init, str):
        return np.zeros(shape)
    base = checks.numbers("theta_init", theta_init)
    base = base[:, None] if base.ndim == 1 else base
    checks.shape("theta_init", base, shape, remedy="one (d1, d2) matrix for all users")
    checks.finite("theta_init", base)
    return base


def _radius(norm_bound: float | None) -> float:
    if norm_bound is None:
        return float("inf")
    return checks.real("norm_bound", norm_bound, above=0.0, remedy="or None for no bound")


def _known_basis(
    basis: np.ndarray | None, entry: Estimator, preferences: PreferenceSource
) -> np.ndarray | None:
    if entry.name != "oracle":
        checks.require(
            basis is None,
            f"basis is the known basis of the oracle; {entry.name} takes its start as init=",
        )
        return None
    checks.require(basis is not None, "oracle needs basis=, the known (d1, k) basis")
    known = checks.numbers("basis", basis)
    checks.shape("basis", known, (preferences.d1, None), remedy="a (d1, k) matrix")
    checks.finite("basis", known)
    checks.require(
        1 <= known.shape[1] <= preferences.d1 and np.linalg.matrix_rank(known) == known.shape[1],
        f"basis {known.shape} must have 1 to d1 = {preferences.d1} independent columns",
    )
    return np.linalg.qr(known)[0]


def _rank(
    rank: int | str | None,
    entry: Estimator,
    basis: np.ndarray | None,
    preferences: PreferenceSource,
) -> int:
    if rank == "auto":
        checks.require(
            entry.needs_rank,
            f'rank="auto" chooses the rank of a class that depends on it; {entry.name} has none to '
            "choose: leave rank out",
        )
        return 0
    largest = entry.rank_limit(preferences)
    if basis is not None:
        k = basis.shape[1]
        checks.require(
            rank is None or rank == k, f"rank = {rank}, but the basis has {k} columns; drop rank"
        )
        return k
    if rank is None:
        checks.require(
            not entry.needs_rank, f'{entry.name} needs rank=: a number, or "auto" to choose it'
        )
        return min(largest, preferences.d2) if entry.name == "global" else largest
    checks.require(not isinstance(rank, str), f'rank must be an integer or "auto", got {rank!r}')
    return checks.integer("rank", rank, low=1, remedy=_limit(entry, preferences))
