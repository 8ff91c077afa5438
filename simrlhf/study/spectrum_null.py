"""Do users share structure beyond one reward for all? The spectrum of their scores against chance.

At the pooled reward `Theta_0` (the `global` fit) user `i` has the score

    G_i = sum_j w_j (E[y | z_j] - y_j) x_j,   z_j = <Theta_0, x_j>,

and `G = [G_1 ... G_N]` in `R^{d1 x N d2}` adds up to zero over users. If the users differ along `k`
shared directions, `G` has `k` singular values above noise; where they differ by much, `Theta_0`'s
own direction may join them, for a user of strong opinions has a smaller slope of the link. Features
are whitened by the pooled information first, rows and columns apart (which keeps the rank of `G`
and frees the spectrum from the features' units); residuals are scaled to their information, so
that at `d2 = 1` noise gives singular values around 1.

Two nulls, both with the pooled reward kept. Neither is right for all data, so a direction counts
only where it exceeds both:

* *rows permuted*: rows (a pair with its residual) are dealt out anew among the users who answered
  the same pair; rows of pairs that one user answered, among the users of their group (topic); rows
  of groups of one user, among each other. Exact, at any size, where given the pair, or the group,
  chance decides who answers, and weights are of one kind. Users' own kinds of pairs can make it
  reject too often (N = 20 users with 40 pairs each, d1 = 6, features of a scale of each user's own,
  log-normal with standard deviation 1: .13 at level .05).
* *signs flipped*: every user keeps the own pairs and weights, the residuals of every pair get a
  random sign, and the pooled part is removed again. Right whatever the users see, for many pairs;
  residuals are divided by one minus their leverage (as in HC3), which makes it cautious with few.

Both keep together what belongs to a pair. A pair that its features do not explain leans the same
way for all who answered it, which looks like sharing. With 30 users in 6 teams, each team with some
130 pairs of its own and a quirk of standard deviation 3 in each pair (d1 = 6), permuting all rows
and flipping them one by one found sharing in 22 of 100 data sets without any; this test does in
none, and with quirks of 1.5 it finds a true direction nearly as often (56 against 63 of 100).

Directions are tested one after the other, as in deflated parallel analysis (Dobriban and Owen,
JRSS B 81, 2019): value `k + 1` is compared with the top singular value of the null after the first
`k` observed left and right directions are projected out of it.

What shows here predicts labels linearly and differs between users. Where every group has one user,
a user cannot be told from a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse

from simrlhf.core import checks, links, numerics, streams
from simrlhf.data.preferences import Preferences

LEVEL = 0.05
# the smallest p-value is 1 / (1 + permutations)
FEWEST_PERMUTATIONS = 19
MOST_STEPS = 10
_NEGLIGIBLE = 1e-10
# null draws are kept between steps up to this size, and drawn again beyond it
_KEPT_BYTES = 1 << 29
_LARGEST_LEVERAGE = 0.95

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class SpectrumNull:
    """The observed spectrum, its nulls, and the rank that stands out.

    Attributes:
        singular_values: of `G`, falling, in whitened units.
        thresholds: `(steps,)` for each value tested, what it must exceed: the larger of the nulls'.
        p_values: `(steps,)` the larger of the two, `(1 + exceeding) / (1 + permutations)`.
        p_values_each: `(steps, 2)` rows permuted, signs flipped.
        rank: values that exceed both nulls, counted from the first until one does not; at most 10
            are tested.
        n_traded: `(3,)` rows permuted within their pair, within their group, and among the rest.
    """

    singular_values: np.ndarray
    thresholds: np.ndarray
    p_values_each: np.ndarray
    rank: int
    n_traded: tuple[int, int, int]

    @property
    def p_values(self) -> np.ndarray:
        return self.p_values_each.max(axis=1)


class _Scores(NamedTuple):
    """Rows as the nulls use them.

    Attributes:
        rows: `(P, r1 r2)` whitened features, `shape` = `(r1, r2)`.
        residuals: `(P,)` weighted, with what is left of the pooled part removed.
        cautious: `(P,)` residuals over one minus their leverage.
        curvatures: `(P,)` weighted Fisher information about the reward difference.
        inverse: `(r1 r2, r1 r2)` of the pooled information.
        offsets: `(N + 1,)` rows of each user.
    """

    rows: np.ndarray
    shape: tuple[int, int]
    residuals: np.ndarray
    cautious: np.ndarray
    curvatures: np.ndarray
    inverse: np.ndarray
    offsets: np.ndarray


class _Null(NamedTuple):
    """What is kept of a null `G`: `G G'` and `G V`, for observed right directions `V`."""

    gram: np.ndarray
    image: np.ndarray


_Draws = Callable[[], Iterable[tuple[_Null, _Null]]]


def spectrum_against_null(
    preferences: Preferences,
    pooled: np.ndarray,
    *,
    pair: np.ndarray | None = None,
    permutations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> SpectrumNull:
    """Compare the spectrum of the users' scores at a pooled reward with both nulls (see above).

    Args:
        preferences: the pairs.
        pooled: `(d1, d2)` reward fitted to all users together.
        pair: `(P,)` number of the pair that each row asks, the same in both orders; by default
            every row is a pair of its own.
        permutations: draws of each null, at least 19.
        progress: called as `progress(done, total)`, draws of the step under way.

    Raises:
        InputError: fewer than two users, fewer than two pairs for each parameter of the pooled
            reward (its residuals then say little), or labels that it explains without a rest.
    """
    permutations = checks.integer("permutations", permutations, low=FEWEST_PERMUTATIONS)
    checks.shape("pooled", pooled, (preferences.d1, preferences.d2))
    if pair is None:
        pair = np.arange(preferences.n_total)
    checks.shape("pair", pair, (preferences.n_total,), remedy="one number for each row")
    pair = np.unique(pair, return_inverse=True)[1]
    strata, n_traded = _strata(preferences, pair)
    scores = _score_rows(preferences, pooled)
    observed = _stack(scores, scores.residuals)
    wide = observed.shape[0] <= observed.shape[1]  # nulls keep the Gram matrix of the short side
    left, values, right = np.linalg.svd(observed if wide else observed.T, full_matrices=False)
    left, right = left[:, :MOST_STEPS], right[:MOST_STEPS].T

    def draws() -> Iterator[tuple[_Null, _Null]]:
        for index in range(permutations):
            rng = streams.generator(seed, "spectrum null", index)
            permuted, flipped = (
                _Null(null @ null.T, null @ right)
                for stacked in (_permuted(scores, strata, rng), _flipped(scores, pair, rng))
                for null in [stacked if wide else stacked.T]
            )
            yield permuted, flipped
            if progress:
                progress(index + 1, permutations)

    numbers = 2 * permutations * len(left) * (len(left) + MOST_STEPS)
    kept = list(draws()) if 8 * numbers <= _KEPT_BYTES else None
    thresholds, p_values = _test_in_turn(values, left, lambda: kept or draws())
    significant = p_values.max(axis=1) <= LEVEL
    return SpectrumNull(
        singular_values=values,
        thresholds=thresholds,
        p_values_each=p_values,
        rank=int(significant.sum()),
        n_traded=n_traded,
    )


def require_enough(preferences: Preferences, n_features: int) -> None:
    """Refuse fewer than two users, or two pairs for each of the `n_features` that differ."""
    checks.require(preferences.n_users >= 2, "the spectrum needs two users, got 1")
    checks.require(n_features > 0, "all features are zero")
    checks.require(
        preferences.n_total >= 2 * n_features,
        f"{preferences.n_total} pairs for {n_features} features, at least two pairs for each "
        "feature are needed; reduce the features or bring more pairs",
    )


def _test_in_turn(
    values: np.ndarray, left: np.ndarray, draws: _Draws
) -> tuple[np.ndarray, np.ndarray]:
    """Test value after value until one is not significant: thresholds `(s,)`, p-values `(s, 2)`."""
    thresholds, p_values = [], []
    size = int((values > _NEGLIGIBLE * values[0]).sum())
    for rank in range(min(size, MOST_STEPS)):
        tops = np.array([[_top_without(null, left, rank) for null in both] for both in draws()])
        exceeding = (tops >= values[rank] * (1 - _NEGLIGIBLE)).sum(axis=0)
        p_values.append((1 + exceeding) / (1 + len(tops)))
        # a value above the k-th largest draw has p <= LEVEL, k = LEVEL (1 + draws) rounded down
        largest = int(LEVEL * (1 + len(tops)))
        thresholds.append(np.sort(tops, axis=0)[-largest].max())
        if p_values[-1].max() > LEVEL:
            break
    return np.array(thresholds), np.array(p_values).reshape(-1, 2)


def _strata(preferences: Preferences, pair: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Which rows trade places `(P,)`; and how many within pairs, within groups, among the rest."""
    users = preferences.users
    of_pair = _of_many_users(pair, users, np.ones(users.size, bool))
    of_group = np.zeros(users.size, bool)
    strata = np.where(of_pair, pair, -1)
    if preferences.groups is not None:
        group = np.unique(preferences.groups, return_inverse=True)[1]
        of_group = _of_many_users(group, users, ~of_pair)
        strata[of_group] = users.size + group[of_group]
    n_pair, n_group = int(of_pair.sum()), int(of_group.sum())
    return strata, (n_pair, n_group, users.size - n_pair - n_group)


