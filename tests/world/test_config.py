"""`WorldConfig`: impossible worlds are refused in one line that names value, limit and remedy."""

from __future__ import annotations

import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.world import WorldConfig, make_world


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_users": 0}, r"n_users = 0 must be at least 1"),
        ({"d1": 2.5}, r"d1 must be an integer, got 2\.5"),
        ({"d2": True}, r"d2 must be an integer, got True"),
        ({"rank": 0}, r"rank = 0 must be at least 1.*min\(d1, N d2\)"),
        ({"rank": 9, "d1": 8}, r"rank = 9 must be at most 8; the limit is .*min\(8, 32\)"),
        ({"rank": 4, "n_users": 3}, r"rank = 4 must be at most 3; the limit is .*min\(64, 3\)"),
        ({"nu": 0.0}, r"nu = 0 must be greater than 0; .*size of the model"),
        ({"nu": -1.0}, r"nu = -1 must be greater than 0"),
        ({"nu": float("nan")}, r"nu must be finite, got nan"),
        ({"nu": "big"}, r"nu must be a real number, got 'big'"),
        ({"condition": 0.5}, r"condition = 0\.5 must be at least 1; it is sigma_1 / sigma_k"),
        ({"tail": -0.1}, r"tail = -0\.1 must be at least 0; it is sqrt\(Sigma_tail / N\)"),
        ({"tail_shape": "flatt"}, r"tail_shape 'flatt': choose .*; did you mean 'flat'"),
        ({"tail_decay": -1.0}, r"tail_decay = -1 must be at least 0"),
        ({"user_norms": "same"}, r"user_norms 'same': choose one of random, equal"),
        ({"features": "gausian"}, r"did you mean 'gaussian'"),
        ({"link": "logit"}, r"unknown link 'logit': choose one of logistic, identity, probit"),
        ({"noise": 0.0}, r"noise = 0 must be greater than 0"),
        ({"norm_bound": 0.0}, r"norm_bound = 0 must be greater than 0; or None for no bound"),
    ],
)
def test_a_bad_setting_is_refused_when_it_is_written_down(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        WorldConfig(**settings)
    assert "\n" not in str(caught.value)


def test_a_tail_without_room_is_refused():
    config = WorldConfig(n_users=5, d1=4, rank=4, tail=0.1)
    with pytest.raises(InputError, match=r"tail = 0\.1 needs .* beyond rank 4.* = 4; lower rank"):
        make_world(config)


@pytest.mark.parametrize("shape", ["flat", "power"])
def test_a_tail_that_overtakes_sigma_k_is_refused_and_the_remedy_works(shape):
    settings = {"n_users": 6, "d1": 5, "rank": 2, "nu": 0.25, "tail_shape": shape}
    with pytest.raises(
        InputError, match=r"must stay below sigma_k .*lower tail to at most"
    ) as caught:
        make_world(WorldConfig(tail=2.0, **settings))
    assert "\n" not in str(caught.value)
    advised = float(str(caught.value).split("lower tail to at most ")[1].split(",")[0])
    # the advice is printed with six digits, so it may be above the limit by 5e-6 of itself
    make_world(WorldConfig(tail=advised * (1 - 1e-5), **settings))
    with pytest.raises(InputError):
        make_world(WorldConfig(tail=advised * (1 + 1e-5), **settings))


def test_a_norm_bound_below_the_root_mean_square_is_refused_and_above_it_is_met():
    settings = {"n_users": 7, "d1": 5, "rank": 3, "nu": 2.0, "condition": 3.0}
    mean_square = 2.0 * sum(3.0 ** np.array([2.0, 1.0, 0.0]))  # sum sigma^2 / N, by hand
    root = np.sqrt(mean_square)
    with pytest.raises(
        InputError, match=r"norm_bound = .* is below .*raise norm_bound or lower nu"
    ):
        make_world(WorldConfig(norm_bound=root * (1 - 1e-9), **settings))
    world = make_world(WorldConfig(norm_bound=root * (1 + 1e-9), **settings))
    assert np.linalg.norm(world.delta, axis=(1, 2)).max() <= root * (1 + 2e-9)


def test_settings_are_frozen_and_keyword_only():
    with pytest.raises(AttributeError):
        WorldConfig().rank = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        WorldConfig(32)  # type: ignore[misc]
