"""Checks of the theory's statements: their form, the draws they measure on, and the verdicts."""

from simrlhf.study.checking.draws import Draw, fitted_draws, samples
from simrlhf.study.checking.form import (
    Check,
    Finding,
    Kind,
    Verdict,
    attempt,
    exactly,
    proved,
    require_sound,
)

__all__ = [
    "Check",
    "Draw",
    "Finding",
    "Kind",
    "Verdict",
    "attempt",
    "exactly",
    "fitted_draws",
    "proved",
    "require_sound",
    "samples",
]
