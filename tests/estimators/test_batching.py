"""`fit_many`: the loop is `fit` bit for bit, a batch is the loop up to rounding, however cut."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from simrlhf.core.checks import InputError
from simrlhf.core.links import LOGISTIC
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import ESTIMATORS, Estimator, FitStatus, batching, fit, fit_many, kernels
from simrlhf.estimators import problem as problems
from simrlhf.estimators.kernels import Kernel, Limits
from simrlhf.estimators.rank_choice import RankChoice
from simrlhf.sampling import sample_preferences

RELATIVE = 1e-7
# all settings of these; of the classes that share their solvers, one setting of a few
FIRST = ("share_b", "local", "global", "full", "oracle")
# numbers of a batch that need no compilation of their own
SETTINGS = {
    "free": {},
    "bounded": {"norm_bound": 1.2},
    "ridge": {"ridge": 2.0},
    "cut short": {"max_iterations": 1},
}


@pytest.fixture(scope="module")
def members(wide):
    """Three samples, the first half of one by weights, and one that every class separates."""
    first, second, third = (sample_preferences(wide.world, 100, seed=s) for s in (2, 3, 4))
    half = first.reweighted(np.arange(first.n_total) % 100 < 50)
    common = wide.world.basis[:, :1] @ np.array([[1.0, -2.0, 0.5]])
    side = np.einsum("pab,ab->p", second.features, common) > 0
    separable = Preferences.from_pairs(second.users, second.features, side)
    return [first, second, separable, half, third]


def known(estimator, wide, count):
    return {"bases": [wide.world.basis] * count} if estimator == "oracle" else {}


def alone(sources, estimator, *, bases=None, theta_inits=None, seed=None, **settings):
    """What `fit_many` promises, written out."""
    return [
        fit(
            source,
            estimator,
            basis=None if bases is None else bases[i],
            theta_init=None if theta_inits is None else theta_inits[i],
            seed=0 if seed is None else seed[i],
            **settings,
        )
        for i, source in enumerate(sources)
    ]


def same_bits(found, expected):
    arrays = ("delta", "basis", "multipliers", "theta_init")
    numbers = ("neg_log_likelihood", "gradient_norm", "status", "message", "data_passes", "rank")
    return all(np.array_equal(getattr(found, n), getattr(expected, n)) for n in arrays) and all(
        getattr(found, n) == getattr(expected, n) for n in numbers
    )


def assert_close(found, expected, relative=RELATIVE):
    assert found.status is expected.status
    assert found.message == expected.message
    scale = np.abs(expected.delta).max()
    np.testing.assert_allclose(found.delta, expected.delta, rtol=0, atol=relative * scale)
    np.testing.assert_allclose(
        found.neg_log_likelihood, expected.neg_log_likelihood, rtol=relative, atol=1e-12
    )
    assert type(found.factors) is type(expected.factors)
    for name, value in vars(expected.factors).items():
        atol = relative * max(np.abs(value).max(initial=0), 1)
        np.testing.assert_allclose(getattr(found.factors, name), value, rtol=0, atol=atol)


@pytest.fixture
def batches(monkeypatch):
    """Sizes and devices of the batches that are solved."""
    seen = []

    def spy(problem, *arguments, **settings):
        seen.append((problem.rows.shape[0], len(problem.rows.sharding.device_set)))
        return kernels.solve_batch(problem, *arguments, **settings)

    monkeypatch.setattr(batching, "solve_batch", spy)
    return seen


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("estimator", FIRST)
def test_a_batch_is_the_loop_and_the_loop_is_fit(wide, members, batches, estimator, setting):
    settings = {"rank": 1 if estimator == "local" else 2, **SETTINGS[setting]}
    settings |= known(estimator, wide, len(members))
    loop = fit_many(members, estimator, **settings)
    for found, expected in zip(loop, alone(members, estimator, **settings), strict=True):
        assert same_bits(found, expected)
    assert batches == []  # the loop is what the CPU gets unasked
    batch = fit_many(members, estimator, how="vmap", **settings)
    assert batches == [(6, 1)]  # five problems and a filler
    for place, (found, expected) in enumerate(zip(batch, loop, strict=True)):
        if setting == "free" and place == 2:  # no maximiser: where it ends is not determined
            assert found.status is expected.status is FitStatus.SEPARATED
            assert found.message == expected.message
            assert np.isfinite(found.delta).all()
        else:
            assert_close(found, expected)
    statuses = {result.status for result in batch}
    if setting == "free":
        assert statuses >= {FitStatus.SEPARATED, FitStatus.CONVERGED}
    if setting == "bounded":
        assert any("the norm bound is active" in result.message for result in batch)
    # nobody's result keeps the arrays of the whole batch alive, and all may be written to
    assert all(result.delta.flags.owndata and result.delta.flags.writeable for result in batch)
    # members are told apart: a neighbour's answer would not pass
    assert np.abs(batch[0].delta - batch[1].delta).max() > 1e-3
    assert np.abs(batch[0].delta - batch[3].delta).max() > 1e-3


@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        ("shared_core", {"norm_bound": 1.2}),
        ("nuclear", {"penalty": 6.0}),
        ("simplex", {"ridge": 2.0}),
    ],
)
def test_other_classes_run_as_a_batch(wide, members, batches, estimator, settings):
    """The soft starts, gaps and affine spaces of these are functions of arrays too."""
    two = [members[0], members[3]]
    batch = fit_many(two, estimator, rank=2, how="vmap", **settings)
    assert batches == [(2, 1)]
    for found, expected in zip(batch, alone(two, estimator, rank=2, **settings), strict=True):
        # both end below the tolerance, at points that differ by it over the curvature
        assert found.status is expected.status is FitStatus.CONVERGED
        np.testing.assert_allclose(found.delta, expected.delta, rtol=0, atol=1e-4)
    assert np.abs(batch[0].delta - batch[1].delta).max() > 1e-3


def test_every_member_has_its_own_base_reward_and_basis(wide, members, batches):
    random = np.random.default_rng(0)
    theta_inits = [0.5 * random.normal(size=(5, 3)) for _ in members]
    theta_inits[1], theta_inits[2] = None, np.zeros((5, 3))  # no base: a batch of another kind
    bases = [np.linalg.qr(random.normal(size=(5, 2)))[0] for _ in members]
    settings = {"bases": bases, "theta_inits": theta_inits, "norm_bound": 1.2}
    found = fit_many(members, "oracle", how="vmap", **settings)
    assert sorted(batches) == [(2, 1), (3, 1)]
    expected = alone(members, "oracle", **settings)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
        assert one.data_passes == other.data_passes
    turned = fit_many(members, "oracle", **settings | {"bases": bases[::-1]})
    assert np.abs(turned[0].delta - expected[0].delta).max() > 1e-3
    without = fit_many(members, "oracle", **settings | {"theta_inits": None})
    assert np.abs(without[0].delta - expected[0].delta).max() > 1e-3


def test_random_starts_of_one_source_run_as_a_batch_with_a_seed_each(wide, batches):
    settings = {"rank": 2, "init": "random", "seed": [5, 6, 7]}
    found = fit_many([wide.prefs] * 3, how="vmap", **settings)
    assert batches == [(3, 1)]
    for one, other in zip(found, alone([wide.prefs] * 3, "share_b", **settings), strict=True):
        assert_close(one, other)
    assert len({result.data_passes for result in found}) > 1  # the starts did differ


@pytest.mark.parametrize("estimator", ["full", "oracle"])
def test_sources_of_other_shapes_go_in_groups_or_alone(wide, members, batches, estimator):
    counts = np.array([60, 70, 40, 70])
    unequal = [sample_preferences(wide.world, counts, seed=s) for s in (0, 1)]
    single = sample_preferences(wide.world, 100, seed=0).first(70)
    sources = [unequal[0], members[0], single, unequal[1], members[4]]
    settings = {"norm_bound": 1.2, **known(estimator, wide, len(sources))}
    found = fit_many(sources, estimator, how="vmap", **settings)
    # users of unequal size are a batch for oracle, which reads tiles; full pads them in groups
    assert batches == [(2, 1)] * (2 if estimator == "oracle" else 1)
    expected = alone(sources, estimator, **settings)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)
    for place in (0, 2, 3) if estimator == "full" else (2,):
        assert same_bits(found[place], expected[place])


def test_a_group_too_large_for_memory_is_solved_alone(wide, members, batches, monkeypatch):
    whole = fit_many(members[:2], "full", norm_bound=1.2)
    monkeypatch.setattr("simrlhf.estimators.users_apart._GROUP_BYTES", 40_000)
    found = fit_many(members[:2], "full", norm_bound=1.2, how="vmap")
    assert batches == []
    for one, other in zip(found, whole, strict=True):
        assert_close(one, other)


def test_batch_bytes_cuts_the_batch_and_changes_nothing(wide, members, batches):
    settings = {"norm_bound": 1.2, **known("oracle", wide, len(members))}
    whole = fit_many(members, "oracle", how="vmap", **settings)
    one = kernels.bytes_of(problems.host_problem(members[0]))
    before = kernels.solve_batch._cache_size()
    pairs = fit_many(members, "oracle", how="vmap", batch_bytes=2.5 * one, **settings)
    singles = fit_many(members, "oracle", how="vmap", batch_bytes=1, **settings)
    sizes = [size for size, _ in batches]
    assert sizes == [6] + 3 * [2] + 5 * [1]
    # two sizes, eight batches (one size may have been compiled before)
    assert kernels.solve_batch._cache_size() - before <= 2
    for parts in (pairs, singles):
        for found, expected in zip(parts, whole, strict=True):
            assert_close(found, expected)


@pytest.mark.parametrize(
    ("count", "devices", "most", "size"),
    [(1, 1, 99, 1), (5, 1, 99, 6), (5, 1, 5, 4), (5, 3, 99, 6), (7, 3, 99, 9), (13, 2, 99, 16),
     (1000, 1, 700, 512), (10, 4, 0, 4), (100, 8, 1, 8)],
)  # fmt: skip
def test_batches_are_rungs_for_each_device(count, devices, most, size):
    assert batching._batch_size(count, devices, most) == size


def test_a_memory_limit_is_half_of_what_the_device_reports():
    def device(**memory):
        return SimpleNamespace(memory_stats=lambda: memory or None)

    assert batching._usable_bytes(device(bytes_limit=80, bytes_in_use=3)) == 40
    assert batching._usable_bytes(device()) == batching._usable_bytes(device(other=1)) == 2**30


@pytest.mark.parametrize("estimator", ["oracle", "full"])
def test_the_memory_estimate_lies_above_what_xla_plans_but_not_far(estimator):
    users, pairs, d1, d2, size = 4, 100, 5, 3, 6

    def spec(*shape, dtype=float):
        return jax.ShapeDtypeStruct(shape, dtype)

    def problem_of(*batch):
        return problems.Problem(
            spec(*batch, users, pairs, d2, d1), spec(*batch, users, pairs),
            spec(*batch, users, pairs), spec(users, pairs), spec(users, dtype="int32"),
        )  # fmt: skip

    kernel = ESTIMATORS[estimator].run
    assert isinstance(kernel, Kernel)
    planned = kernels.solve_batch.lower(
        problem_of(size), None, spec(size, d1, 2) if estimator == "oracle" else None,
        Limits(spec(), spec(), spec(), spec(dtype="int64")), solve=kernel.solve,
        model=kernels.Model(LOGISTIC, users, 0),
        mesh=jax.sharding.Mesh(np.asarray(jax.local_devices()), ("batch",)),
    ).compile().memory_analysis()  # fmt: skip
    taken = planned.temp_size_in_bytes + planned.argument_size_in_bytes
    taken += planned.output_size_in_bytes
    assert 1 <= size * kernel.memory(problem_of()) / taken <= 4


def test_other_data_of_the_same_shape_need_no_compilation(wide, batches):
    def sweep(count, users, root):
        worlds = [sample_preferences(wide.world, 20, seed=root + i) for i in range(count)]
        kept = [
            Preferences(
                features=w.features.reshape(4, 20, 5, 3)[:users],
                labels=w.labels.reshape(4, 20)[:users],
            )
            for w in worlds
        ]
        fit_many(kept, "full", norm_bound=1.0 + root, how="vmap")

    before = kernels.solve_batch._cache_size()
    for users in (3, 4):
        for count, root in ((5, 0), (6, 10), (5, 20)):
            sweep(count, users, root)
    assert kernels.solve_batch._cache_size() - before == 2  # once for each number of users
    assert [size for size, _ in batches] == 6 * [6]


def test_the_rank_of_a_class_without_one_needs_no_compilation(wide):
    fit(wide.prefs, "full", rank=1)
    before = kernels.solve_one._cache_size()
    assert fit(wide.prefs, "full", rank=3).basis.shape == (5, 3)
    assert kernels.solve_one._cache_size() == before


def test_an_estimator_without_a_kernel_loops(members, monkeypatch, batches):
    def pooled(request):
        return ESTIMATORS["global"].run(request)._replace(tally=None)  # counted by fit then

    mine = Estimator("mine", "A function.", "none", pooled)
    monkeypatch.setitem(ESTIMATORS, "mine", mine)
    found = fit_many(members, "mine", rank=2, ridge=0.0, how="vmap")
    assert batches == []
    for one, other in zip(found, fit_many(members, "global", rank=2), strict=True):
        assert one.estimator == "mine"
        assert same_bits(one, other)


def test_a_rank_is_chosen_for_every_source(narrow, monkeypatch, batches):
    sources = [sample_preferences(narrow.world, 40, seed=s) for s in range(4)]
    chosen = {id(source): 1 + place % 2 for place, source in enumerate(sources)}

    def choose(source, _fit_rank, *, seed, largest):
        assert seed == 3
        return RankChoice(chosen[id(source)], *[np.zeros(0)] * 3)

    monkeypatch.setattr("simrlhf.estimators.rank_choice.choose_rank", choose)
    results = fit_many(sources, "local", rank="auto", norm_bound=1.2, seed=3, how="vmap")
    assert [result.rank for result in results] == [1, 2, 1, 2]
    assert batches == [(2, 1), (2, 1)]
    for result, source in zip(results, sources, strict=True):
        assert_close(result, fit(source, "local", rank=chosen[id(source)], norm_bound=1.2))


def test_nothing_to_fit_is_an_empty_list():
    for how in (None, "loop", "vmap"):
        assert fit_many([], "global", how=how) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"how": "map"}, r"unknown how 'map': choose one of loop, vmap"),
        ({"batch_bytes": 0}, r"batch_bytes = 0 must be greater than 0"),
        ({"theta_inits": [None]}, r"theta_inits has 1 entries for 2 sources; give one for each"),
        ({"seed": [1, 2, 3]}, r"seed has 3 entries for 2 sources"),
        ({"seed": [1, -2]}, r"seed = -2 must be at least 0"),
        ({"bases": [np.eye(5)] * 2}, r"basis is the known basis of the oracle"),
        ({"rank": 6}, r"rank = 6 must be at most 5"),
        ({"estimator": "shared"}, r"unknown estimator 'shared'"),
    ],
)
def test_misuse_is_one_line_before_any_fit(members, monkeypatch, settings, message):
    monkeypatch.setattr(batching, "run_request", None)
    monkeypatch.setattr(batching, "solve_batch", None)
    with pytest.raises(InputError, match=message):
        fit_many(members[:2], **{"rank": 2, **settings})


SHARDED = """
import sys
import numpy as np
from simrlhf.core import numerics
numerics.configure()
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import batching, fit_many, kernels

