"""What a plan finds by drawing: S2 on designs and on fits, and the errors of fits, over n."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from simrlhf import theory
from simrlhf.study import plan_draws
from simrlhf.study.plan_draws import Drawing
from simrlhf.study.plan_formulas import Answer, Limits, Status, Target, largest_norm
from simrlhf.study.store import FAILED
from simrlhf.world import WorldConfig

FITTED = ("share_b", "full")
FITTED_LEVELS = ("bregman", "a_posteriori")
_A_PRIORI = "S2 a priori"

Progress = Callable[[int, int, str], None]


class _Search(NamedTuple):
    """A question answered by trying n: `value(n)` is a median over the worlds, `start` a guess."""

    kind: str
    statement: str
    estimator: str
    value: Callable[[int], float]
    start: float | None = None


def searched_answers(
    drawing: Drawing, targets: list[Target], limits: Limits, *, fits: bool, progress: Progress
) -> dict[Target, list[Answer]]:
    """S2 and the measured errors, each at an n from which the target stays met.

    The rule is that of `lasting_sample`, with `size` the parameters per user of the class.

    Args:
        limits: where the search for a measured error begins.
        fits: whether to fit; without fits only S2 a priori is asked.
        progress: told before every n how many searches are done, how many there are, and the n.
    """
    jobs = [
        (target, search)
        for target in targets
        for search in [
            *_bound_searches(drawing, target, fits=fits),
            *(_fit_searches(drawing, target, limits) if fits else []),
        ]
    ]
    answers: dict[Target, list[Answer]] = {target: [] for target in targets}
    for done, (target, search) in enumerate(jobs):

        def tell(n_pairs: int, search: _Search = search, done: int = done) -> None:
            said = f"{search.statement} {search.estimator}, n = {n_pairs}"
            progress(done, len(jobs), said)

        answers[target].append(_answer(search, target, drawing, tell))
    progress(len(jobs), len(jobs), "drawn")
    return answers


def lasting_sample(
    value: Callable[[int], float],
    target: float,
    candidates: Sequence[int],
    *,
    size: float = 0.0,
    start: float | None = None,
) -> int | None:
    """Candidate n from which a curve that falls on the whole stays at most `target`.

        value(m) <= target  for all candidates m = n .. 2 max(n, size), and above it just before n

    Bisection proposes n, the candidates after it are tried in ascending order, and behind the first
    that fails bisection goes on. Errors of fits need this: they rise to a peak where the class can
    just reproduce all labels, at `n = size` under the identity link and, were the labels coins,
    about `2 size` under the logistic one (Cover 1965), and few worlds leave ripples. Fails when the
    curve crosses the target again beyond `2 max(n, size)`; and it is not a scan: where the curve
    rises in between, a smaller n may meet the condition too.

    Args:
        value: of n; NaN counts as above any target.
        target: positive.
        candidates: ascending and positive; nothing is checked beyond the last one.
        size: parameters per user of the class (`parameters_per_user`).
        start: as in `theory.smallest_sample`.

    Returns:
        n, or `None`, and then the last candidate does not meet the target.
    """
    found = theory.smallest_sample(value, target, candidates, start=start)
    while found is not None:
        behind = bisect.bisect_right(candidates, found)
        end = bisect.bisect_right(candidates, 2.0 * max(found, size))
        failed = next((i for i in range(behind, end) if not value(candidates[i]) <= target), None)
        if failed is None:
            return found
        rest = candidates[failed + 1 :]
        found = theory.smallest_sample(value, target, rest, start=rest[0]) if rest else None
    return None


def parameters_per_user(config: WorldConfig, estimator: str) -> float:
    """Dimension of the class of `share_b` or `full`, divided by the number of users.

    full: d1 d2;   share_b: k (d1 - k) / N + k d2,   a basis up to rotation, and factors
    """
    if estimator == "full":
        return float(config.d1 * config.d2)
    return config.rank * ((config.d1 - config.rank) / config.n_users + config.d2)


def _bound_searches(drawing: Drawing, target: Target, *, fits: bool) -> list[_Search]:
    def a_priori(n_pairs: int) -> float:
        return target.scale * plan_draws.a_priori_bound(drawing, n_pairs)

    def of_fits(n_pairs: int, level: str) -> float:
        return target.scale * _median(drawing, n_pairs, "share_b", f"s2_{level}")

    searches = [_Search("proved", _A_PRIORI, "share_b", a_priori)]
    for level in FITTED_LEVELS if fits else ():
        name = f"S2 {level.replace('_', ' ')}"
        searches.append(_Search("proved", name, "share_b", partial(of_fits, level=level)))
    return searches


def _fit_searches(drawing: Drawing, target: Target, limits: Limits) -> list[_Search]:
    searches, count = [], drawing.repetitions
    statement = f"{count} fits" if count > 1 else "1 fit"
    for name in FITTED:
        value = partial(_median, drawing, estimator=name, column=target.name)
        # full has no limit of its distance here; share_b's is a guess for it too
        trace = limits.traces.get("subspace" if target.name == "subspace_distance" else name)
        start = None if trace is None else trace / target.value**2
        searches.append(_Search("measured", statement, name, value, start))
    return searches


def _median(drawing: Drawing, n_pairs: int, estimator: str, column: str) -> float:
    """Median of a column over the fits that did not fail; NaN where all did."""
    rows = plan_draws.fit_rows(drawing, n_pairs, estimator)
    values = [row[column] for row in rows if row["status"] != FAILED]
    return float(np.median(values)) if values else math.nan


def _answer(
    search: _Search, target: Target, drawing: Drawing, tell: Callable[[int], None]
) -> Answer:
    start = (search.kind, search.statement, search.estimator)
    refused = _refused(drawing) if search.statement == _A_PRIORI else None
    if refused is not None:
        return Answer(*start, None, *refused)

    def value(n_pairs: int) -> float:
        tell(n_pairs)
        return search.value(n_pairs)

    size = parameters_per_user(drawing.config, search.estimator)
    n_pairs = lasting_sample(value, target.value, drawing.candidates, size=size, start=search.start)
    # short of the peak at `size` nothing tells whether the target stays met
    if n_pairs is not None and size <= drawing.largest:
        return Answer(*start, n_pairs, "REACHED", value=search.value(n_pairs))
    found = search.value(drawing.largest)
    remark = _shortfall(search, target, drawing, found)
    return Answer(*start, None, "NOT_REACHED", remark, found)


def _refused(drawing: Drawing) -> tuple[Status, str] | None:
    """Why S2 a priori says nothing at any n."""
    radius, norm = drawing.norm_bound, largest_norm(drawing.worlds)
    # worlds that were asked for this very R meet it up to rounding
    if radius is not None and norm > radius * (1.0 + 1e-9):
        return "NOT_APPLICABLE", f"norms up to {norm:.3g}"
    link = drawing.worlds[0].link
    if not link.is_log_concave:
        return "NOT_APPLICABLE", "not log-concave"
    floor = theory.curvature_floor(link, margin=math.inf)
    if radius is None and floor == 0.0:
        return "NONE", "needs a norm bound"
    flat = theory.curvature_floor(link, margin=1.0) == 0.0
    return ("NONE", "no curvature") if flat else None


def _shortfall(search: _Search, target: Target, drawing: Drawing, found: float) -> str:
    """What there is to say of a target that was not met at the largest n, or met too early."""
    size = drawing.config.d1 * drawing.config.d2
    if math.isnan(found):
        return "every fit failed"
    if search.statement == _A_PRIORI and drawing.largest < size:
        return f"needs n >= {size:,}"
    if found <= target.value:
        return f"needs n >= {math.ceil(parameters_per_user(drawing.config, search.estimator)):,}"
    return "vacuous" if search.kind == "proved" and found >= target.ceiling else ""
