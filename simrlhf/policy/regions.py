"""The shape of a set of rewards in coordinates of its own, as the search for the worst one sees it.

A set is `{ origin + M v : room_c(v) >= 0 for every c }` with concave rooms, all of them positive at
`v = 0`. The barrier is `-sum_c log room_c`. With multipliers `eta_c >= 0` every v has

    min over the set of c + a'v  >=  min_v L(v),   L(v) = c + a'v - sum_c eta_c room_c(v),

which is how a mixture's worst value is bounded from below where it has no closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from simrlhf.core.links import Link

# Newton steps to the minimum of L; from a central point it takes a few
_STEPS = 30
# of the decrement of L, and what rounding may do to L, in units of values that are of order one
_FLAT = 1e-20
_ROUNDING = 1e-14


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class Ball:
    """`||v|| <= 1`."""

    def rooms(self, v: jax.Array) -> jax.Array:
        """`(1,)`."""
        return (1.0 - v @ v)[None]

    def slopes(self, v: jax.Array) -> jax.Array:
        """Gradients of the rooms, `(1, q)`."""
        return -2.0 * v[None]

    def bend(self, v: jax.Array, multipliers: jax.Array) -> jax.Array:
        """`sum_c eta_c` times the Hessian of room c, `(q, q)`."""
        return -2.0 * multipliers[0] * jnp.eye(v.size)

    def least(
        self, offset: jax.Array, slope: jax.Array, v: jax.Array, multipliers: jax.Array
    ) -> jax.Array:
        """The least of `offset + slope'v` over the ball, exactly."""
        return offset - jnp.linalg.norm(slope)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["features", "rewards", "labels", "weights", "level", "budget", "factor", "turn"],
    meta_fields=["link"],
)
@dataclass(frozen=True)
class Likely:
    """Parameters whose likelihood is near the largest, within a ball: of one user, or stacked.

        room_0 = (level - F(v)) / budget,   F(v) = sum_j weight_j loss(rewards_j + <features_j, v>)
        room_1 = 1 - ||factor + turn v||^2

    Attributes:
        features: `(n, q)`.
        rewards, labels, weights: `(n,)`; pairs of weight 0 are padding.
        level, budget: of the loss: `F <= level`, and the unit of its room.
        factor, turn: `(q,)`, `(q, q)` with an inverse, in units of the norm bound.
        link: of the labels; its loss must be convex.
    """

    features: jax.Array
    rewards: jax.Array
    labels: jax.Array
    weights: jax.Array
    level: jax.Array
    budget: jax.Array
    factor: jax.Array
    turn: jax.Array
    link: Link

    def loss(self, v: jax.Array) -> jax.Array:
        """`F(v)`."""
        return self.weights @ self.link.loss(self._seen(v), self.labels)

    def rooms(self, v: jax.Array) -> jax.Array:
        """`(2,)`."""
        inside = self.factor + self.turn @ v
        return jnp.stack([(self.level - self.loss(v)) / self.budget, 1.0 - inside @ inside])

    def slopes(self, v: jax.Array) -> jax.Array:
        """Gradients of the rooms, `(2, q)`."""
        scores = self.weights * self.link.loss_slope(self._seen(v), self.labels)
        inside = self.factor + self.turn @ v
        return jnp.stack([-(scores @ self.features) / self.budget, -2.0 * inside @ self.turn])

    def bend(self, v: jax.Array, multipliers: jax.Array) -> jax.Array:
        """`sum_c eta_c` times the Hessian of room c, `(q, q)`."""
        curved = self.weights * self.link.loss_curvature(self._seen(v), self.labels)
        of_loss = self.features.T @ (curved[:, None] * self.features) / self.budget
        return -multipliers[0] * of_loss - 2.0 * multipliers[1] * self.turn.T @ self.turn

    def least(
        self, offset: jax.Array, slope: jax.Array, v: jax.Array, multipliers: jax.Array
    ) -> jax.Array:
        """A lower bound of `offset + slope'v` over the set, for any multipliers.

        L is minimised by Newton's method. Where that leaves a gradient g, L is convex, so no member
        is below `L(v) - |<g, u - v>|`, and members have `||factor + turn u|| <= 1`.
        """

        def value(v: jax.Array) -> jax.Array:
            return offset + slope @ v - multipliers @ self.rooms(v)

        def gradient(v: jax.Array) -> jax.Array:
            return slope - multipliers @ self.slopes(v)

        def more(state: tuple) -> jax.Array:
            _, decrement, count = state
            return (decrement > _FLAT) & (count < _STEPS)

        def iterate(state: tuple) -> tuple:
            v, _, count = state
            pull = gradient(v)
            factor = jax.scipy.linalg.cho_factor(-self.bend(v, multipliers))
            step = -jax.scipy.linalg.cho_solve(factor, pull)
            decrement = -(pull @ step)

            here = value(v) + _ROUNDING

            def too_far(size: jax.Array) -> jax.Array:
                wanted = here - 0.1 * size * decrement
                return ~(value(v + size * step) <= wanted) & (size > 1e-6)

            size = jax.lax.while_loop(too_far, lambda size: 0.5 * size, jnp.asarray(1.0))
            moved = jnp.isfinite(decrement) & (size > 1e-6)
            return (
                jnp.where(moved, v + size * step, v),
                jnp.where(moved, decrement, 0.0),
                count + 1,
            )

        v, *_ = jax.lax.while_loop(more, iterate, (v, jnp.asarray(jnp.inf), jnp.asarray(0)))
        left = jnp.linalg.solve(self.turn.T, gradient(v))
        reach = 1.0 + jnp.linalg.norm(self.factor + self.turn @ v)
        return value(v) - jnp.linalg.norm(left) * reach

    def _seen(self, v: jax.Array) -> jax.Array:
        return self.rewards + self.features @ v


Region = Ball | Likely
