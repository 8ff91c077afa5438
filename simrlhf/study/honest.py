"""The honest evaluation on real data: whole groups held out, nothing chosen on the test groups.

Each of several random splits deals the groups (topics) into training, validation and test. Features
are learned from the training groups; rank and ridge minimise the mean over users of the held-out
negative log-likelihood on the validation groups; the chosen setting is fitted once more to training
and validation groups together, with the features as they are, and scored per user on the test
groups. The same protocol serves shipped data sets and users' own files.

Every fit of a split reads the same pairs with other weights (0 for a held-out pair), so kernels
are compiled once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from simrlhf.core import checks
from simrlhf.data import text
from simrlhf.data.preferences import Preferences
from simrlhf.data.tables import PairTable
from simrlhf.estimators import ESTIMATORS, FitResult, fit
from simrlhf.study import honest_splits as splits
from simrlhf.study.honest_arena import Arena, learn_features, make_arena, part_sizes
from simrlhf.study.honest_settings import (
    REFERENCE,
    HonestSettings,
    Setting,
    candidates,
    choose_lineup,
)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class HonestEvaluation:
    """What the protocol found.

    Attributes:
        per_user: one row for each (split, estimator, user): the pairs `n_fitted` and `n_test`,
            `accuracy` and `nll` (negative log-likelihood per pair) on the test groups.
        choices: one row for each (split, estimator, rank, ridge) tried: `validation_nll`,
            `status`, whether it was `chosen`, and the `final_status` of the fit that was scored.
        splits: one row for each split: groups and pairs of each part, users fitted and scored.
        same_as: estimators that are another one on these data, by name.
        notes: sentences that belong under every table of these numbers.
        settings: what was asked for.
    """

    per_user: pd.DataFrame
    choices: pd.DataFrame
    splits: pd.DataFrame
    same_as: dict[str, str]
    notes: tuple[str, ...]
    settings: HonestSettings


class _Competition(NamedTuple):
    """An estimator in one split: the grid tried, its best fit to training, and the final fit."""

    tried: pd.DataFrame
    best: FitResult
    final: FitResult


class _Bases(NamedTuple):
    """`theta_init` for fits to training, and for final fits."""

    train: np.ndarray | None = None
    final: np.ndarray | None = None


def evaluate_honestly(
    table: PairTable, settings: HonestSettings | None = None, *, progress: Progress | None = None
) -> HonestEvaluation:
    """Run the protocol (see the module) on a table of real comparisons.

    Args:
        progress: called as `progress(done, total, sentence)`; one unit is an estimator in a split.

    Raises:
        InputError: fewer than three groups, or fewer than two users with enough pairs in a split.
    """
    settings = settings or HonestSettings()
    units = splits.split_units(table)
    names, same_as = choose_lineup(table, settings)
    total = settings.n_splits * len(names)
    scores, choices, sizes = [], [], []
    for split in range(settings.n_splits):
        part = splits.draw_parts(
            units, fractions=settings.fractions, seed=settings.seed, split=split
        )
        arena = make_arena(
            table,
            part,
            dimensions=settings.dimensions,
            min_train=settings.min_train,
            min_test=settings.min_test,
        )
        sizes.append({"split": split, **part_sizes(units, part, arena)})
        bases = _Bases()
        for place, name in enumerate(names):
            if progress:
                sentence = f"split {split + 1} of {settings.n_splits}: {name}"
                progress(split * len(names) + place, total, sentence)
            won = _compete(arena, name, settings, bases)
            if name == REFERENCE and settings.base == REFERENCE:
                bases = _Bases(common_reward(won.best), common_reward(won.final))
            choices.append(won.tried.assign(split=split, estimator=name))
            scores.append(_scores(arena, won.final).assign(split=split, estimator=name))
    if progress:
        progress(total, total, f"{settings.n_splits} splits done")
    return HonestEvaluation(
        per_user=_joined(scores, same_as),
        choices=_joined(choices, same_as),
        splits=pd.DataFrame(sizes),
        same_as=same_as,
        notes=_notes(settings, units, same_as, sizes),
        settings=settings,
    )


def fit_chosen(
    table: PairTable, evaluation: HonestEvaluation, estimator: str
) -> tuple[FitResult, text.TextFeatures | np.ndarray]:
    """Fit an estimator to the whole table at the setting that validation liked best.

    That is the rank and ridge of the least validation loss, averaged over the splits. No held-out
    number belongs to this fit: it is the model to use, not to judge.

    Returns:
        The fit, and the features it reads: those of texts, or the scales `(d1, d2)` by which
        numeric features are divided first.
    """
    settings = evaluation.settings
    name = evaluation.same_as.get(estimator, estimator)
    everything = np.ones(table.n_pairs, bool)
    learned = learn_features(table, everything, dimensions=settings.dimensions)
    pairs = learned.pairs(everything)
    base = None
    if settings.base == REFERENCE and name != REFERENCE:
        pooled = _fit(pairs, REFERENCE, best_setting(evaluation, REFERENCE), None, settings)
        base = common_reward(pooled)
    return _fit(pairs, name, best_setting(evaluation, name), base, settings), learned.features


def best_setting(evaluation: HonestEvaluation, estimator: str) -> Setting:
    """The setting of least validation loss, averaged over the splits."""
    mine = evaluation.choices[evaluation.choices.estimator == estimator]
    checks.choice("estimator", estimator, sorted(set(evaluation.choices.estimator)))
    means = mine.groupby(["rank", "ridge"], dropna=False).validation_nll.mean()
    rank, ridge = means.idxmin()  # type: ignore[misc]
    return Setting(None if pd.isna(rank) else int(rank), float(ridge))


def common_reward(pooled: FitResult) -> np.ndarray:
    """The reward `(d1, d2)` that a `global` fit gives to every user."""
    return pooled.theta_init + pooled.delta[0]


def _compete(arena: Arena, name: str, settings: HonestSettings, bases: _Bases) -> _Competition:
    grid = candidates(name, arena.train, settings)
    rows, best, chosen = [], None, 0
    for point in grid:
        found = _fit(arena.train, name, point, bases.train, settings)
        loss = float(found.evaluate(arena.validation).neg_log_likelihood.mean())
        if best is None or loss < rows[chosen]["validation_nll"]:
            best, chosen = found, len(rows)
        rows.append({**point._asdict(), "validation_nll": loss, "status": found.status.name})
    assert best is not None
    final = _fit(arena.train_and_validation, name, grid[chosen], bases.final, settings)
    tried = pd.DataFrame(rows).astype({"rank": "Int64"})
    tried = tried.assign(chosen=tried.index == chosen, final_status=final.status.name)
    return _Competition(tried, best, final)


def _fit(
    pairs: Preferences,
    name: str,
    setting: Setting,
    base: np.ndarray | None,
    settings: HonestSettings,
) -> FitResult:
    bounded = "norm_bound" in ESTIMATORS[name].accepts
    return fit(
        pairs,
        name,
        rank=setting.rank,
        ridge=setting.ridge,
        norm_bound=settings.norm_bound if bounded else None,
        theta_init=base,
    )


def _scores(arena: Arena, final: FitResult) -> pd.DataFrame:
    found = final.evaluate(arena.test)
    seen = arena.train_and_validation
    n_fitted = np.bincount(seen.users[seen.weights > 0], minlength=seen.n_users)
    count = dict(zip(seen.user_ids.tolist(), n_fitted.tolist(), strict=True))
    return pd.DataFrame(
        {
            "user_id": arena.test.user_ids,
            "n_fitted": [count[name] for name in arena.test.user_ids.tolist()],
            "n_test": found.n_pairs,
            "accuracy": found.accuracy,
            "nll": found.neg_log_likelihood,
        }
    )


def _joined(parts: list[pd.DataFrame], same_as: dict[str, str]) -> pd.DataFrame:
    """All rows, with those of an estimator repeated under the names that are the same."""
    whole = pd.concat(parts, ignore_index=True)
    copies = [whole[whole.estimator == twin].assign(estimator=n) for n, twin in same_as.items()]
    whole = pd.concat([whole, *copies], ignore_index=True).set_index(["split", "estimator"])
    return whole.reset_index()


def _notes(
    settings: HonestSettings, units: splits.Units, same_as: dict[str, str], sizes: list[dict]
) -> tuple[str, ...]:
    notes = [units.warning] if units.warning else []
    if "oracle" in settings.estimators:
        notes.append("oracle is left out: it needs the true basis, which real data do not have.")
    notes += [
        f"{name} is {twin} on these data (d2 = 1 leaves a rank-1 matrix free, or d1 = 1 leaves "
        f"nothing to share), so its row repeats that of {twin}."
        for name, twin in same_as.items()
    ]
    dropped = [size["users_not_scored"] for size in sizes]
    notes.append(
        f"A user is fitted in a split with at least {settings.min_train} training pairs and scored "
        f"with at least {settings.min_test} test pairs: {min(dropped)} to {max(dropped)} of "
        f"{dropped[0] + sizes[0]['users_scored']} users are not scored in a split."
    )
    return tuple(notes)