def _of_many_users(names: np.ndarray, users: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Rows of `among` whose name occurs there with two users or more."""
    met = np.unique(np.stack([names, users], axis=1)[among], axis=0)[:, 0]
    return among & (np.bincount(met, minlength=names.max() + 1) >= 2)[names]


def _score_rows(preferences: Preferences, pooled: np.ndarray) -> _Scores:
    link = links.get_link(preferences.link)
    x, weights, labels = preferences.features, preferences.weights, preferences.labels
    with numerics.float64_scope():
        reward = jnp.asarray(np.einsum("pab,ab->p", x, pooled))
        residuals = weights * np.asarray(link.loss_slope(reward, jnp.asarray(labels)))
        blank = weights * np.asarray(link.loss_slope(jnp.zeros_like(reward), jnp.asarray(labels)))
        curvatures = weights * np.asarray(link.information(reward))
    left = _inverse_root(np.einsum("p,pab,pcb->ac", curvatures, x, x, optimize=True))
    right = _inverse_root(np.einsum("p,pab,pac->bc", curvatures, x, x, optimize=True))
    shape = (left.shape[1], right.shape[1])
    n_features = shape[0] * shape[1]
    require_enough(preferences, n_features)
    rows = np.einsum("ar,pab,bs->prs", left, x, right, optimize=True).reshape(len(x), -1)
    rows = rows * np.sqrt(n_features / (curvatures @ np.einsum("pr,pr->p", rows, rows)))
    root = _inverse_root((rows * curvatures[:, None]).T @ rows)
    scores = _Scores(
        rows, shape, residuals, residuals, curvatures, root @ root.T, preferences.offsets
    )
    residuals = _remove_pooled(scores, residuals)
    checks.require(
        bool(np.linalg.norm(residuals) > _NEGLIGIBLE * np.linalg.norm(blank)),
        "one reward for all explains every label, nothing is left that could differ",
    )
    residuals = residuals * np.sqrt(curvatures.sum() / (residuals @ residuals))
    leverages = curvatures * np.einsum("pr,pr->p", rows @ scores.inverse, rows)
    cautious = residuals / (1 - np.minimum(leverages, _LARGEST_LEVERAGE))
    return scores._replace(residuals=residuals, cautious=cautious)


def _inverse_root(moment: np.ndarray) -> np.ndarray:
    """`(d, r)` with `root root'` the pseudo-inverse of a moment matrix."""
    values, vectors = np.linalg.eigh(moment)
    keep = values > _NEGLIGIBLE * values[-1]
    return vectors[:, keep] / np.sqrt(values[keep])


def _remove_pooled(scores: _Scores, residuals: np.ndarray) -> np.ndarray:
    """Take one Newton step of the pooled reward out of the residuals: their sum becomes zero."""
    step = scores.inverse @ (scores.rows.T @ residuals)
    return residuals - scores.curvatures * (scores.rows @ step)


def _stack(scores: _Scores, values: np.ndarray, taken: np.ndarray | None = None) -> np.ndarray:
    """`G` `(r1, N r2)` of weighted rows; position `j` holds row `taken[j]` (its own by default)."""
    n_users, n_rows = len(scores.offsets) - 1, len(values)
    columns = np.arange(n_rows) if taken is None else taken
    by_user = scipy.sparse.csr_array((values, columns, scores.offsets), shape=(n_users, n_rows))
    stacked = (by_user @ scores.rows).reshape(n_users, *scores.shape)
    return stacked.transpose(1, 0, 2).reshape(scores.shape[0], -1)


def _permuted(scores: _Scores, strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    taken = np.empty(strata.size, int)
    taken[np.argsort(strata, kind="stable")] = np.lexsort((rng.random(strata.size), strata))
    return _stack(scores, scores.residuals[taken], taken)


def _flipped(scores: _Scores, pair: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    signs = rng.choice(np.array([-1.0, 1.0]), pair.max() + 1)[pair]
    return _stack(scores, _remove_pooled(scores, signs * scores.cautious))


def _top_without(null: _Null, left: np.ndarray, rank: int) -> float:
    """Top singular value of a null `G` without the first observed directions on either side."""
    u, image = left[:, :rank], null.image[:, :rank]
    gram = null.gram - image @ image.T
    gram = gram - u @ (u.T @ gram)
    gram = gram - (gram @ u) @ u.T
    last = len(gram) - 1
    top = scipy.linalg.eigvalsh(gram, subset_by_index=[last, last])[0]
    return float(max(top, 0.0) ** 0.5)
