"""S5 against policies that are found by maximisation, on random and on tight instances."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from simrlhf import testing, theory
from simrlhf.core import checks


class Gaps(NamedTuple):
    pessimistic: list[float]
    pessimistic_bound: list[float]
    greedy: list[float]
    greedy_bound: list[float]


def drawn(rng: np.random.Generator, repetitions: int, *, design: bool) -> Gaps:
    """Gaps and bounds over a finite class of policies, in the Frobenius or in a design norm."""
    gaps = Gaps([], [], [], [])
    for _ in range(repetitions):
        p = int(rng.integers(1, 6))
        root = rng.normal(size=(p, p)) + np.eye(p) if design else np.eye(p)
        sigma = root @ root.T
        dual = np.linalg.inv(sigma)
        policies = rng.normal(size=(int(rng.integers(2, 12)), p))
        truth = rng.normal(size=p)
        error = 10 ** rng.uniform(-2, 0.5) * rng.normal(size=p)
        size = math.sqrt(error @ sigma @ error)
        radius = size * rng.uniform(1.0, 2.0)
        estimate = truth + error
        best = policies[np.argmax(policies @ truth)]
        norms = np.sqrt(np.einsum("ap,pq,aq->a", policies, dual, policies))
        # the minimum of <Theta, g> over the ball of this norm, in closed form
        careful = policies[np.argmax(policies @ estimate - radius * norms)]
        greedy = policies[np.argmax(policies @ estimate)]
        direction = best - greedy
        gaps.pessimistic.append(truth @ (best - careful))
        gaps.pessimistic_bound.append(
            theory.pessimism_bound(
                error_norm=size, radius=radius, target_norm=math.sqrt(best @ dual @ best)
            ).value
        )
        gaps.greedy.append(truth @ direction)
        gaps.greedy_bound.append(
            theory.greedy_bound(
                error_norm=size, direction_norm=math.sqrt(direction @ dual @ direction)
            ).value
        )
    return gaps


def edge(rng: np.random.Generator, *, share: float) -> tuple[float, theory.Bound]:
    """The target is worth just less than staying at the reference, and in truth all that it can be.

    `share` is the error as a share of the radius, at most 1 for a truth in the set.
    """
    target, radius = rng.normal(size=4), rng.uniform(0.1, 2.0)
    norm = float(np.linalg.norm(target))
    estimate = radius * (1.0 - 1e-12) * target / norm
    truth = estimate + share * radius * target / norm
    assert estimate @ target - radius * norm < 0.0  # so it stays, at a pessimistic value of 0
    bound = theory.pessimism_bound(error_norm=share * radius, radius=radius, target_norm=norm)
    return float(truth @ target), bound


@pytest.mark.parametrize("design", [False, True])
def test_s5_holds_for_every_policy_class_and_is_attained(design):
    rng = np.random.default_rng(29)
    gaps = drawn(rng, 1500, design=design)
    tight = [edge(rng, share=share) for share in (0.1, 0.5, 1.0)]
    attained = np.array([gap for gap, _ in tight]), np.array([b.value for _, b in tight])
    # the rival forgets that the truth moves the gap too: zeta ||g|| alone
    rival = np.array([bound.terms["radius"] for _, bound in tight])
    testing.never_violated(
        np.array(gaps.pessimistic),
        np.array(gaps.pessimistic_bound),
        tight=attained,
        rival=rival,
        statement="S5 pessimism",
    )
    assert attained[0] == pytest.approx(attained[1], rel=1e-9)


@pytest.mark.parametrize("design", [False, True])
def test_greedy_gaps_stay_below_their_bound_and_reach_it(design):
    rng = np.random.default_rng(31)
    gaps = drawn(rng, 1500, design=design)
    # two policies that the estimate ties, and an error along their difference
    difference = np.array([3.0, -4.0])
    for size in (0.1, 2.0):
        truth = np.array([4.0, 3.0]) + size * difference / 5.0
        bound = theory.greedy_bound(error_norm=size, direction_norm=5.0)
        assert truth @ difference == pytest.approx(bound.value, rel=1e-12)
    found = testing.never_violated(
        np.array(gaps.greedy),
        np.array(gaps.greedy_bound) + 1e-14,
        rival=0.5 * np.array(gaps.greedy_bound) + 1e-14,  # half of the error
        statement="S5 greedy",
    )
    assert found.tightness > 0.9


def test_knowing_no_error_costs_two_radii():
    bound = theory.pessimism_bound(error_norm=0.1, radius=0.3, target_norm=2.0, slack=0.05)
    assert bound.terms == {
        "error": pytest.approx(0.2),
        "radius": pytest.approx(0.6),
        "slack": 0.05,
        "worst_case": pytest.approx(1.25),
    }
    assert bound.value == pytest.approx(0.85, rel=1e-14)
    at_the_edge = theory.pessimism_bound(error_norm=0.3, radius=0.3, target_norm=2.0, slack=0.05)
    assert at_the_edge.value == pytest.approx(bound.terms["worst_case"], rel=1e-14)
    greedy = theory.greedy_bound(error_norm=0.1, direction_norm=2.0, slack=0.05)
    assert greedy.value == pytest.approx(0.25, rel=1e-14)


def test_a_maximiser_that_misses_by_eps_loses_eps_more():
    target, slack = 2.0, 0.01
    estimate, radius, error = 0.5, 0.5 - slack, 0.3  # the target's pessimistic value is 2 eps
    exact = theory.pessimism_bound(error_norm=error, radius=radius, target_norm=target)
    allowed = theory.pessimism_bound(
        error_norm=error, radius=radius, target_norm=target, slack=2 * slack
    )
    gap = (estimate + error) * target  # it stays at the reference
    assert exact.value < gap
    assert gap == pytest.approx(allowed.value, rel=1e-12)


def test_a_truth_outside_the_set_is_promised_nothing_and_can_lose_more():
    # policies g = 0.1 (the target) and g = -10; the estimate -1 prefers the second
    truth, estimate, radius = 0.5, -1.0, 0.5
    pessimistic = {g: estimate * g - radius * abs(g) for g in (0.1, -10.0)}
    chosen = max(pessimistic, key=pessimistic.__getitem__)
    gap = truth * (0.1 - chosen)
    assert gap > (1.5 + 0.5) * 0.1  # the formula, whatever it says, is broken here
    bound = theory.pessimism_bound(error_norm=1.5, radius=0.5, target_norm=0.1)
    assert bound.status is theory.BoundStatus.NOT_APPLICABLE
    assert math.isnan(bound.value)


def test_s5_says_when_it_says_nothing_and_refuses_negative_numbers():
    given = {"error_norm": 0.1, "radius": 0.3, "target_norm": 2.0}
    for change in ({"ceiling": 0.8}, {"radius": math.inf}, {"target_norm": math.inf}):
        bound = theory.pessimism_bound(**given | change)
        assert bound.status is theory.BoundStatus.VACUOUS
    for name in given:
        with pytest.raises(checks.InputError, match=name):
            theory.pessimism_bound(**given | {name: -0.1})
    with pytest.raises(checks.InputError, match="direction_norm"):
        theory.greedy_bound(error_norm=0.1, direction_norm=-1.0)
    endless = theory.greedy_bound(error_norm=math.inf, direction_norm=1.0)
    assert endless.status is theory.BoundStatus.VACUOUS
