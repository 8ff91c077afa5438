"""`prompt_bandit`: prompts and responses that people wrote, as a contextual bandit."""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache

import numpy as np

from simrlhf.core import checks, streams
from simrlhf.data import shipped, text
from simrlhf.world import MDP


# a study asks for the same one in every cell
@lru_cache(maxsize=8)
def prompt_bandit(
    name: str = "ukpconvarg1",
    *,
    n_prompts: int | None = None,
    n_responses: int = 10,
    dimensions: int = 20,
    seed: int = 0,
) -> MDP:
    """A bandit whose contexts are prompts and whose actions are responses of a shipped data set.

    `ukpconvarg1`: a prompt is a side of a debate, a response an argument written for it. Features
    `(S, A, d1, 1)` are latent semantic directions of the texts and their length (`data.text`),
    scaled to `E||x||^2 = d1` for two different responses to one prompt. Whose rewards they carry is
    the world's business: people's own votes are for `fit`.

    Args:
        n_prompts: S, drawn at random; all of them by default.
        n_responses: A, drawn at random for every prompt.
        dimensions: d1, the length included.
        seed: of the choice.

    Raises:
        InputError: an unknown data set, or more prompts, responses or dimensions than it has.
    """
    table = shipped.load_shipped(name, min_votes=1)
    assert table.groups is not None
    assert table.texts is not None
    assert table.pairs is not None
    found: dict[str, set[int]] = defaultdict(set)
    for group, pair in zip(table.groups, table.pairs, strict=True):
        found[str(group)].update(int(place) for place in pair)
    checks.integer("n_responses", n_responses, low=2)
    full = sorted(prompt for prompt, texts in found.items() if len(texts) >= n_responses)
    most = max(len(texts) for texts in found.values())
    checks.require(
        bool(full), f"n_responses = {n_responses} is above {most}, the most that a prompt has"
    )
    n_prompts = len(full) if n_prompts is None else n_prompts
    remedy = f"so many of {len(found)} prompts have {n_responses} responses"
    checks.integer("n_prompts", n_prompts, low=1, high=len(full), remedy=remedy)
    random = streams.generator(seed, "prompts")
    chosen = [full[i] for i in np.sort(random.permutation(len(full))[:n_prompts])]
    places = [random.permutation(sorted(found[prompt]))[:n_responses] for prompt in chosen]
    texts = [table.texts[place] for place in np.concatenate(places)]
    checks.integer("dimensions", dimensions, low=1)
    features = text.transform(text.fit(texts, dimensions=dimensions - 1), texts)
    features = features.reshape(n_prompts, n_responses, dimensions, 1)
    within = features - features.mean(axis=1, keepdims=True)
    # E||x||^2 of two different responses is twice their unbiased variance
    spread = 2.0 * np.sum(within**2) / (n_prompts * (n_responses - 1))
    return MDP.bandit(features * np.sqrt(dimensions / spread))
