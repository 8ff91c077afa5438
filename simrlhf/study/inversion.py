"""From error against pairs to pairs against error: where measured curves fall to a target."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from simrlhf.core import checks, streams
from simrlhf.core.statistics import Interval

_RESAMPLES = 500
# an interval is drawn where so many of the resampled curves bracket the target
_MOST_LOST = 0.05


class PairsNeeded(NamedTuple):
    """Pairs at which mean errors fall to targets.

    Attributes:
        targets: `(T,)`.
        pairs: `(T,)`, of the mean over repetitions; NaN where it does not bracket the target.
        resampled: `(B, T)`, of means over repetitions drawn again with replacement: the same draws
            for all curves with as many repetitions, so that ratios of them are paired.
    """

    targets: np.ndarray
    pairs: np.ndarray
    resampled: np.ndarray

    @property
    def low(self) -> np.ndarray:
        """`(T,)` lower ends of 95 % intervals; NaN where too few resampled curves bracket."""
        return ends(self.resampled)[0]

    @property
    def high(self) -> np.ndarray:
        """`(T,)` upper ends."""
        return ends(self.resampled)[1]

    def slope(self, keep: np.ndarray) -> Interval:
        """Slope of log pairs in log target over `keep (T,)`, with a 95 % interval of resamples.

        NaN where fewer than three targets are kept, bracketed and have an interval.
        """
        keep = keep & np.isfinite(self.pairs) & np.isfinite(self.low)
        if keep.sum() < 3:
            return Interval(np.nan, np.nan, np.nan)
        x = np.log(self.targets[keep]) - np.log(self.targets[keep]).mean()
        slopes = np.log(self.resampled[:, keep]) @ x / (x @ x)
        low, high = ends(slopes[:, None])
        return Interval(
            float(np.log(self.pairs[keep]) @ x / (x @ x)), float(low[0]), float(high[0])
        )


def ends(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of 95 % intervals of the columns of `(B, T)`; NaN where over 5 % of one are NaN."""
    lost = np.isnan(resampled).mean(axis=0) > _MOST_LOST
    filled = np.where(lost, 0.0, resampled)  # nanquantile warns of columns without any number
    low, high = np.nanquantile(filled, [0.025, 0.975], axis=0)
    return np.where(lost, np.nan, low), np.where(lost, np.nan, high)


def pairs_at(n_pairs: np.ndarray, errors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Pairs from which on an error stays at or below each target, linear in the logarithms.

    Errors need not be monotone (those of `full` peak near `d1 d2` pairs): it is the last crossing
    that counts.

    Args:
        n_pairs: `(P,)` ascending.
        errors: `(..., P)` positive.
        targets: `(T,)` positive.

    Returns:
        `(..., T)`; NaN where the curve does not bracket the target: all of it lies at or below, or
        its last point lies above.
    """
    above = errors[..., :, None] > targets
    last = above.shape[-2] - 1
    before = np.minimum(last - np.argmax(above[..., ::-1, :], axis=-2), last - 1)
    bracketed = above.any(axis=-2) & ~above[..., -1, :]
    logs = np.log(errors)
    high, low = (np.take_along_axis(logs, before + step, axis=-1) for step in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):  # flat pieces, which bracket nothing
        share = (high - np.log(targets)) / (high - low)
    place = np.log(n_pairs)
    found = np.exp(place[before] + share * (place[before + 1] - place[before]))
    return np.where(bracketed, found, np.nan)


def pairs_needed_of(
    rows: pd.DataFrame, column: str, targets: np.ndarray, *, power: float = 1.0
) -> PairsNeeded:
    """Pairs at which the mean of a column over repetitions falls to each target.

    Args:
        rows: one for each `n_pairs` and `repetition`; repetitions that miss some are left out.
        column: positive errors.
        power: q of the mean `(mean error^q)^{1/q}`; 2 is the root mean square, of which limits
            speak.

    Raises:
        InputError: fewer than two numbers of pairs, or complete repetitions.
    """
    table = rows.pivot(index="repetition", columns="n_pairs", values=column).dropna()
    checks.require(
        min(table.shape) >= 2,
        f"{column} has {table.shape[0]} complete repetitions of {table.shape[1]} numbers of pairs; "
        "a curve with an interval takes 2 of each at least: sweep with more",
    )
    powers = table.to_numpy() ** power
    random = streams.generator(0, "resampled repetitions", len(powers))
    drawn = random.integers(len(powers), size=(_RESAMPLES, len(powers)))
    n_pairs = table.columns.to_numpy(dtype=float)

    def inverted(means: np.ndarray) -> np.ndarray:
        # an error of exactly zero has no logarithm; nothing falls below the smallest number
        return pairs_at(n_pairs, np.maximum(means, 1e-300) ** (1.0 / power), targets)

    return PairsNeeded(targets, inverted(powers.mean(axis=0)), inverted(powers[drawn].mean(axis=1)))
