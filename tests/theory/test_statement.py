"""Statuses: a bound that says nothing says so."""

from __future__ import annotations

import math

import pytest

from simrlhf import theory
from simrlhf.core import checks
from simrlhf.theory import statement


def made(value: float, **changes) -> theory.Bound:
    given = {"terms": {"noise": 1.0}, "ceiling": 2.0, "statement": "S0"} | changes
    return theory.make_bound(value, **given)


def test_a_value_below_its_ceiling_is_informative():
    bound = made(1.999)
    assert bound.status is theory.BoundStatus.INFORMATIVE
    assert (bound.value, bound.ceiling, bound.statement) == (1.999, 2.0, "S0")


def test_a_value_at_its_ceiling_is_vacuous():
    assert made(2.0).status is theory.BoundStatus.VACUOUS


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_an_undefined_value_or_term_is_vacuous_even_under_an_infinite_ceiling(number):
    assert made(number, ceiling=math.inf).status is theory.BoundStatus.VACUOUS
    bound = made(0.5, terms={"noise": number}, ceiling=math.inf)
    assert bound.status is theory.BoundStatus.VACUOUS
    assert bound.value == math.inf


def test_a_status_is_its_word_and_has_a_sentence():
    assert theory.BoundStatus.VACUOUS == "vacuous"
    sentences = {status.sentence for status in theory.BoundStatus}
    assert len(sentences) == len(theory.BoundStatus)
    assert all(sentence.endswith(".") for sentence in sentences)


def test_an_ingredient_may_be_infinite_but_not_negative_or_a_word():
    assert statement.ingredient("tail", math.inf) == math.inf
    assert math.isnan(statement.ingredient("tail", math.nan))
    for wrong in (-0.1, -math.inf, "much", None):
        with pytest.raises(checks.InputError, match="tail"):
            statement.ingredient("tail", wrong)
