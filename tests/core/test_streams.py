"""Random streams: same name same numbers anywhere, different names unrelated numbers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from simrlhf.core import checks, streams


def words(key: jax.Array) -> tuple[int, ...]:
    return tuple(int(word) for word in np.asarray(jax.random.key_data(key)))


def test_a_stream_is_the_same_in_another_process_with_other_settings():
    program = (
        "import jax\n"
        "jax.config.update('jax_default_prng_impl', 'rbg')\n"
        "from simrlhf.core import streams\n"
        "print(*jax.random.key_data(streams.stream(2**40 + 7, 'labels', 3, 1)).tolist())\n"
        "print(streams.generator(5, 'spectrum').normal())\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert tuple(map(int, printed[:2])) == words(streams.stream(2**40 + 7, "labels", 3, 1))
    assert float(printed[2]) == streams.generator(5, "spectrum").normal()


def test_streams_of_different_names_differ():
    roots = [0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1]
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0)]
    keys = [
        words(streams.stream(root, purpose, *place))
        for root, purpose, place in itertools.product(roots, ["labels", "features"], places)
    ]
    assert len(set(keys)) == len(keys)


def test_no_bit_of_the_seed_is_lost():
    seeds = [0, *(1 << bit for bit in range(63))]
    assert len({words(streams.stream(seed, "labels")) for seed in seeds}) == len(seeds)
    # the plain key without 64-bit types keeps 32 bits: the wrong variant loses half of them
    with jax.enable_x64(False):
        plain = {words(jax.random.key(np.uint32(seed & 0xFFFFFFFF))) for seed in seeds}
    assert len(plain) < len(seeds)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.stack(
        [np.asarray(jax.random.normal(streams.stream(0, "x", i), (4000,))) for i in range(20)]
    )
    correlation = np.corrcoef(draws)[np.triu_indices(20, k=1)]
    # 190 correlations of standard error 1/sqrt(4000) = 0.016: the largest lies below 5 of them
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_the_numpy_generator_follows_the_name_as_well():
    first = streams.generator(1, "spectrum").normal(size=4)
    np.testing.assert_array_equal(first, streams.generator(1, "spectrum").normal(size=4))
    assert not np.array_equal(first, streams.generator(2, "spectrum").normal(size=4))
    assert not np.array_equal(first, streams.generator(1, "basis").normal(size=4))


def test_a_key_used_twice_is_noticed():
    key = streams.stream(0, "labels")
    jax.random.normal(key)
    with pytest.raises(jax.errors.KeyReuseError):
        jax.random.uniform(key)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, "0"])
def test_a_seed_is_a_non_negative_63_bit_integer(seed):
    with pytest.raises(checks.InputError, match="seed"):
        streams.stream(seed, "labels")


@pytest.mark.parametrize("index", [-1, 2**32, 0.5])
def test_an_index_is_a_32_bit_integer(index):
    with pytest.raises(checks.InputError, match="index"):
        streams.stream(0, "labels", index)
