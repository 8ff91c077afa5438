"""An estimator of the user's own: a function in the place of a name.

```python
def halved(request):                    # shrink the pooled fit by one half
    pooled = sim.fit(request.source, "global", theta_init=request.theta_init)
    return 0.5 * pooled.delta

result = sim.fit(prefs, halved, rank=4)
```
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks
from simrlhf.core.links import Link
from simrlhf.estimators.estimator import Estimator, Outcome, Request, both_sides
from simrlhf.estimators.problem import PreferenceSource, Problem, rewards_of
from simrlhf.estimators.result import FreeFactors


def custom_estimator(function: Callable[[Request], np.ndarray | Outcome]) -> Estimator:
    """An entry that runs `function`.

    Where it returns deviations `(N, d1, d2)` alone, the fit is UNCERTIFIED: it has their likelihood
    and their top-k space, and no gradient. An `Outcome` is taken as it is.

    Raises:
        InputError: what the function returns has another shape, or is not finite.
    """
    name = getattr(function, "__name__", type(function).__name__)

    def run(request: Request) -> Outcome:
        answer = function(request)
        checks.require(
            (answer is not None and not hasattr(answer, "delta")) or isinstance(answer, Outcome),
            f"{name} returned {type(answer).__name__}, expected (N, d1, d2) deviations (the .delta "
            "of a fit) or a simrlhf.estimators.Outcome",
        )
        if isinstance(answer, Outcome):
            return answer
        delta = checks.numbers(f"what {name} returned", answer)
        shape = (request.n_users, request.source.d1, request.source.d2)
        checks.shape(f"what {name} returned", delta, shape, remedy="(N, d1, d2) deviations")
        checks.finite(f"what {name} returned", delta)
        loss = float(mean_loss(request.problem, jnp.asarray(delta), request.link))
        longest = float(np.linalg.norm(delta, axis=(1, 2)).max())
        outside = longest > request.radius * (1 + 1e-9)
        return Outcome(
            delta=delta,
            basis=None,
            factors=FreeFactors(delta),
            multipliers=np.zeros(request.n_users),
            loss=loss,
            gradient=float("nan"),
            stalled=False,
            iterations=0,
            data_passes=0.0,
            neg_log_likelihood=loss,
            note=f"the largest norm {longest:.4g} exceeds norm_bound = {request.radius:g}"
            if outside
            else "",
        )

    return Estimator(
        name, "A function of yours.", "yours", run, rank_limit=_any_rank, side=both_sides
    )


def _any_rank(source: PreferenceSource) -> int:
    """What a rank counts is the function's own: directions, users, groups."""
    return max(source.d1 * source.d2, source.n_users * source.d2)


def mean_loss(problem: Problem, delta: jax.Array, link: Link) -> jax.Array:
    """Weighted mean loss per pair of deviations `(N, d1, d2)`. One data pass."""
    rewards = rewards_of(problem, delta) + problem.offsets
    losses = problem.weights * link.loss(rewards, problem.labels)
    return losses.sum() / problem.weights.sum()
