"""What first-order training is told: `TrainingSettings`, and the phases that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from simrlhf.core import checks

VARIANTS = ("SI", "G", "WU")
# share of all epochs in which one adapter is trained for all users: 2 of 3, and 0.3 of 3
_GLOBAL_SHARE = {"SI": 0.0, "G": 2 / 3, "WU": 0.1}
DRAWS = ("normal", "one_uniform")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How the paper trains; the defaults are its Section 5 and Appendix D.1.

    Attributes:
        variant: `"SI"`: shared factor 0, personal ones random; `"G"`: one adapter for all users in
            the first two thirds of the epochs, then every user starts from it; `"WU"`: the same
            with the first tenth.
        share: `"B"` shares the output-side factor `(d1, k)`, `"A"` the input-side one `(k, d2)`,
            with B's recipe in the mirror: the shared factor starts at 0 there too.
        rank: `k`.
        alpha: `Delta_i = (alpha / rank) B W_i`; half the rank by default, as 16 at rank 32.
        epochs: in all; may be a fraction. The phases keep their shares of it.
        learning_rate: at the start of the decay. An entry moves by about this much in a step.
        batch_size: pairs of a step, drawn over all users; all pairs where there are fewer.
        weight_decay: decoupled (AdamW), 0 as in the trainer that the paper used.
        clip_norm: longest gradient over all factors, 1 as in that trainer; `None` for no limit.
        draw: of the random factors. `"normal"`: every user's his own (the paper's text);
            `"one_uniform"`: one uniform draw, the same for all users (the authors' code). Both have
            mean 0 and variance `1/(3 k)` (for the adapter of all users, `1/(3 d2)`, or `1/(3 d1)`
            with `share="A"`), the code's; the text names no variance.
        seed: of the draws and of the order of the pairs.

    Not here: dropout 0.05 and a warm-up of the learning rate, which only some of the authors'
    scripts have.
    """

    variant: str = "SI"
    share: str = "B"
    rank: int = 32
    alpha: float | None = None
    epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 128
    weight_decay: float = 0.0
    clip_norm: float | None = 1.0
    draw: str = "normal"
    seed: int = 0

    def __post_init__(self) -> None:
        checks.choice("variant", self.variant, VARIANTS)
        checks.choice("share", self.share, ("B", "A"))
        checks.choice("draw", self.draw, DRAWS)
        checks.integer("rank", self.rank, low=1)
        if self.alpha is not None:
            checks.real("alpha", self.alpha, above=0.0, remedy="or None for half the rank")
        checks.real("epochs", self.epochs, above=0.0, high=1e6)
        checks.real(
            "learning_rate", self.learning_rate, above=0.0, high=1.0,
            remedy="an AdamW step moves every entry by about the learning rate",
        )  # fmt: skip
        checks.integer("batch_size", self.batch_size, low=1)
        checks.real("weight_decay", self.weight_decay, low=0.0, high=1.0)
        if self.clip_norm is not None:
            checks.real("clip_norm", self.clip_norm, above=0.0, remedy="or None for no limit")
        checks.integer("seed", self.seed, low=0, high=2**63 - 1)

    @property
    def scaling(self) -> float:
        """`alpha / rank`."""
        return 0.5 if self.alpha is None else self.alpha / self.rank


class Phase(NamedTuple):
    """A stretch of training with one set of factors and one optimiser state.

    Step `t = 0 .. steps - 1` of it has the learning rate `first_rate (1 - t / horizon)`.

    Attributes:
        personal: whether users have factors of their own.
    """

    personal: bool
    steps: int
    first_rate: float
    horizon: int

    def rate(self, step: int) -> float:
        return self.first_rate * (1.0 - step / self.horizon)


def steps_per_epoch(n_pairs: int, batch_size: int) -> int:
    """Batches of an epoch, the last one smaller: 210 for the paper's 26,865 pairs."""
    return math.ceil(n_pairs / batch_size)


def phases(settings: TrainingSettings, n_pairs: int) -> tuple[Phase, ...]:
    """The phases of a variant on `n_pairs` pairs.

    The adapter of all users decays along a line that would end with all epochs. G goes on at a
    third of the learning rate, the paper's 1.67e-5, which is where that line has arrived. WU starts
    a line of its own at the full learning rate, as the authors' script does. The paper's 26,865
    pairs give its checkpoints: 63 steps for WU, 420 for G, 630 in all. Where steps are few, the
    border is rounded to one.

    Raises:
        InputError: too few steps for two phases.
    """
    total = math.ceil(settings.epochs * steps_per_epoch(n_pairs, settings.batch_size) - 1e-9)
    lr = settings.learning_rate
    if settings.variant == "SI":
        return (Phase(True, total, lr, total),)
    checks.require(
        total >= 2,
        f"epochs = {settings.epochs:g} with batch_size = {settings.batch_size} and {n_pairs:,} "
        f"pairs make {total} step, but {settings.variant} has two phases; raise epochs or lower "
        "batch_size",
    )
    first = min(max(round(_GLOBAL_SHARE[settings.variant] * total), 1), total - 1)
    rest = total - first
    everyone = Phase(False, first, lr, total)
    start = lr / 3 if settings.variant == "G" else lr
    return everyone, Phase(True, rest, start, rest)
