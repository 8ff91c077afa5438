"""`sample_preferences`: from a world to the comparisons its users make."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from simrlhf.core import checks, numerics, streams
from simrlhf.core.links import Link
from simrlhf.data.preferences import Preferences
from simrlhf.world.feature_laws import draw_features
from simrlhf.world.generation import World


def sample_preferences(
    world: World, n_pairs: int | np.ndarray = 200, *, seed: int = 0, soft: bool = False
) -> Preferences:
    """Draw pairs and labels for every user.

    Samples are nested: with the same seed, the first pairs of a longer sample are the pairs of a
    shorter one, features and labels alike.

    Args:
        world: the truth.
        n_pairs: pairs per user, one number or `(N,)`.
        seed: of features and labels (streams `features` and `labels`, one per user).
        soft: give `E[o | x]` (the probability; the mean for the identity link) instead of a drawn
            label, which switches the label noise off.
    """
    checks.require(
        isinstance(world, World), f"world must come from make_world, got {type(world).__name__}"
    )
    config = world.config
    counts = _counts(n_pairs, config.n_users)
    most, size = int(counts.max()), config.d1 * config.d2
    with numerics.float64_scope():
        x, y = _draw(
            _user_keys(streams.stream(seed, "features"), config.n_users),
            _user_keys(streams.stream(seed, "labels"), config.n_users),
            jnp.asarray(world.theta.reshape(config.n_users, size)),
            law=config.features,
            link=world.link,
            noise=jnp.asarray(config.noise),
            n_pairs=most,
            soft=soft,
        )
        features = np.asarray(x).reshape(config.n_users, most, config.d1, config.d2)
        labels = np.asarray(y)
    mask = np.arange(most) < counts[:, None]
    return Preferences(features=features, labels=labels, mask=mask, link=world.link.name)


def _counts(n_pairs: int | np.ndarray, n_users: int) -> np.ndarray:
    if isinstance(n_pairs, str | None) or np.isscalar(n_pairs):
        return np.full(n_users, checks.integer("n_pairs", n_pairs, low=1))
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


@partial(jax.jit, static_argnames=("law", "link", "n_pairs", "soft"))
def _draw(
    feature_keys: jax.Array,
    label_keys: jax.Array,
    theta: jax.Array,
    *,
    law: str,
    link: Link,
    noise: jax.Array,
    n_pairs: int,
    soft: bool,
) -> tuple[jax.Array, jax.Array]:
    def one_user(keys: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        feature_key, label_key, reward = keys
        x = draw_features(feature_key, law=law, n_pairs=n_pairs, size=reward.size)
        mean = link.mean(x @ reward)
        if soft:
            return x, mean
        if link.is_preference:
            return x, (jax.random.uniform(label_key, (n_pairs,)) < mean).astype(x.dtype)
        return x, mean + noise * jax.random.normal(label_key, (n_pairs,))

    return jax.lax.map(one_user, (feature_keys, label_keys, theta))
