"""What a description says: its numbers in words, section by section."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from simrlhf.data import separation, triples
from simrlhf.study import spectrum_null
from simrlhf.study.describe_counts import LEVEL, NOT_APPLICABLE

# so many users or features are named
_NAMED = 3
# a share says little of a user with fewer triples or couples: its error is 8 or 9 points there
_ENOUGH = 30
Numbers = dict[str, Any]


def as_text(overall: dict[str, Numbers], users: pd.DataFrame) -> Group:
    """The report: the name of each section, and what it says.

    Args:
        overall, users: as in `Description`.
    """
    parts: list[Text | Padding] = []
    for name, numbers in overall.items():
        parts.append(Text(name.replace("_", " ").capitalize(), style="bold"))
        for said in tell(name, numbers, users):
            parts.append(Padding(Text(said) if isinstance(said, str) else said, (0, 0, 0, 2)))
    return Group(*parts)


def tell(section: str, numbers: Numbers, users: pd.DataFrame) -> list[str | Table]:
    """What a section says: sentences, and for the spectrum a table."""
    if NOT_APPLICABLE in numbers:
        return [f"Not applicable: {numbers[NOT_APPLICABLE]}."]
    return _SECTIONS[section](numbers, users)


def _users_and_pairs(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    of_items = f" of {_count(numbers['n_items'], 'item')}" if numbers["n_items"] else ""
    said = [
        f"{_count(numbers['n_users'], 'user')} with {_count(numbers['n_rows'], 'answer')} to "
        f"{_count(numbers['n_pairs'], 'different pair')}{of_items}.",
        f"Answers per user: {_spread(numbers['rows_per_user'])}.",
    ]
    if "n_groups" in numbers:
        said.append(
            f"{_count(numbers['n_groups'], 'group')}; users in a group: "
            f"{_spread(numbers['users_per_group'])}; groups of a user: "
            f"{_spread(numbers['groups_per_user'])}."
        )
    else:
        said.append("No groups.")
    said.append(f"{_weights(numbers['weights'])}; {_choices(numbers)}.")
    if numbers["n_weightless"]:
        said.append(f"{_count(numbers['n_weightless'], 'row')} of weight 0 left out.")
    if numbers["n_without_difference"]:
        said.append(
            f"{_count(numbers['n_without_difference'], 'row')} without a difference between the "
            "two items: no reward can explain the choice."
        )
    return said


def _weights(weights: Numbers) -> str:
    if weights["min"] == weights["max"]:
        return f"All weights are {weights['min']:g}"
    return f"Weights from {weights['min']:g} to {weights['max']:g}, {weights['sum']:g} in all"


def _choices(numbers: Numbers) -> str:
    if "responses" in numbers:
        found = numbers["responses"]
        return (
            f"responses from {found['min']:.3g} to {found['max']:.3g}, mean {found['mean']:.3g}, "
            f"standard deviation {found['sd']:.3g}"
        )
    ties, soft = numbers["n_ties"], numbers["n_soft"]
    if ties == soft == 0:
        return "every choice is 0 or 1"
    tied = [f"{_count(ties, 'tie')} (a choice of 1/2)"] if ties else []
    probable = [f"{_count(soft, 'choice')} between"] if soft else []
    return " and ".join([*tied, *probable])


def _duplicates(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    if numbers["n_again"] == 0:
        return ["No user was asked the same pair twice, in either order."]
    n_rows = int(users["n_rows"].sum())
    said = [
        f"{_count(numbers['n_again'], 'row')} of {n_rows:,} ask a pair that the same user has "
        f"already answered ({_count(numbers['n_users_again'], 'user')})."
    ]
    for order, words in (("same_order", "the same order"), ("swapped", "the other order")):
        found = numbers.get(order)
        if found and found["couples"]:
            said.append(
                f"Asked again in {words}, users choose the same item in "
                f"{found['agreeing'] / found['couples']:.1%} of "
                f"{_count(found['couples'], 'couple')} of answers."
            )
    if numbers["n_copies"]:
        said.append(
            f"{_count(numbers['n_copies'], 'row')} equal to an earlier one in user, pair, order "
            "and choice: asked twice, or written twice?"
        )
    return said


def _agreement(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    alpha = "" if numbers["alpha"] is None else f" Krippendorff's alpha {numbers['alpha']:.3f}."
    said = [
        f"{_count(numbers['n_pairs'], 'pair')} answered by two users or more. Two of them choose "
        f"the same item in {numbers['share']:.1%} (coin flips: 50%).{alpha}"
    ]
    some = users[users["couples"] >= _ENOUGH]
    if len(some):
        lowest = some.loc[some["agreement"].idxmin()]
        said.append(
            f"{_by_user(some['agreement'], 'couples')}; lowest {lowest['user_id']} "
            f"({lowest['agreeing']:,} of {lowest['couples']:,})."
        )
    return said


def _position_bias(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    n_pairs = numbers["n_pairs"]
    share = _interval(numbers["share"]) if n_pairs > 1 else f"{numbers['share']['estimate']:.1%}"
    said = [
        f"The item that stands first is preferred in {share} of "
        f"{_count(numbers['n_answers'], 'strict answer')} to {_count(n_pairs, 'pair')}; "
        f"p = {numbers['p_value']:.2g} for one half."
    ]
    off = users[users["first_p_adjusted"] < LEVEL].sort_values("first_p_adjusted")
    named = "; ".join(
        f"{row['user_id']} first in {row['leaning_first']:,} of {row['leaning_pairs']:,}"
        for row in off.head(_NAMED).to_dict("records")
    )
    more = f" and {len(off) - _NAMED} more" if len(off) > _NAMED else ""
    said.append(
        "By user, over pairs to which the user's answers lean first or second: off one half, "
        f"p < {LEVEL:g} adjusted for the number of users, {len(off)} of {len(users):,}"
        + (f" ({named}{more})." if len(off) else ".")
    )
    if numbers["both"] is None:
        said.append(
            "Fewer than two pairs were shown in both orders, so all this takes the order as drawn "
            "at random: otherwise the better item may stand first more often."
        )
    else:
        said.append(
            f"Free of which item is better: over {_count(numbers['n_both'], 'pair')} shown in "
            f"both orders the first is preferred in {_interval(numbers['both'])}."
        )
    return said


def _intransitivity(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    def share(counts: Numbers) -> str:
        error = triples.chance_error(counts["triples"])
        return (
            f"{counts['cyclic'] / counts['triples']:.1%} of {_count(counts['triples'], 'triple')} "
            f"(coin flips: {numbers['chance']:.0%} +- {100 * error:.2g}%)"
        )

    said = []
    if numbers["own"]["triples"]:
        said.append(
            f"Cyclic (a over b over c over a) among the triples of items that one user compared "
            f"all three ways: {share(numbers['own'])}."
        )
        some = users[users["triples"] >= _ENOUGH]
        if len(some):
            said.append(f"{_by_user(some['cyclic'] / some['triples'], 'triples')}.")
    if numbers["pooled"]["triples"]:
        said.append(f"Cyclic in the majorities of all users: {share(numbers['pooled'])}.")
    return said


def _features(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    d1, d2, rank = (numbers[name] for name in ("d1", "d2", "rank"))
    source = " learned from all texts" if numbers["of_texts"] else ", divided by their scale"
    said = [f"d1 = {d1}, d2 = {d2}: {_count(numbers['n_features'], 'feature')}{source}."]
    constant = numbers["constant"]
    if constant:
        names = ", ".join("_".join(map(str, place[: 1 + (d2 > 1)])) for place in constant[:_NAMED])
        more = ", ..." if len(constant) > _NAMED else ""
        said.append(f"Never different between two items: {len(constant)} (number {names}{more}).")
    dependent = numbers["n_features"] - len(constant) - rank
    if dependent > 0:
        said.append(f"Linear combinations of the others: {dependent}.")
    said.append(f"All answers: rank {rank}, condition number {numbers['condition']:.3g}.")
    full = numbers["condition_per_full_user"]
    said.append(
        f"By user: rank {_spread(numbers['rank_per_user'])}; of full rank: "
        f"{numbers['n_users_of_full_rank']:,} of {len(users):,}"
        + (f", with condition number {_spread(full, '.3g')}." if full else ".")
    )
    if numbers["n_users_of_full_rank"] < len(users):
        said.append("Users below full rank do not determine a reward of their own without --ridge.")
    return said


def _separability(numbers: Numbers, users: pd.DataFrame) -> list[str]:
    kinds, pooled = numbers["users"], numbers["pooled"]
    counted = ", ".join(f"{kinds[kind]:,} {kind}" for kind in separation.KINDS if kinds[kind])
    said = [f"One reward for all: {pooled['kind']}. A reward for each user: {counted}."]
    met = {pooled["kind"]} | {kind for kind, count in kinds.items() if count}
    meaning = {
        separation.OVERLAP: "the likelihood has a maximum",
        separation.QUASI: "some reward gets some labels right for certain and contradicts none, "
        "so the likelihood has no maximum",
        separation.COMPLETE: "some reward gets every label right, so the likelihood has no maximum",
        separation.NOT_EXAMINED: "without a proof, and the linear program that decides was too "
        "large or did not finish",
    }
    said.append("; ".join(f"{kind}: {meaning[kind]}" for kind in separation.KINDS if kind in met))
    said[-1] = said[-1][0].upper() + said[-1][1:] + "."
    if met & {separation.COMPLETE, separation.QUASI}:
        said.append("Where it has none, a fit needs --ridge or --norm-bound.")
    return said


def _spectrum(numbers: Numbers, users: pd.DataFrame) -> list[str | Table]:
    rank, ranks = numbers["rank"], ",".join(map(str, numbers["suggested_ranks"]))
    said: list[str | Table] = [
        "How users deviate from the common reward: singular values of their scores, against what "
        f"users alike reach in 5% of {numbers['permutations']} draws.",
        _steps(numbers),
    ]
    if rank == 0:
        said.append(
            "No direction stands out: by these answers users differ no more than by chance, and "
            "--estimator global is enough."
        )
    else:
        least = "At least " if rank == spectrum_null.MOST_STEPS else ""
        said.append(
            f"{least}{_count(rank, 'direction')} of deviation {'stands' if rank == 1 else 'stand'} "
            f"out; the common reward may add to that rank. Weak directions can cost more than they "
            f"tell, so let held-out answers choose: simrlhf fit DATA --rank {ranks}"
        )
    if numbers["n_alone"]:
        said.append(
            f"{_count(numbers['n_alone'], 'row')} in groups of one user: what stands out there may "
            "belong to the group."
        )
    if numbers["pooled_ridge"]:
        why = {
            separation.COMPLETE: "One reward separates all answers",
            separation.QUASI: "One reward separates some answers and contradicts none",
            separation.NOT_EXAMINED: "Whether one reward separates answers was not decided",
        }
        said.append(
            f"{why[numbers['pooled_separability']]}, so the common reward was fitted with --ridge "
            f"{numbers['pooled_ridge']:g}."
        )
    return said


def _steps(numbers: Numbers) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("direction", "value", "users alike", "p", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    steps = zip(*(numbers[n] for n in ("singular_values", "thresholds", "p_values")), strict=False)
    for place, (value, threshold, p_value) in enumerate(steps):
        verdict = "stands out" if place < numbers["rank"] else "does not"
        table.add_row(str(place + 1), f"{value:.2f}", f"{threshold:.2f}", f"{p_value:.2g}", verdict)
    return table


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _spread(spread: Numbers, form: str = ",.0f") -> str:
    low, median, high = (format(spread[name], form) for name in ("min", "median", "max"))
    return f"{low} each" if low == high else f"{low} to {high} (median {median})"


def _by_user(shares: pd.Series, counted: str) -> str:
    return (
        f"By user, for the {len(shares):,} with {_ENOUGH} {counted} or more: {shares.min():.0%} to "
        f"{shares.max():.0%} (median {shares.median():.0%})"
    )


def _interval(found: Numbers) -> str:
    return f"{found['estimate']:.1%} (95% interval {found['low']:.1%} to {found['high']:.1%})"


_SECTIONS: dict[str, Callable[[Numbers, pd.DataFrame], list]] = {
    "users_and_pairs": _users_and_pairs,
    "duplicates": _duplicates,
    "agreement": _agreement,
    "position_bias": _position_bias,
    "intransitivity": _intransitivity,
    "features": _features,
    "separability": _separability,
    "spectrum": _spectrum,
}
