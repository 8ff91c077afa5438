"""`sample_preferences`: from a world to the comparisons its users make."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics, streams
from simrlhf.core.links import Link
from simrlhf.data.preferences import Preferences
from simrlhf.world.config import TRAJECTORIES
from simrlhf.world.feature_laws import draw_features
from simrlhf.world.generation import World
from simrlhf.world.trajectories import TrajectoryLaw, draw_differences, trajectory_law

# pairs drawn over pairs wanted, from which on users are drawn in groups
_LARGEST_WASTE = 4


def sample_preferences(
    world: World, n_pairs: int | np.ndarray = 200, *, seed: int = 0, soft: bool = False
) -> Preferences:
    """Draw pairs and labels for every user.

    Samples are nested: with the same seed, the first pairs of a longer sample are the pairs of a
    shorter one, features and labels alike.

    Args:
        world: the truth.
        n_pairs: pairs per user: one number, which is the mean where the world's users differ
            (`World.counts`), or `(N,)`.
        seed: of features and labels (streams `features` and `labels`, one per user).
        soft: give `E[o | x]` (the probability; the mean for the identity link) instead of a drawn
            label, which switches the label noise off.
    """
    checks.require(
        isinstance(world, World), f"world must come from make_world, got {type(world).__name__}"
    )
    config = world.config
    counts = _counts(n_pairs, world)
    size = config.d1 * config.d2
    offsets = np.concatenate([[0], np.cumsum(counts)])
    features = np.empty((int(offsets[-1]), config.d1, config.d2))
    labels = np.empty(int(offsets[-1]))
    with numerics.float64_scope():
        law = None
        if config.features == TRAJECTORIES:
            assert world.mdp is not None
            assert world.behaviours is not None
            law = trajectory_law(world.mdp, world.behaviours, config.n_users)
        feature_keys, label_keys = (
            _user_keys(streams.stream(seed, purpose), config.n_users)
            for purpose in ("features", "labels")
        )
        for members, height in _groups(counts):
            x, y = _draw(
                feature_keys[members],
                label_keys[members],
                jnp.asarray(world.theta[members].reshape(-1, size)),
                root=None if world.feature_root is None else jnp.asarray(world.feature_root),
                law=config.features,
                trajectories=law and law._replace(start=law.start[members]),
                shared_start=world.behaviours is None or world.behaviours.shared_start,
                link=world.link,
                noise=jnp.asarray(config.noise),
                n_pairs=height,
                soft=soft,
            )
            drawn = np.asarray(x).reshape(-1, height, config.d1, config.d2), np.asarray(y)
            for place, user in enumerate(members):
                mine = slice(offsets[user], offsets[user + 1])
                features[mine] = drawn[0][place, : counts[user]]
                labels[mine] = drawn[1][place, : counts[user]]
    users = np.repeat(np.arange(config.n_users), counts)
    return Preferences.from_pairs(users, features, labels, link=world.link.name)


def _groups(counts: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Users to draw together and their pairs, those not wanted included.

    All of a group are drawn as many. Where that is much more than what is wanted, groups hold
    counts within a factor of two; their heights are powers of two, so that few are ever compiled.
    """
    most = int(counts.max())
    if counts.size * most <= _LARGEST_WASTE * int(counts.sum()):
        yield np.arange(counts.size), most
        return
    heights = 2 ** np.ceil(np.log2(counts)).astype(np.int64)
    for height in np.unique(heights):
        yield np.flatnonzero(heights == height), int(height)


def _counts(n_pairs: int | np.ndarray, world: World) -> np.ndarray:
    n_users = world.n_users
    if isinstance(n_pairs, str | None) or np.isscalar(n_pairs):
        return world.counts(checks.integer("n_pairs", n_pairs, low=1))
    counts = checks.names("n_pairs", n_pairs)
    checks.shape("n_pairs", counts, (n_users,), remedy="one number, or one for each user")
    checks.require(
        np.issubdtype(counts.dtype, np.integer) and bool((counts >= 1).all()),
        f"n_pairs must be integers of at least 1, got {counts.min()} of type {counts.dtype}",
    )
    return counts


@partial(jax.jit, static_argnames="n_users")
def _user_keys(root: jax.Array, n_users: int) -> jax.Array:
    return jax.vmap(lambda user: jax.random.fold_in(root, user))(jnp.arange(n_users))


@partial(jax.jit, static_argnames=("law", "shared_start", "link", "n_pairs", "soft"))
def _draw(
    feature_keys: jax.Array,
    label_keys: jax.Array,
    theta: jax.Array,
    *,
    root: jax.Array | None = None,
    law: str,
    trajectories: TrajectoryLaw | None = None,
    shared_start: bool = True,
    link: Link,
    noise: jax.Array,
    n_pairs: int,
    soft: bool,
) -> tuple[jax.Array, jax.Array]:
    def one_user(given: tuple) -> tuple[jax.Array, jax.Array]:
        feature_key, label_key, reward, start = given
        if trajectories is None:
            x = draw_features(feature_key, law=law, n_pairs=n_pairs, size=reward.size, root=root)
        else:
            mine = trajectories._replace(start=start)
            x = draw_differences(feature_key, mine, n_pairs=n_pairs, shared_start=shared_start)
        mean = link.mean(x @ reward)
        if soft:
            return x, mean
        if link.is_preference:
            return x, (jax.random.uniform(label_key, (n_pairs,)) < mean).astype(x.dtype)
        return x, mean + noise * jax.random.normal(label_key, (n_pairs,))

    starts = None if trajectories is None else trajectories.start
    return jax.lax.map(one_user, (feature_keys, label_keys, theta, starts))
