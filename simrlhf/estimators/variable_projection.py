"""Classes whose users' parameters enter linearly: minimise over what is shared, users eliminated.

A class says how its shared parameters `eta` turn features into what a user's parameters multiply,

    <Delta_i, x_ij> = <z_ij(eta), w_i> + offset_ij(eta),

scaled so that `||w_i||` is the norm on which ridge and norm bound act. For given `eta` the users'
convex problems are solved exactly (`user_newton`); `f(eta) = min_w F(eta, w)` is minimised by the
trust-region Newton method of `share_b_solver`. Derivatives are those of `xi -> F(retract(eta, xi),
w)` at `xi = 0` by JAX, so the curvature of the manifold is in them; the users' answer to a move of
`eta` follows from their optimality conditions. No preconditioner: the classes here have too
little in common for one. Each Hessian product costs about four data passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from simrlhf.core.links import Link
from simrlhf.estimators import trust_region
from simrlhf.estimators.kernels import Answer, Limits, Model
from simrlhf.estimators.problem import Problem
from simrlhf.estimators.share_b_solver import clip_to_ball, respond
from simrlhf.estimators.user_newton import UserFits, fit_users, longest_step, tile_rewards

_MAX_PRODUCTS = 100
_FIRST_RADIUS = 1.0
_LARGEST_RADIUS = 64.0
_SMALLEST_RADIUS = 1e-13
_FORCING = 0.2
_SUPERLINEAR = 3.0
_INNER = 1e-9
# one for each look at the features that a product, or a new point, takes
_PASSES_PER_PRODUCT = 4
_PASSES_PER_POINT = 2

Shared = Any


@dataclass(frozen=True)
class Shape:
    """A class of deviations, as functions of its shared parameters `eta`, a pytree.

    Attributes:
        features: `(problem, eta)` to `z (T, n, q)` and the reward differences `(T, n)` that no
            user's parameter enters, or `None`.
        retract: `(eta, xi)` to the shared parameters at the step `xi`, a pytree like `eta`; smooth,
            with `retract(eta, 0) = eta` up to rounding.
        tangent: `(eta, xi)` to the part of `xi` that changes the fit.
        size: `q`, from the problem and the rank.
        penalty: what the ridge multiplies beside `||w_i||^2 / 2`, from `eta` and the number of
            users; nothing by default.
    """

    features: Callable[[Problem, Shared], tuple[jax.Array, jax.Array | None]]
    retract: Callable[[Shared, Shared], Shared]
    tangent: Callable[[Shared, Shared], Shared]
    size: Callable[[Problem, int], int]
    penalty: Callable[[Shared, int], jax.Array] | None = None


class ProjectedFit(NamedTuple):
    """`shared` and `factors (N, q)` at the end, and how it ended, as in `Answer`."""

    shared: Shared
    factors: jax.Array
    multiplier: jax.Array
    loss: jax.Array
    gradient: jax.Array
    stalled: jax.Array
    iterations: jax.Array
    data_passes: jax.Array

    def answer(
        self, delta: jax.Array, parts: Any, *, passes: jax.Array | int = 0, **separation: Any
    ) -> Answer:
        """The answer of a kernel, with the `passes` that its start took."""
        return Answer(
            delta=delta,
            parts=parts,
            multipliers=self.multiplier,
            loss=self.loss,
            gradient=self.gradient,
            stalled=self.stalled,
            iterations=self.iterations,
            data_passes=self.data_passes + passes,
            **separation,
        )


class _Point(NamedTuple):
    shared: Shared
    offsets: jax.Array
    projected: jax.Array
    fits: UserFits
    loss: jax.Array
    gradient: jax.Array


class _State(NamedTuple):
    point: _Point
    radius: jax.Array
    iterations: jax.Array
    data_passes: jax.Array


def solve_projected(
    problem: Problem, shared: Shared, shape: Shape, limits: Limits, model: Model
) -> ProjectedFit:
    """Minimise the mean loss over a class from the shared parameters `shared`."""
    link, n_users, rank = model
    total = problem.weights.sum()
    inner = jnp.minimum(0.1 * limits.tolerance, _INNER) * total

    def slopes_at(shared: Shared) -> _Slopes:
        return _Slopes(problem, shared, shape, limits.ridge, model)

    def at(shared: Shared, factors: jax.Array) -> _Point:
        projected, extra = shape.features(problem, shared)
        offsets = problem.offsets if extra is None else problem.offsets + extra
        fits = fit_users(
            problem._replace(offsets=offsets),
            projected,
            clip_to_ball(factors, limits.radius),
            link=link,
            radius=limits.radius,
            ridge=limits.ridge,
            tolerance=inner,
        )
        slope = slopes_at(shared)
        zero = jnp.zeros(slope.size)
        gradient = slope.in_shared(zero, fits.factors)
        loss = fits.loss.sum() / total + slope.penalty(zero)
        return _Point(shared, offsets, projected, fits, loss, slope.tangent(gradient))

    def norm_of(point: _Point) -> jax.Array:
        return jnp.hypot(jnp.linalg.norm(point.gradient), point.fits.residual / total)

    def unfinished(state: _State) -> jax.Array:
        return (
            (norm_of(state.point) > limits.tolerance)
            & (state.iterations < limits.max_iterations)
            & (state.radius > _SMALLEST_RADIUS)
        )

    def outer_step(state: _State) -> _State:
        old = state.point
        slope = slopes_at(old.shared)
        size = jnp.linalg.norm(old.gradient)
        aim = size * jnp.minimum(_FORCING, _SUPERLINEAR * size / first_norm)
        step = trust_region.steihaug(
            old.gradient,
            lambda direction: slope.hessian(direction, old.fits),
            lambda residual: residual,
            no_move=jnp.zeros_like(old.fits.factors),
            radius=state.radius,
            tolerance=jnp.maximum(aim, 0.3 * limits.tolerance),
            max_products=_MAX_PRODUCTS,
        )
        new = at(slope.moved(step.step), old.fits.factors + _shortened(problem, old, step, link))
        accept, region = trust_region.judge(
            step,
            losses=(old.loss, new.loss),
            gradients=(norm_of(old), norm_of(new)),
            radius=state.radius,
            largest=_LARGEST_RADIUS,
        )
        point = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)
        passes = _PASSES_PER_PRODUCT * step.products + _PASSES_PER_POINT
        return _State(point, region, state.iterations + 1, state.data_passes + passes)

    start = at(shared, jnp.zeros((n_users, shape.size(problem, rank))))
    first_norm = jnp.linalg.norm(start.gradient)
    state = _State(
        start, jnp.asarray(_FIRST_RADIUS), jnp.asarray(0), jnp.asarray(_PASSES_PER_POINT)
    )
    end = jax.lax.while_loop(unfinished, outer_step, state)
    fits = end.point.fits
    return ProjectedFit(
        shared=end.point.shared,
        factors=fits.factors,
        multiplier=fits.multiplier,
        loss=end.point.loss,
        gradient=norm_of(end.point),
        stalled=end.radius <= _SMALLEST_RADIUS,
        iterations=end.iterations,
        data_passes=end.data_passes,
    )


class _Slopes:
    """Derivatives of the mean loss at `retract(shared, xi)`, `xi` and its images as one vector."""

    def __init__(
        self, problem: Problem, shared: Shared, shape: Shape, ridge: jax.Array, model: Model
    ) -> None:
        self._problem, self._shared, self._shape = problem, shared, shape
        self._ridge, self._model = ridge, model
        self._total = problem.weights.sum()
        flat, self._unravel = ravel_pytree(shared)
        self.size = flat.size

    def moved(self, xi: jax.Array) -> Shared:
        return self._shape.retract(self._shared, self._unravel(xi))

    def tangent(self, xi: jax.Array) -> jax.Array:
        return ravel_pytree(self._shape.tangent(self._shared, self._unravel(xi)))[0]

    def loss(self, xi: jax.Array, factors: jax.Array) -> jax.Array:
        """Without the ridge on `w`, which does not depend on `xi`."""
        projected, extra = self._shape.features(self._problem, self.moved(xi))
        rewards = tile_rewards(projected, factors[self._problem.users]) + self._problem.offsets
        rewards = rewards if extra is None else rewards + extra
        losses = self._problem.weights * self._model.link.loss(rewards, self._problem.labels)
        return losses.sum() / self._total + self.penalty(xi)

    def penalty(self, xi: jax.Array) -> jax.Array:
        if self._shape.penalty is None:
            return jnp.zeros(())
        own = self._shape.penalty(self.moved(xi), self._model.n_users)
        return self._ridge * own / self._total

    def in_shared(self, xi: jax.Array, factors: jax.Array) -> jax.Array:
        return jax.grad(self.loss)(xi, factors)

    def hessian(self, direction: jax.Array, fits: UserFits) -> trust_region.HessianProduct:
        """Of the reduced loss: `w` answers the move so that its own optimality conditions hold."""
        zero = jnp.zeros_like(direction)

        def push(xi: jax.Array) -> jax.Array:
            return jax.grad(self.loss, argnums=1)(xi, fits.factors)

        shove = jax.jvp(push, (zero,), (direction,))[1]
        response = respond(fits, self._total * shove)
        product = jax.jvp(self.in_shared, (zero, fits.factors), (direction, response))[1]
        return trust_region.HessianProduct(self.tangent(product), response)


def _shortened(problem: Problem, old: _Point, step: trust_region.Step, link: Link) -> jax.Array:
    """The users' predicted answer, cut where it would change rewards beyond the model's reach."""
    change = tile_rewards(old.projected, step.linear[problem.users])
    n_users = step.linear.shape[0]
    share = longest_step(problem, old.fits.rewards, change, link=link, n_users=n_users)
    return share[:, None] * step.linear


def orthonormal_step(basis: jax.Array, step: jax.Array) -> jax.Array:
    """Orthonormal basis `(B + K) L'^{-1}`, `I + K'K = L L'`, for a horizontal `K`."""
    k = basis.shape[-1]
    gram = jnp.swapaxes(step, -1, -2) @ step
    factor = jnp.linalg.cholesky(gram + jnp.broadcast_to(jnp.eye(k), gram.shape))
    turned = jax.scipy.linalg.solve_triangular(
        factor, jnp.swapaxes(basis + step, -1, -2), lower=True
    )
    return jnp.swapaxes(turned, -1, -2)
