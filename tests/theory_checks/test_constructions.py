"""What the checks of Park's theorems build: later users, the lower bound's world, brackets."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from simrlhf import theory
from simrlhf.core.links import LOGISTIC
from simrlhf.sampling import sample_preferences
from simrlhf.study.checking import lower_bound, park_runs
from simrlhf.study.checking.newcomers import newcomers
from simrlhf.world import WorldConfig, make_world


@pytest.mark.parametrize("tail", [0.0, 0.2])
def test_newcomers_have_the_basis_of_the_world_and_their_own_factors(tail: float) -> None:
    config = WorldConfig(n_users=5, d1=6, rank=2, tail=tail)
    world, other = (make_world(config, seed=seed) for seed in (1, 2))
    new = newcomers(world, other)
    inside = np.einsum("ak,nab->nkb", world.basis, new.delta)
    assert np.abs(inside) == pytest.approx(
        np.abs(np.einsum("ak,nab->nkb", other.basis, other.delta))
    )
    assert np.linalg.norm(new.delta) == pytest.approx(np.linalg.norm(other.delta))
    off = new.delta - world.basis @ inside
    assert np.linalg.norm(off) == pytest.approx(tail * 5**0.5, abs=1e-12)
    # the rival forgets to turn them
    left = other.delta - world.basis @ (world.basis.T @ other.delta)
    assert np.linalg.norm(left) > 1.5 * np.linalg.norm(off)


def test_a_majority_counts_wins_less_losses_of_each_context() -> None:
    config = lower_bound.lower_bound_config(n_pairs=300, rank=7, scale=2.0, n_users=8)
    world = make_world(config, seed=3)
    sample = sample_preferences(world, 300, seed=4).switched_to_first(np.full(8, 200))
    net = np.zeros((8, 7))
    shown = sample.features[:, :, 0] @ world.basis
    for user, seen, label, weight in zip(
        sample.users, shown, sample.labels, sample.weights, strict=True
    ):
        if weight and np.abs(seen).max() > 0.5:
            net[user, int(np.abs(seen).argmax())] += 1.0 if label == 1.0 else -1.0
    votes = lower_bound.majorities(world, sample)[:, :, 0] @ world.basis
    assert votes == pytest.approx(net)
    assert np.abs(net).sum() > 50
    assert np.abs(world.delta[:, :, 0] @ world.basis) == pytest.approx(
        np.full((8, 7), lower_bound.worth(n_pairs=300, rank=7, scale=2.0))
    )


@pytest.mark.parametrize("users_at_once", [True, False])
def test_brackets_are_the_theorems_without_their_outer_constant(users_at_once: bool) -> None:
    row = {"n": 300.0, "N": 9.0, "k": 2.0, "own_pairs": 70.0, "margin": 1.5}
    link = theory.link_constants(LOGISTIC, margin=1.5)
    given = {"log_bracketing": 2 * (park_runs.D1 + 9) * np.log(9 * 300 / park_runs.DELTA),
             "n_users": 9, "rank": 2, "delta": park_runs.DELTA, "concentrability": 1.0,
             "xi": link.xi, "kappa": link.kappa, "eta": link.eta}  # fmt: skip
    printed = (
        theory.park_theorem_3_1(**given, n_pairs=300.0)
        if users_at_once
        else theory.park_theorem_3_2(**given, n_pairs=300.0, own_pairs=70.0)
    )
    rows = pd.DataFrame([row | ({"own_pairs": 300.0} if users_at_once else {})])
    found = park_runs.written_bracket(rows, users_at_once=users_at_once)
    assert found.to_numpy() == pytest.approx([printed.value**2])
