"""Argument checks whose messages show the value, the limit and the remedy.

Everything a user can get wrong is raised as `InputError`; the command line turns it into one
line and exit status 2. Anything else that escapes is a defect of the program.
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable

import numpy as np


class InputError(ValueError):
    """A foreseeable mistake in the caller's input: one sentence, no traceback needed."""


def require(condition: bool, message: str) -> None:
    """Raise `InputError(message)` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def integer(
    name: str, value: object, *, low: int | None = None, high: int | None = None, remedy: str = ""
) -> int:
    """Return `value` as an int within `[low, high]`; booleans and fractions are refused."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} must be an integer, got {_shown(value)}{_tail(remedy)}") from None
    _within(name, number, low, high, remedy)
    return number


def real(
    name: str,
    value: object,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    remedy: str = "",
) -> float:
    """Return `value` as a finite float in `[low, high]` and, if given, strictly above `above`."""
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{name} must be a real number, got {_shown(value)}{_tail(remedy)}"
        ) from None
    require(math.isfinite(number), f"{name} must be finite, got {number}{_tail(remedy)}")
    _within(name, number, low, high, remedy)
    if above is not None:
        require(
            number > above,
            f"{name} = {_digits(number)} must be greater than {_digits(above)}{_tail(remedy)}",
        )
    return number


def choice(name: str, value: object, allowed: Iterable[str], *, remedy: str = "") -> str:
    """Return `value` if it is one of `allowed`; otherwise name them and the nearest spelling."""
    options = list(allowed)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    hint = "; ".join(part for part in (hint, remedy) if part)
    raise InputError(
        f"unknown {name} {_shown(value)}: choose one of {', '.join(options)}{_tail(hint)}"
    )


def finite(name: str, array: np.ndarray, *, remedy: str = "") -> None:
    """Refuse NaN and infinity, saying how many there are and where the first one stands."""
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        tail = _tail(remedy or "drop or repair those rows")
        raise InputError(
            f"{name} holds {int(bad.sum())} values that are not finite "
            f"(first at index {first}: {array[first]}){tail}"
        )


def numbers(name: str, values: object) -> np.ndarray:
    """Return `values` as a float64 array; text, complex numbers and ragged lists are refused."""
    try:
        array = np.asarray(values)
        mixed = array.dtype.kind == "O" and not any(isinstance(v, str) for v in array.flat)
        if array.dtype.kind not in "biuf" and not mixed:
            raise TypeError
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} must be a rectangular array of real numbers, got {_kind(values)}"
        ) from None


def names(name: str, values: object) -> np.ndarray:
    """Return one-dimensional `values` as an array of numbers or of names, which can be sorted."""
    try:
        array = np.asarray(values)
        np.unique(array)
    except (TypeError, ValueError):
        raise InputError(
            f"{name} must hold all numbers or all names, one for each pair, got {_kind(values)} "
            "of mixed or ragged entries"
        ) from None
    if array.dtype.kind == "f":
        finite(name, array)
    return array


def _kind(values: object) -> str:
    return repr(values) if isinstance(values, str | bytes) else type(values).__name__


def shape(
    name: str, array: np.ndarray, expected: tuple[int | None, ...], *, remedy: str = ""
) -> None:
    """Refuse an array whose shape differs from `expected` (`None` stands for any length)."""
    fits = array.ndim == len(expected) and all(
        want is None or have == want for have, want in zip(array.shape, expected, strict=True)
    )
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in expected) + ")"
    require(fits, f"{name} has shape {array.shape}, expected {wanted}{_tail(remedy)}")


def _within(name: str, number: float, low: float | None, high: float | None, remedy: str) -> None:
    shown = f"{name} = {_digits(number)}"
    if low is not None:
        require(number >= low, f"{shown} must be at least {_digits(low)}{_tail(remedy)}")
    if high is not None:
        require(number <= high, f"{shown} must be at most {_digits(high)}{_tail(remedy)}")


def _digits(number: float) -> str:
    # all digits of an integer, 12 of a real: a value must not look equal to the limit it breaks
    return str(number) if isinstance(number, int) else f"{number:.12g}"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())  # an array's repr has line breaks, a message has none
    return text if len(text) <= 80 else f"{text[:77]}..."


def _tail(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
