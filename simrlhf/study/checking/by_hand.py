"""What checks hold the functions of theory against: formulas written out once more."""

from __future__ import annotations

import math
from collections.abc import Mapping

from simrlhf import testing
from simrlhf.study.checking.form import attempt
from simrlhf.testing import Judgement


def written_out(found: Mapping[str, tuple[float, float]]) -> list[Judgement]:
    """Each function's value equals its formula's, to rounding; a tenth more is rejected.

    Args:
        found: by name, the function's value and the same computed by hand, at numbers that tell
            all parts of the formula apart.
    """
    return [
        attempt(testing.assert_identity, [value], [hand], rival=[1.1 * hand], statement=name)
        for name, (value, hand) in found.items()
    ]


def logistic_curvature(margin: float) -> float:
    """`Phi'(margin)` of the logistic link, the smallest curvature on `|z| <= margin`."""
    return 1.0 / (2.0 + math.exp(margin) + math.exp(-margin))
