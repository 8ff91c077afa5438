"""`fit_many`: many fits of one estimator, batched where the device profits from it.

On the CPU one problem after the other is best: every result is that of `fit` bit for bit, and a
batch waits for its slowest member and outgrows the cache (16 problems of `share_b` in one batch
took 1.6 times as long at N=6, n=100, d1=20, k=3 and 2.3 times at N=32, n=200, d1=64, k=4, on one
core). One small problem leaves an accelerator idle; there, problems of equal shape are stacked and
solved at once, split over all devices of the process.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from simrlhf.core import checks, numerics
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.fitting import (
    base_request,
    based_on,
    find_estimator,
    result_of,
    run_request,
    with_rank,
)
from simrlhf.estimators.kernels import Kernel, Solved, Start, limits_of, solve_batch
from simrlhf.estimators.problem import PreferenceSource, Problem, host_problem
from simrlhf.estimators.requests import check_request
from simrlhf.estimators.result import FitResult

_HOW = ("loop", "vmap")
# share of a device's memory that a batch may take; estimates of it are rough
_MEMORY_SHARE = 0.5
# a batch's bytes where the device does not tell its memory
_DEFAULT_BYTES = 2**30


class _Member(NamedTuple):
    """A problem on its way into a batch, and the place of its result."""

    place: int
    request: Request
    problem: Problem
    start: Start


def fit_many(
    sources: Iterable[PreferenceSource],
    estimator: str | Callable[[Request], np.ndarray | Outcome] = "share_b",
    *,
    rank: int | str | None = None,
    norm_bound: float | None = None,
    ridge: float = 0.0,
    penalty: float | None = None,
    init: str | np.ndarray = "spectral",
    bases: Sequence[np.ndarray] | None = None,
    theta_inits: Sequence[np.ndarray | None] | str | None = None,
    max_iterations: int = 200,
    tol: float = 1e-8,
    seed: int | Sequence[int] = 0,
    how: str | None = None,
    batch_bytes: float | None = None,
) -> list[FitResult]:
    """Fit every source by itself: `[fit(source, estimator, ...) for source in sources]`.

    Batches hold problems whose arrays have equal shapes: as many users, and as many pairs of each,
    where pairs of weight 0 count (`Preferences.reweighted` makes nested samples of one shape).
    Their sizes are rounded up to 1, 2, 3, 4, 6, 8, 12 ... for each device, so that few are ever
    compiled, and filled up by copies of the last problem. What has no batched kernel, shares its
    shape with no other, or does not fit in one piece is fitted alone. Results of a batch differ
    from those of `fit` by rounding.

    Args:
        sources, estimator, rank, norm_bound, ridge, penalty, init, max_iterations, tol: as for
            `fit`; one value for all sources.
        bases: the known basis of each source, for `oracle`.
        theta_inits: base reward of each source, or `None`; `"global"` fits one for each first.
        seed: one for all, or one for each source.
        how: `"loop"` fits one after the other, `"vmap"` batches; `None` takes the loop on the CPU
            and batches elsewhere.
        batch_bytes: what a batch may take on each device; by default half of the memory that the
            device reports (1 GiB where it reports none). What a problem needs is an upper estimate
            from its shape (`Kernel.memory`), and one problem is always tried.

    Returns:
        A `FitResult` for each source, in order. Failures are statuses and concern nobody else.

    Raises:
        InputError: for misuse only, before any computation.
    """
    sources = list(sources)
    entry = find_estimator(estimator)
    if how is None:
        how = "loop" if jax.default_backend() == "cpu" else "vmap"
    checks.choice("how", how, _HOW)
    if batch_bytes is not None:
        batch_bytes = checks.real("batch_bytes", batch_bytes, above=0.0)
    one_word = isinstance(theta_inits, str)
    bases_of: Any = [theta_inits] * len(sources) if one_word else theta_inits
    seeds: Any = [seed] * len(sources) if np.ndim(seed) == 0 else seed
    each = zip(
        sources,
        _one_each("bases", bases, sources),
        _one_each("theta_inits", bases_of, sources),
        _one_each("seed", seeds, sources),
        strict=True,
    )
    requests = [
        check_request(
            source,
            entry,
            rank=rank,
            norm_bound=norm_bound,
            ridge=ridge,
            penalty=penalty,
            init=init,
            basis=basis,
            theta_init=theta_init,
            max_iterations=max_iterations,
            tol=tol,
            seed=number,
        )
        for source, basis, theta_init, number in each
    ]
    if how == "loop" or not isinstance(entry.run, Kernel):
        return [run_request(entry, request) for request in requests]
    return _in_batches(entry, entry.run, requests, batch_bytes)


def _one_each(name: str, values: Sequence | None, sources: list) -> Sequence:
    if values is None:
        return [None] * len(sources)
    checks.require(
        len(values) == len(sources),
        f"{name} has {len(values)} entries for {len(sources)} sources; give one for each",
    )
    return values


def _in_batches(
    entry: Estimator, kernel: Kernel, requests: list[Request], batch_bytes: float | None
) -> list[FitResult]:
    devices = jax.local_devices()
    mesh = Mesh(np.asarray(devices), ("batch",))
    limit = batch_bytes or min(_usable_bytes(device) for device in devices)
    requests = _with_bases([with_rank(entry, request) for request in requests], batch_bytes)
    results: dict[int, FitResult] = {}
    with numerics.float64_scope():
        for members in _alike(kernel, requests):
            most = int(limit // kernel.memory(members[0].problem))
            size = _batch_size(len(members), len(devices), most)
            for first in range(0, len(members), size):
                batch = members[first : first + size]
                for member, solved in zip(batch, _solve(kernel, batch, size, mesh), strict=True):
                    outcome = kernel.outcome(member.request, solved)
                    results[member.place] = result_of(entry, member.request, outcome)
    return [
        results[place] if place in results else run_request(entry, request)
        for place, request in enumerate(requests)
    ]


def _with_bases(requests: list[Request], batch_bytes: float | None) -> list[Request]:
    """The requests with their base rewards, those still to be fitted fitted as a batch."""
    waiting = [place for place, request in enumerate(requests) if request.waits_for_base]
    if not waiting:
        return requests
    entry = ESTIMATORS["global"]
    assert isinstance(entry.run, Kernel)
    wanted = [base_request(requests[place]) for place in waiting]
    done = list(requests)
    for place, base in zip(
        waiting, _in_batches(entry, entry.run, wanted, batch_bytes), strict=True
    ):
        done[place] = based_on(requests[place], base)
    return done


def _alike(kernel: Kernel, requests: list[Request]) -> Iterator[list[_Member]]:
    """Problems of one shape, two or more; what a kernel does not take is left out."""
    groups: dict[tuple, list[_Member]] = {}
    for place, request in enumerate(requests):
        problem = host_problem(request.source)
        if not kernel.takes(problem, request.n_users):
            continue
        start = kernel.start(request)
        shapes = (problem.rows.shape, getattr(start, "shape", None), request.base is None)
        key = (kernel.model(request), shapes, problem.users.tobytes())
        groups.setdefault(key, []).append(_Member(place, request, problem, start))
    yield from (members for members in groups.values() if len(members) > 1)


def _batch_size(count: int, n_devices: int, most: int) -> int:
    """Problems in a batch: a rung of 1, 2, 3, 4, 6, 8, 12 ... for each device, at most `most`."""
    rungs = sorted({1, *(2**p * m // 2 for p in range(1, 31) for m in (2, 3))})
    wanted = rungs[bisect.bisect_left(rungs, -(-count // n_devices))]
    possible = rungs[bisect.bisect_right(rungs, max(most, 1)) - 1]
    return n_devices * min(wanted, possible)


def _solve(kernel: Kernel, batch: list[_Member], size: int, mesh: Mesh) -> list[Solved]:
    """Solve a batch, filled up to `size` by its last problem: a copy waits for nobody else."""
    filled = batch + [batch[-1]] * (size - len(batch))
    first = batch[0]
    split, whole = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())

    def stack(arrays: Iterable[Any]) -> jax.Array | None:
        arrays = list(arrays)
        return None if arrays[0] is None else jax.device_put(np.stack(arrays), split)

    arrays: list[Any] = [
        stack(parts) for parts in zip(*(m.problem[:3] for m in filled), strict=True)
    ]
    solved = jax.device_get(
        solve_batch(
            Problem(*arrays, *(jax.device_put(array, whole) for array in first.problem[3:])),
            stack(member.request.base for member in filled),
            stack(member.start for member in filled),
            limits_of(first.request),
            solve=kernel.solve,
            model=kernel.model(first.request),
            mesh=mesh,
        )
    )
    leaves, tree = jax.tree.flatten(solved)
    return [tree.unflatten(leaf[i] for leaf in leaves) for i in range(len(batch))]


def _usable_bytes(device: Any) -> float:
    """What a batch may take on a device."""
    memory = device.memory_stats() or {}
    return _MEMORY_SHARE * memory["bytes_limit"] if "bytes_limit" in memory else _DEFAULT_BYTES
