"""Truncated conjugate gradients in a trust region (Steihaug), preconditioned.

Hessian products may carry side results that are linear in the direction (here: projected features
and the users' responses). They are accumulated along the way, so that after the step they are known
without another look at the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# accept a step from this ratio of true to predicted decrease on
_ACCEPT = 0.05
# rounding of the mean loss, relative: added to both sides of the ratio
_ROUNDING = 1e-13


class HessianProduct(NamedTuple):
    """`H p` and a pytree of arrays linear in `p`."""

    product: jax.Array
    linear: Any


class Step(NamedTuple):
    """A step, the model's change `<g, s> + <s, H s>/2`, side results, and products used."""

    step: jax.Array
    model_change: jax.Array
    linear: Any
    products: jax.Array


class Judgement(NamedTuple):
    """Whether a step is taken, and the radius of the next one; zero where rounding stops it."""

    accept: jax.Array
    radius: jax.Array


class _Search(NamedTuple):
    step: jax.Array
    image: jax.Array
    linear: Any
    residual: jax.Array
    direction: jax.Array
    energy: jax.Array
    products: jax.Array
    done: jax.Array


def steihaug(
    gradient: jax.Array,
    hessian: Callable[[jax.Array], HessianProduct],
    precondition: Callable[[jax.Array], jax.Array],
    *,
    no_move: Any,
    radius: jax.Array,
    tolerance: jax.Array,
    max_products: int,
) -> Step:
    """Approximately minimise `<g, s> + <s, H s>/2` over `||s||_F <= radius`.

    Stops when the residual falls below `tolerance`, the step meets the boundary, the curvature is
    not positive (then it goes to the boundary), or `max_products` are spent.

    Args:
        gradient: `g`, of any shape.
        hessian: `p -> HessianProduct`.
        precondition: symmetric positive approximation of the inverse of `H`.
        no_move: the side results of the zero direction.
    """

    def search(state: _Search) -> _Search:
        seen = hessian(state.direction)
        bend = jnp.vdot(state.direction, seen.product)
        length = state.energy / jnp.where(bend > 0, bend, 1.0)
        crosses = jnp.linalg.norm(state.step + length * state.direction) > radius
        leave = (bend <= 0) | crosses
        length = jnp.where(leave, _to_boundary(state.step, state.direction, radius), length)
        residual = state.residual + length * seen.product
        refined = precondition(residual)
        energy = jnp.vdot(residual, refined)
        return _Search(
            step=state.step + length * state.direction,
            image=state.image + length * seen.product,
            linear=jax.tree.map(lambda a, b: a + length * b, state.linear, seen.linear),
            residual=residual,
            direction=energy / state.energy * state.direction - refined,
            energy=energy,
            products=state.products + 1,
            done=leave | (jnp.linalg.norm(residual) <= tolerance) | (energy <= 0),
        )

    refined = precondition(gradient)
    energy = jnp.vdot(gradient, refined)
    start = _Search(
        step=jnp.zeros_like(gradient),
        image=jnp.zeros_like(gradient),
        linear=no_move,
        residual=gradient,
        direction=-refined,
        energy=energy,
        products=jnp.asarray(0),
        done=(jnp.linalg.norm(gradient) <= tolerance) | (energy <= 0),
    )
    end = jax.lax.while_loop(lambda s: ~s.done & (s.products < max_products), search, start)
    change = jnp.vdot(gradient, end.step) + 0.5 * jnp.vdot(end.step, end.image)
    return Step(end.step, change, end.linear, end.products)


def judge(
    step: Step,
    *,
    losses: tuple[jax.Array, jax.Array],
    gradients: tuple[jax.Array, jax.Array],
    radius: jax.Array,
    largest: float,
) -> Judgement:
    """Compare a step with what its model promised.

    Args:
        losses, gradients: at the old and at the new point; norms of gradients.
        radius: of the region in which the step was made.
        largest: radius that none exceeds.
    """
    (old, new), (old_norm, new_norm) = losses, gradients
    slack = _ROUNDING * jnp.maximum(1.0, jnp.abs(old))
    ratio = (old - new + slack) / (slack - step.model_change)
    # below rounding the loss cannot judge a step; the gradient can
    invisible = step.model_change > -0.01 * slack
    stuck = invisible & (new_norm > 0.9 * old_norm)
    length = jnp.linalg.norm(step.step)
    grown = jnp.where(
        (ratio > 0.75) & (length > 0.99 * radius), jnp.minimum(2.0 * radius, largest), radius
    )
    # not "ratio < 0.25": where a reward overflowed the ratio is not a number
    region = jnp.where(stuck, 0.0, jnp.where(ratio >= 0.25, grown, 0.25 * length))
    return Judgement((ratio > _ACCEPT) & ~stuck, region)


def _to_boundary(step: jax.Array, direction: jax.Array, radius: jax.Array) -> jax.Array:
    """Positive root `t` of `||step + t direction|| = radius`."""
    a, b = jnp.vdot(direction, direction), jnp.vdot(step, direction)
    c = jnp.vdot(step, step) - radius**2
    root = jnp.sqrt(jnp.maximum(b * b - a * c, 0.0))
    return (root - b) / jnp.where(a > 0, a, 1.0)
