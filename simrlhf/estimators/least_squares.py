"""`least_squares`: Share-B by regression on the labels, as if they were rewards with noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from simrlhf.core.links import IDENTITY
from simrlhf.estimators.custom import mean_loss
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.kernels import Answer, Kernel, Limits, Model
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.share_b import finish_shared, given_start, share_b


def _least_squares(
    problem: Problem, start: jax.Array | None, limits: Limits, model: Model
) -> Answer:
    """Minimise the quadratic model of the loss at the base reward `o`,

        sum_ij weight_ij I(o_ij) (<Delta_i, x_ij> - r_ij)^2 / 2,   r = -loss'(o, y) / I(o),

    over the class of Share-B: one step of Fisher scoring from `Delta = 0`. For the logistic link
    without a base it is regression on `4 (y - 1/2)`, for the identity link maximum likelihood.
    Fails where rewards are large: labels saturate, so `Delta` is shrunken, and other than for
    Gaussian features also turned.
    """
    link = model.link
    information = link.information(problem.offsets)
    # where a label is certain there is no information, and no working response either
    known = information > 0
    response = -link.loss_slope(problem.offsets, problem.labels)
    working = problem._replace(
        labels=jnp.where(known, response / jnp.where(known, information, 1.0), 0.0),
        weights=problem.weights * information,
        offsets=jnp.zeros_like(problem.offsets),
    )
    # means are over pairs, here and in `fit`; share_b's are over weights
    scale = working.weights.sum() / problem.weights.sum()
    inner = limits._replace(tolerance=limits.tolerance / scale)
    found = share_b(working, start, inner, model._replace(link=IDENTITY))
    return found._replace(
        parts=(*found.parts, mean_loss(problem, found.delta, link)),
        loss=found.loss * scale,
        gradient=found.gradient * scale,
        data_passes=found.data_passes + 1,
        growing=jnp.zeros_like(found.delta),
    )


def _finish(request: Request, answer: Answer) -> Outcome:
    *parts, loss = answer.parts
    outcome = finish_shared(request, answer._replace(parts=tuple(parts)))
    note = "" if request.link is IDENTITY else "certified is the least-squares fit to the labels"
    return outcome._replace(neg_log_likelihood=float(loss), note=note)


LEAST_SQUARES = Estimator(
    "least_squares",
    "Share-B by least squares on the labels: one scoring step from zero.",
    "reduced-rank regression on labels; theory.md section 1, identity link",
    Kernel(_least_squares, _finish, start=given_start),
    needs_rank=True,
)
