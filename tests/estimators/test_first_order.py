"""First-order training against AdamW in NumPy, the paper's schedule, and the optimum."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit

from simrlhf.core.checks import InputError
from simrlhf.core.links import LOGISTIC
from simrlhf.data.preferences import Preferences
from simrlhf.estimators import (
    FitStatus,
    TrainingSettings,
    adam_steps,
    first_order,
    fit,
    train_first_order,
    training,
)
from simrlhf.estimators.problem import Problem, load_problem
from simrlhf.estimators.training_settings import phases

# a decay and a clip that bind, and a last batch that is not full: 200 pairs in 4, 400 in 7
SHORT = TrainingSettings(
    rank=2, alpha=3.0, epochs=1.5, learning_rate=0.05, batch_size=64, weight_decay=0.1,
    clip_norm=0.02,
)  # fmt: skip


class NumPyTraining:
    """The recipe from its definition, pair by pair, with switches for the wrong ones."""

    def __init__(self, prefs, settings, theta_init=0.0, *, wrong=""):
        self.prefs, self.settings, self.base, self.wrong = prefs, settings, theta_init, wrong
        self.x = prefs.features if settings.share == "B" else np.swapaxes(prefs.features, 1, 2)
        self.per_epoch = -(-prefs.n_total // settings.batch_size)
        total = int(np.ceil(settings.epochs * self.per_epoch))
        share = {"SI": 0, "G": 2 / 3, "WU": 0.1}[settings.variant]
        border = round(share * total)
        size = {"n_users": prefs.n_users, "d1": self.x.shape[1], "d2": self.x.shape[2]}
        start = first_order.first_adapter(settings, personal=border == 0, **size)
        shared, personal = np.array(start.shared), np.array(start.personal)
        if border:
            line = settings.learning_rate * (1 - np.arange(border) / total)
            shared, personal = self.run(shared, personal, 0, line)
            personal = np.tile(personal, (prefs.n_users, 1, 1))
        top = settings.learning_rate / (3 if settings.variant == "G" else 1)
        if wrong == "schedule":  # starts anew at the full rate
            top = settings.learning_rate
        line = top * (1 - np.arange(total - border) / (total - border))
        shared, personal = self.run(shared, personal, border, line)
        delta = settings.alpha / settings.rank * shared @ personal
        self.delta = delta if settings.share == "B" else np.swapaxes(delta, 1, 2)

    def run(self, shared, personal, begin, rates):
        theta = [shared, personal]
        first, second = ([np.zeros_like(part) for part in theta] for _ in range(2))
        for count, rate in enumerate(rates, 1):
            gradient = self.gradient(*theta, begin + count - 1)
            norm = np.sqrt(sum(np.sum(part**2) for part in gradient))
            limit = np.inf if self.wrong == "no clip" else self.settings.clip_norm
            for i, part in enumerate(gradient):
                part = part * min(1.0, limit / norm)
                if self.wrong == "L2":
                    part = part + self.settings.weight_decay * theta[i]
                first[i] = 0.9 * first[i] + 0.1 * part
                second[i] = 0.999 * second[i] + 0.001 * part**2
                step = first[i] / (1 - 0.9**count)
                step = step / (np.sqrt(second[i] / (1 - 0.999**count)) + 1e-8)
                if self.wrong != "L2":
                    step = step + self.settings.weight_decay * theta[i]
                theta[i] = theta[i] - rate * step
        return theta

    def gradient(self, shared, personal, step):
        epoch, batch = divmod(step, self.per_epoch)
        settings, prefs = self.settings, self.prefs
        # equal users: their tiles have no padding, so a place in them is a place in the flat pairs
        order = first_order._order(np.arange(prefs.n_total), settings, epoch)[batch]
        scaling = settings.alpha / settings.rank
        to_shared, to_personal, weight = np.zeros_like(shared), np.zeros_like(personal), 0.0
        for pair in order[order >= 0]:
            user = prefs.users[pair] if len(personal) > 1 else 0
            x, y = self.x[pair], prefs.labels[pair]
            offset = np.sum(prefs.features[pair] * self.base)
            z = scaling * np.sum(x * (shared @ personal[user])) + offset
            slope = prefs.weights[pair] * (expit(z) - y) * scaling
            to_shared += slope * x @ personal[user].T
            to_personal[user] += slope * shared.T @ x
            weight += prefs.weights[pair]
        return [to_shared / weight, to_personal / weight]


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("narrow", {}),
        ("narrow", {"variant": "G"}),
        ("narrow", {"variant": "WU", "draw": "one_uniform"}),
        ("wide", {"share": "B"}),
        ("wide", {"share": "A"}),
    ],
)
def test_training_is_adamw_in_numpy(request, case, change):
    prefs, settings = request.getfixturevalue(case).prefs, replace(SHORT, **change)
    prefs = prefs.reweighted(np.linspace(0.5, 2.0, prefs.n_total))
    base = 0.3 * np.ones((prefs.d1, prefs.d2))
    ours = train_first_order(prefs, settings, theta_init=base)
    # ten steps of a smooth map: rounding grows a little, the rivals are far away
    expected = NumPyTraining(prefs, settings, base).delta
    np.testing.assert_allclose(ours.fit.delta, expected, rtol=0, atol=1e-10)
    assert ours.fit.data_passes == pytest.approx(1 + ours.trace.data_passes[-1])  # the base's
    for wrong in ("L2", "no clip"):
        rival = NumPyTraining(prefs, settings, base, wrong=wrong).delta
        assert np.abs(rival - expected).max() > 1e-4
    if settings.variant == "G":
        rival = NumPyTraining(prefs, settings, base, wrong="schedule").delta
        assert np.abs(rival - expected).max() > 1e-2


def test_the_gradient_of_a_batch_is_finite_differences_of_the_loss(narrow, reference):
    prefs, random = narrow.prefs, np.random.default_rng(0)
    adapter = adam_steps.Adapter(
        jnp.asarray(random.normal(size=(6, 2))), jnp.asarray(random.normal(size=(5, 2, 1)))
    )
    recipe = adam_steps.Recipe(LOGISTIC, 0.5, 0.0, None)
    pairs = adam_steps.flat_pairs(load_problem(prefs))
    ours = np.concatenate(
        [
            np.ravel(part)
            for part in jax.jit(partial(jax.grad(adam_steps.batch_loss), recipe=recipe))(
                adapter, pairs
            )
        ]
    )
    flat = np.concatenate([np.ravel(part) for part in adapter])

    def loss(vector):
        return reference.loss(prefs, 0.5 * vector[:12].reshape(6, 2) @ vector[12:].reshape(5, 2, 1))

    width = 1e-5
    steps = width * np.eye(flat.size)
    expected = [(loss(flat + step) - loss(flat - step)) / (2 * width) for step in steps]
    # the error of central differences is about width^2 and rounding / width
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


def test_the_paper_s_pairs_give_the_paper_s_steps_and_learning_rates():
    def plan(variant, **change):
        return phases(replace(TrainingSettings(), variant=variant, **change), 26_865)

    assert [(p.personal, p.steps) for p in plan("SI")] == [(True, 630)]
    assert [(p.personal, p.steps) for p in plan("G")] == [(False, 420), (True, 210)]
    assert [(p.personal, p.steps) for p in plan("WU")] == [(False, 63), (True, 567)]
    for variant, at_border, start in (("G", 5e-5 / 3, 5e-5 / 3), ("WU", 4.5e-5, 5e-5)):
        first, second = plan(variant)
        assert first.rate(0) == pytest.approx(5e-5, rel=1e-12)
        assert first.rate(first.steps) == pytest.approx(at_border, rel=1e-12)
        assert second.rate(0) == pytest.approx(start, rel=1e-12)
        assert second.rate(second.steps) == 0
        # the rival, each phase on a line to zero of its own, leaves nothing for the printed 1.67e-5
        assert first._replace(horizon=first.steps).rate(first.steps) == 0
    assert [p.steps for p in plan("WU", epochs=30)] == [630, 5670]
    assert [p.steps for p in plan("G", epochs=1.5)] == [210, 105]


def test_every_epoch_reads_every_pair_once_in_an_order_of_its_own():
    places = np.array([0, 1, 2, 5, 6, 7, 9])
    orders = [first_order._order(places, replace(SHORT, batch_size=3), epoch) for epoch in (0, 1)]
    for order in orders:
        assert order.shape == (3, 3)
        np.testing.assert_array_equal(order[2, 1:], -1)
        np.testing.assert_array_equal(np.sort(order.ravel())[2:], places)
    assert (orders[0] != orders[1]).any()


def test_the_factors_start_as_stated():
    size = {"personal": True, "n_users": 2000, "d1": 6, "d2": 1}
    settings = TrainingSettings(rank=4)
    start = first_order.first_adapter(settings, **size)
    assert not np.any(start.shared)
    drawn = np.ravel(start.personal) * np.sqrt(12.0)
    assert np.unique(drawn).size == 8000  # no two users alike
    # one in a thousand for the law that it is; the uniform of the authors' code is far off
    assert scipy.stats.kstest(drawn, "norm").pvalue > 1e-3
    uniform = scipy.stats.uniform(-np.sqrt(3), 2 * np.sqrt(3)).cdf
    assert scipy.stats.kstest(drawn, uniform).pvalue < 1e-9
    code = replace(settings, rank=50, draw="one_uniform")
    start = first_order.first_adapter(code, **{**size, "n_users": 3, "d2": 40})
    personal = np.asarray(start.personal)
    np.testing.assert_array_equal(personal, np.tile(personal[:1], (3, 1, 1)))
    one = np.ravel(personal[0]) * np.sqrt(150.0)
    assert scipy.stats.kstest(one, uniform).pvalue > 1e-3
    assert scipy.stats.kstest(one, "norm").pvalue < 1e-6
    one = first_order.first_adapter(code, **{**size, "personal": False, "d2": 40}).personal
    assert one.shape == (1, 50, 40)
    assert np.std(one) == pytest.approx(1 / np.sqrt(3 * 40), rel=0.05)  # 2000 numbers: 1.6 % s.e.


@pytest.mark.parametrize(("variant", "border"), [("G", 4), ("WU", 1)])
def test_all_users_are_equal_until_the_border_and_not_after(narrow, variant, border):
    settings = replace(SHORT, variant=variant)
    recipe = adam_steps.Recipe(LOGISTIC, settings.scaling, 0.1, 0.02)
    problem = load_problem(narrow.prefs)
    moments = first_order._readings(problem, 5, settings, recipe, [border / 4, (border + 1) / 4])
    at_border, after, _ = (moment.reading.flat for moment in moments)
    assert np.any(at_border)
    np.testing.assert_array_equal(at_border, np.tile(at_border[:1], (5, 1)))
    assert np.ptp(after, axis=0).max() > 1e-3


@pytest.mark.parametrize("case", ["narrow", "wide"])
def test_loss_and_certificate_are_those_of_share_b_recomputed(request, reference, case):
    prefs = request.getfixturevalue(case).prefs
    run = train_first_order(prefs, SHORT)
    assert run.fit.neg_log_likelihood == pytest.approx(
        reference.loss(prefs, run.fit.delta), rel=1e-12
    )
    assert run.fit.gradient_norm == pytest.approx(reference.residual(prefs, run.fit), rel=1e-9)
    assert run.fit.status is FitStatus.MAX_ITERATIONS
    assert "SI training, 1.5 epochs" in run.fit.message
    assert run.trace.loss[-1] == run.fit.neg_log_likelihood
    assert run.trace.loss[0] == pytest.approx(np.log(2), rel=1e-12)  # shared factor 0
    assert run.trace.data_passes.tolist() == [0, 1, 6 / 4 if case == "narrow" else 11 / 7]
    assert reference.distance(run.trace.bases[-1], run.fit.basis) < 1e-7


def test_a_good_learning_rate_ends_at_the_optimum_and_the_papers_does_not_begin(narrow):
    def gap(prefs, variant, learning_rate, epochs):
        best = fit(prefs, "share_b", rank=2)
        settings = TrainingSettings(
            variant=variant, rank=2, epochs=epochs, learning_rate=learning_rate, batch_size=64
        )
        found = train_first_order(prefs, settings, record=()).fit
        return found.neg_log_likelihood - best.neg_log_likelihood, found.status

    # probabilities as labels: at the optimum every pair's own gradient is zero, as is the noise
    for variant in ("SI", "G", "WU"):
        above, status = gap(narrow.soft, variant, 0.1, 300)
        assert -1e-9 < above < 1e-9  # the optimum is known to 1e-8 in the gradient
        assert status is FitStatus.CONVERGED
    # choices as labels: batches differ, and what is left of the learning rate is the floor
    above, status = gap(narrow.prefs, "SI", 0.1, 300)
    assert 1e-5 < above < 5e-3
    assert status is FitStatus.MAX_ITERATIONS
    above, status = gap(narrow.prefs, "SI", 5e-5, 3)
    assert above == pytest.approx(gap(narrow.prefs, "SI", 5e-5, 1)[0], rel=0.01)
    assert above > 0.2  # of the 0.24 between log 2 and the optimum
    # no learning rate that is taken makes it overflow
    above, status = gap(narrow.prefs, "SI", 1.0, 30)
    assert np.isfinite(above)
    assert above > 0


def test_the_order_of_the_pairs_matters_to_batches_only(narrow):
    prefs = narrow.prefs
    turned = np.random.default_rng(0).permutation(prefs.n_total)
    other = Preferences.from_pairs(
        prefs.users[turned], prefs.features[turned], prefs.labels[turned]
    )

    def change(batch_size):
        settings = replace(SHORT, batch_size=batch_size)
        found = [train_first_order(p, settings, record=()).fit.delta for p in (prefs, other)]
        return np.abs(found[0] - found[1]).max()

    assert change(200) < 1e-12  # sums in another order
    assert change(64) > 1e-3


def test_a_pair_of_weight_zero_is_no_pair(narrow):
    keep = np.arange(narrow.prefs.n_total) % 40 < 25
    off, without = (
        train_first_order(prefs, SHORT, record=()).fit
        for prefs in (narrow.prefs.reweighted(1.0 * keep), narrow.prefs.select(keep))
    )
    assert off.data_passes == without.data_passes == 1.5
    np.testing.assert_allclose(off.delta, without.delta, rtol=0, atol=1e-12)


def test_a_seed_gives_the_same_bits_and_another_does_not(narrow):
    first, again, other = (
        train_first_order(narrow.prefs, replace(SHORT, seed=seed)).fit.delta for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_fit_trains_for_max_iterations_epochs(narrow):
    found = fit(narrow.prefs, "first_order", rank=2, max_iterations=3, seed=5)
    settings = TrainingSettings(variant="WU", rank=2, epochs=3, learning_rate=0.03, seed=5)
    np.testing.assert_array_equal(found.delta, train_first_order(narrow.prefs, settings).fit.delta)
    assert (found.iterations, found.data_passes) == (3, 3.0)
    with pytest.raises(InputError, match="first_order takes no norm_bound"):
        fit(narrow.prefs, "first_order", rank=2, norm_bound=1.0)


def test_tuning_keeps_the_lowest_final_loss(narrow):
    runs = {rate: train_first_order(narrow.prefs, replace(SHORT, learning_rate=rate)).fit
            for rate in (0.01, 0.05)}  # fmt: skip
    best = min(runs, key=lambda rate: runs[rate].neg_log_likelihood)
    chosen = training.tuned(narrow.prefs, SHORT, list(runs))
    assert chosen.settings.learning_rate == best
    assert chosen.fit.neg_log_likelihood == runs[best].neg_log_likelihood


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "GW"}, r"unknown variant 'GW': choose one of SI, G, WU"),
        ({"share": "C"}, r"unknown share 'C': choose one of B, A"),
        ({"draw": "kaiming"}, r"unknown draw 'kaiming': choose one of normal, one_uniform"),
        ({"epochs": 0}, r"epochs = 0 must be greater than 0"),
        ({"batch_size": 0}, r"batch_size = 0 must be at least 1"),
        ({"batch_size": 1.5}, r"batch_size must be an integer, got 1\.5"),
        ({"rank": 0}, r"rank = 0 must be at least 1"),
        ({"learning_rate": -1e-3}, r"learning_rate = -0\.001 must be greater than 0"),
        ({"learning_rate": 2.0}, r"learning_rate = 2 must be at most 1; an AdamW step moves"),
        ({"weight_decay": -0.1}, r"weight_decay = -0\.1 must be at least 0"),
        ({"clip_norm": 0.0}, r"clip_norm = 0 must be greater than 0; or None"),
        ({"alpha": 0.0}, r"alpha = 0 must be greater than 0; or None for half the rank"),
        ({"seed": -1}, r"seed = -1 must be at least 0"),
    ],
)
def test_a_bad_setting_is_refused_when_it_is_made(settings, message):
    with pytest.raises(InputError, match=message):
        TrainingSettings(**settings)


def test_settings_that_do_not_fit_the_data_are_refused(narrow, wide):
    with pytest.raises(InputError, match=r"rank = 32 must be at most 5; the limit of first_order"):
        train_first_order(narrow.prefs)
    with pytest.raises(InputError, match=r"rank = 3 must be below d2 = 3 .* the full model"):
        train_first_order(wide.prefs, TrainingSettings(rank=3, share="A"))
    one_step = TrainingSettings(variant="WU", rank=2, epochs=1, batch_size=500)
    with pytest.raises(InputError, match=r"make 1 step, but WU has two phases; raise epochs"):
        train_first_order(narrow.prefs, one_step)
    with pytest.raises(InputError, match=r"record must lie within 0 and epochs = 1\.5"):
        train_first_order(narrow.prefs, SHORT, record=[3.0])
    with pytest.raises(InputError, match=r"settings must be TrainingSettings, got dict"):
        train_first_order(narrow.prefs, {"rank": 2})


def test_the_steps_lower_for_cuda():
    def spec(*shape, dtype=jnp.float64):
        return jax.ShapeDtypeStruct(shape, dtype)

    adapter = adam_steps.Adapter(spec(6, 2), spec(3, 2, 2))
    recipe = adam_steps.Recipe(LOGISTIC, 0.5, 0.0, 1.0)
    state = jax.eval_shape(partial(adam_steps.start_state, recipe=recipe), adapter)
    users = spec(3, dtype=jnp.int32)
    problem = Problem(spec(3, 8, 2, 6), spec(3, 8), spec(3, 8), spec(3, 8), users)
    pairs = jax.eval_shape(adam_steps.flat_pairs, problem)
    count = spec(dtype=jnp.int64)
    arguments = (
        state, pairs, spec(3, 8, dtype=jnp.int32), (count, count), (spec(), spec(), count)
    )  # fmt: skip
    for function, given in (
        (partial(adam_steps.advance, recipe=recipe), arguments),
        (partial(adam_steps.read, recipe=recipe, n_users=3), (adapter, problem)),
    ):
        lowered = jax.export.export(jax.jit(function), platforms=["cuda"])(*given)
        assert lowered.platforms == ("cuda",)
        assert "lapack" not in lowered.mlir_module()
