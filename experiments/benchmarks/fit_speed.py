"""How long `share_b` takes to a certified optimum, beside scipy on the same problem.

Run: python experiments/benchmarks/fit_speed.py

Prints, for each norm bound: warm median and range of the whole call `fit(...)` over the seeds,
compilation apart, data passes and the certificate; and scipy's L-BFGS-B with analytic gradients
from the same spectral start, alternating with it in this process. Only `norm_bound=None` has a
scipy side: L-BFGS-B knows boxes, not balls.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import numpy as np
import scipy.optimize
from scipy.special import expit

import simrlhf as sim
from simrlhf.core import numerics

SIZES = {"n_users": 32, "d1": 64, "d2": 1, "rank": 4}
N_PAIRS, NORM = 200, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=5, help="timed calls per seed")
    arguments = parser.parse_args()
    numerics.configure(cache=False)
    print(f"device {jax.devices()[0].device_kind}, jax {jax.__version__}, float64")
    print(f"{SIZES}, n = {N_PAIRS}, ||Delta_i|| = {NORM:g}, tol 1e-8, {arguments.seeds} seeds")
    samples = [_sample(seed) for seed in range(arguments.seeds)]
    for bound in (None, 4.0, 2.2):
        started = time.perf_counter()
        _fit(samples[0], bound)
        first = time.perf_counter() - started
        results, ours, theirs, losses = [], [], [], []
        for sample in samples:
            for _ in range(arguments.calls):
                started = time.perf_counter()
                result = _fit(sample, bound)
                ours.append(1e3 * (time.perf_counter() - started))
                if bound is None:
                    started = time.perf_counter()
                    loss = _scipy(sample)
                    theirs.append(1e3 * (time.perf_counter() - started))
            results.append(result)
            if bound is None:
                losses.append(loss - result.neg_log_likelihood)
        print(
            f"R = {bound}: first call {first:.2f} s; warm median {statistics.median(ours):.1f} ms "
            f"(min {min(ours):.1f}, max {max(ours):.1f}); passes median "
            f"{statistics.median(r.data_passes for r in results):.0f}, max "
            f"{max(r.data_passes for r in results):.0f}; largest KKT residual "
            f"{max(r.gradient_norm for r in results):.1e}; {_statuses(results)}"
        )
        if bound is None:
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
            print(
                f"    scipy L-BFGS-B: median {statistics.median(theirs):.1f} ms, {ratio:.2f} times "
                f"ours; its mean NLL minus ours: {min(losses):+.1e} to {max(losses):+.1e}"
            )


def _sample(seed: int) -> sim.Preferences:
    # equal norms: ||Delta_i||^2 is the mean of the squared singular values over users
    shape = np.geomspace(2.0, 1.0, SIZES["rank"])
    nu = NORM**2 / float(np.sum(shape**2))
    world = sim.make_world(
        sim.WorldConfig(**SIZES, nu=nu, condition=2.0, user_norms="equal"), seed=seed
    )
    return sim.sample_preferences(world, N_PAIRS, seed=seed)


def _fit(preferences: sim.Preferences, bound: float | None) -> sim.FitResult:
    return sim.fit(preferences, "share_b", rank=SIZES["rank"], norm_bound=bound, tol=1e-8)


def _statuses(results: list[sim.FitResult]) -> str:
    names = [result.status.name for result in results]
    return ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))


def _scipy(preferences: sim.Preferences) -> float:
    """Joint L-BFGS-B over `(B, W)` with analytic gradients; returns the mean loss it reaches."""
    d, k, users = SIZES["d1"], SIZES["rank"], SIZES["n_users"]
    x = preferences.features[:, :, 0].reshape(users, N_PAIRS, d)
    y = preferences.labels.reshape(users, N_PAIRS)
    score = np.einsum("und,un->ud", x, y - 0.5)
    basis = np.linalg.svd(score.T, full_matrices=False)[0][:, :k]
    flat, total = x.reshape(-1, d), y.size

    def objective(vector: np.ndarray) -> tuple[float, np.ndarray]:
        b, w = vector[: d * k].reshape(d, k), vector[d * k :].reshape(users, k)
        projected = (flat @ b).reshape(users, N_PAIRS, k)
        z = np.einsum("unk,uk->un", projected, w)
        slope = (expit(z) - y) / total
        to_w = np.einsum("unk,un->uk", projected, slope)
        to_b = flat.T @ (slope[:, :, None] * w[:, None, :]).reshape(-1, k)
        loss = np.logaddexp(0.0, z).sum() - (y * z).sum()
        return loss / total, np.concatenate([to_b.ravel(), to_w.ravel()])

    start = np.concatenate([basis.ravel(), np.zeros(users * k)])
    # the tolerances that the fit is held to; scipy stops earlier where its line search ends
    options = {"maxiter": 2000, "gtol": 1e-8, "ftol": 1e-16}
    return float(
        scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options).fun
    )


if __name__ == "__main__":
    main()