estimator, data, answer = sys.argv[1:]
given = np.load(data)
sources = [Preferences(features=x, labels=y) for x, y in zip(given["features"], given["labels"])]

def spy(problem, *arguments, **settings):
    shards = problem.rows.addressable_shards
    devices = {shard.device for shard in shards}
    print(problem.rows.shape[0], len(devices), *{shard.data.shape[0] for shard in shards})
    return kernels.solve_batch(problem, *arguments, **settings)

batching.solve_batch = spy
found = fit_many(sources, estimator, rank=2, norm_bound=1.2, how="vmap")
np.savez(answer, delta=[f.delta for f in found], message=[f.message for f in found])
"""


@pytest.mark.parametrize(
    ("devices", "estimator", "split"), [(2, "full", "6 2 3"), (3, "share_b", "6 3 2")]
)
def test_a_batch_is_split_over_all_devices(wide, members, tmp_path, devices, estimator, split):
    sources = [members[place] for place in (0, 1, 2, 4)] + [wide.prefs]
    data, answer = tmp_path / "data.npz", tmp_path / "answer.npz"
    np.savez(
        data,
        features=[source.features.reshape(4, 100, 5, 3) for source in sources],
        labels=[source.labels.reshape(4, 100) for source in sources],
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHARDED, estimator, str(data), str(answer)],
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == split  # problems, devices, problems on each
    loop = fit_many(sources, estimator, rank=2, norm_bound=1.2)
    found = np.load(answer)
    for delta, message, expected in zip(found["delta"], found["message"], loop, strict=True):
        scale = np.abs(expected.delta).max()
        np.testing.assert_allclose(delta, expected.delta, rtol=0, atol=RELATIVE * scale)
        assert message == expected.message
    assert np.abs(loop[0].delta - loop[1].delta).max() > 1e-3
