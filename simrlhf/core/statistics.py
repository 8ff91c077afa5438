"""Statistics of Monte Carlo results: means, paired differences, rates, slopes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.stats

from simrlhf.core import checks


class Estimate(NamedTuple):
    """A Monte Carlo mean and its standard error."""

    mean: float
    standard_error: float


class Interval(NamedTuple):
    """A point estimate between the ends of a confidence interval."""

    estimate: float
    low: float
    high: float


def mean_and_error(values: np.ndarray) -> Estimate:
    """Mean of independent values and its standard error `s / sqrt(m)`; needs two values or more."""
    values = _sample("values", values, smallest=2)
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)))


def mean_interval(values: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Mean of independent values with a Student-t interval; needs two values or more."""
    found = mean_and_error(values)
    level = _confidence(confidence)
    half = found.standard_error * scipy.stats.t.ppf(0.5 + level / 2.0, np.size(values) - 1)
    return Interval(found.mean, float(found.mean - half), float(found.mean + half))


def paired_difference(first: np.ndarray, second: np.ndarray) -> Estimate:
    """Mean of `first - second` over paired values and its standard error."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    checks.require(
        first.shape == second.shape,
        f"paired samples need equal shapes, got {first.shape} and {second.shape}",
    )
    return mean_and_error(first - second)


def clopper_pearson(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Exact binomial interval of a rate: `successes` out of `trials`."""
    trials = checks.integer("trials", trials, low=1)
    successes = checks.integer("successes", successes, low=0, high=trials)
    confidence = _confidence(confidence)
    result = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return Interval(successes / trials, float(result.low), float(result.high))


def log_log_slope(x: np.ndarray, y: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Slope of the least-squares line of `log y` on `log x`, with a Student-t interval.

    Args:
        x, y: positive values, three or more, `x` not all equal.
    """
    x, y = _sample("x", x, smallest=3), _sample("y", y, smallest=3)
    checks.require(x.size == y.size, f"x and y need equal lengths, got {x.size} and {y.size}")
    checks.require(bool((x > 0).all() and (y > 0).all()), "a log-log slope needs positive x and y")
    checks.require(bool(np.ptp(x) > 0), "a log-log slope needs at least two distinct x")
    confidence = _confidence(confidence)
    # slope, intercept, correlation, p-value, standard error of the slope
    slope, *_, error = np.asarray(scipy.stats.linregress(np.log(x), np.log(y)))
    half = error * scipy.stats.t.ppf(0.5 + confidence / 2.0, x.size - 2)
    return Interval(float(slope), float(slope - half), float(slope + half))


def mean_slope(
    x: np.ndarray, y: np.ndarray, repetition: np.ndarray, *, confidence: float = 0.95
) -> Interval:
    """Mean over repetitions of each one's `log_log_slope`, with a Student-t interval.

    Right where the values of one repetition hang together, as on nested samples of one world.

    Args:
        x, y: positive values `(P,)`.
        repetition: whose value each is, `(P,)`; two repetitions or more.
    """
    x, y, repetition = np.asarray(x), np.asarray(y), np.asarray(repetition)
    each = [
        log_log_slope(x[mine], y[mine]).estimate
        for mine in (repetition == which for which in np.unique(repetition))
    ]
    return mean_interval(np.array(each), confidence=confidence)


def _confidence(value: float) -> float:
    return checks.real("confidence", value, low=0.0, high=1.0, remedy="for instance 0.95")


def _sample(name: str, values: np.ndarray, *, smallest: int) -> np.ndarray:
    values = np.asarray(values, dtype=float).ravel()
    checks.require(
        values.size >= smallest, f"{name} needs at least {smallest} entries, got {values.size}"
    )
    checks.finite(name, values)
    return values
