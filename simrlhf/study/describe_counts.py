"""What raw comparisons say of themselves, section by section: counts, agreement, bias, cycles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from simrlhf.core import links
from simrlhf.data import position, quality, triples
from simrlhf.data.preferences import Preferences
from simrlhf.data.quality import Questions
from simrlhf.data.tables import PairTable
from simrlhf.study.honest_arena import learn_features

NOT_APPLICABLE = "not_applicable"
LEVEL = 0.05
_REAL_CHOICES = "choices are real responses, which take no side"
_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}


class Section(NamedTuple):
    """Numbers over all users, and columns of numbers by user."""

    overall: dict[str, Any]
    by_user: Mapping[str, np.ndarray]


class Case(NamedTuple):
    """The rows ordered by user, and what every section reads of them.

    Attributes:
        names: `(N,)` of the users, sorted.
        user, side: `(P,)` user number of each row, and side of its answer.
        preferences: the same rows with the features of a fit.
    """

    table: PairTable
    names: np.ndarray
    user: np.ndarray
    asked: Questions
    side: np.ndarray
    preferences: Preferences

    @property
    def n_users(self) -> int:
        return len(self.names)

    @property
    def is_preference(self) -> bool:
        return links.get_link(self.table.link).is_preference


def open_case(table: PairTable, *, dimensions: int) -> Case:
    """Order the rows by user, number the pairs, learn the features from all rows."""
    names, user = np.unique(table.user_ids, return_inverse=True)
    order = np.argsort(user, kind="stable")
    table = table.select(order)
    everything = np.ones(table.n_pairs, bool)
    return Case(
        table=table,
        names=names,
        user=user[order],
        asked=quality.questions(table),
        side=np.sign(table.choice - 0.5).astype(int),
        preferences=learn_features(table, everything, dimensions=dimensions).pairs(everything),
    )


def not_applicable(reason: str) -> Section:
    return Section({NOT_APPLICABLE: reason}, {})


def spread(values: np.ndarray) -> dict[str, float]:
    """Minimum, quartiles and maximum."""
    return {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}


def users_and_pairs(case: Case, *, n_weightless: int) -> Section:
    """Rows, pairs, items, groups and weights; ties and soft labels, or real responses."""
    table, counts = case.table, np.bincount(case.user)
    weights, choice = np.asarray(table.weights), table.choice
    overall: dict[str, Any] = {
        "n_users": case.n_users,
        "n_rows": table.n_pairs,
        "n_weightless": n_weightless,
        "n_pairs": np.unique(case.asked.pair[case.asked.pair >= 0]).size,
        "n_items": None if table.pairs is None else table.used_items().size,
        "n_without_difference": int((case.asked.pair < 0).sum()),
        "rows_per_user": spread(counts),
        "weights": {"min": weights.min(), "max": weights.max(), "sum": weights.sum()},
    }
    by_user = {"n_rows": counts, "weight": np.bincount(case.user, weights)}
    if case.is_preference:
        tie = choice == 0.5
        soft = (choice > 0) & (choice < 1) & ~tie
        overall |= {"n_ties": int(tie.sum()), "n_soft": int(soft.sum())}
        by_user["n_ties"] = np.bincount(case.user[tie], minlength=case.n_users)
        by_user["n_soft"] = np.bincount(case.user[soft], minlength=case.n_users)
    else:
        overall["responses"] = {**spread(choice), "mean": choice.mean(), "sd": choice.std()}
    if table.groups is not None:
        group = np.unique(table.groups, return_inverse=True)[1]
        met = np.unique(np.stack([case.user, group]), axis=1)
        by_user["n_groups"] = np.bincount(met[0])
        overall["n_groups"] = int(group.max()) + 1
        overall["groups_per_user"] = spread(by_user["n_groups"])
        overall["users_per_group"] = spread(np.bincount(met[1]))
    return Section(overall, by_user)


def duplicates(case: Case) -> Section:
    """Pairs that a user was asked again, and whether the answers agree."""
    found = quality.find_repeats(case.user, case.asked, case.side, n_users=case.n_users)
    overall: dict[str, Any] = {
        "n_again": int(found.rows.sum()),
        "n_users_again": int((found.rows > 0).sum()),
        "n_copies": quality.count_copies(case.user, case.asked, case.table.choice),
    }
    by_user = {"n_again": found.rows}
    if case.is_preference:
        for place, order in enumerate(("same_order", "swapped")):
            couples, agreeing = found.couples[:, place], found.agreeing[:, place]
            overall[order] = {"couples": int(couples.sum()), "agreeing": int(agreeing.sum())}
            by_user |= {f"{order}_couples": couples, f"{order}_agreeing": agreeing}
    return Section(overall, by_user)


def agreement(case: Case) -> Section:
    """Agreement of different users on the same pair."""
    if not case.is_preference:
        return not_applicable(_REAL_CHOICES)
    found = quality.find_agreement(case.user, case.asked, case.side, n_users=case.n_users)
    if found.n_pairs == 0:
        return not_applicable("no pair was answered by two users")
    shares = np.where(found.couples > 0, found.agreeing / np.maximum(found.couples, 1), np.nan)
    overall = {
        "n_pairs": found.n_pairs,
        "share": float(found.agreeing.sum() / found.couples.sum()),
        "alpha": found.alpha,
    }
    by_user = {"couples": found.couples, "agreeing": found.agreeing, "agreement": shares}
    return Section(overall, by_user)


def position_bias(case: Case) -> Section:
    """How often the item that stands first is preferred."""
    if not case.is_preference:
        return not_applicable(_REAL_CHOICES)
    found = position.find_position(case.user, case.asked, case.side, n_users=case.n_users)
    if found is None:
        return not_applicable("every answer is a tie")
    overall = {
        "n_answers": int(found.answers.sum()),
        "n_pairs": found.n_pairs,
        "share": found.share._asdict(),
        "p_value": found.p_value,
        "n_users_off": int((found.adjusted < LEVEL).sum()),
        "n_both": found.n_both,
        "both": found.both._asdict() if found.both else None,
    }
    by_user = {
        "answers": found.answers,
        "first": found.first,
        "leaning_pairs": found.pairs,
        "leaning_first": found.pairs_first,
        "first_p": found.p_values,
        "first_p_adjusted": found.adjusted,
    }
    return Section(overall, by_user)


def intransitivity(case: Case) -> Section:
    """Cyclic triples of every user, and of the majorities of all users."""
    if not case.is_preference:
        return not_applicable(_REAL_CHOICES)
    if case.table.pairs is None:
        return not_applicable("differences do not name their two items")
    pairs = case.table.pairs
    own = triples.count_triples(case.user, pairs, case.side, n_owners=case.n_users)
    pooled = triples.count_triples(np.zeros_like(case.user), pairs, case.side, n_owners=1)
    if own is None or pooled is None:
        return not_applicable("too many pairs share items to count the triples")
    if pooled.compared.sum() == own.compared.sum() == 0:
        return not_applicable("no three items were compared all three ways")
    overall = {
        "own": {"triples": int(own.compared.sum()), "cyclic": int(own.cyclic.sum())},
        "pooled": {"triples": int(pooled.compared[0]), "cyclic": int(pooled.cyclic[0])},
        "chance": triples.CHANCE,
    }
    return Section(overall, {"triples": own.compared, "cyclic": own.cyclic})
