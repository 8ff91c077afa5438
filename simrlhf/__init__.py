"""simrlhf: does the theory of shared low-rank personalised RLHF say what really happens?

The public names are loaded when first used, so that `import simrlhf` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "WorldConfig": "simrlhf.world",
    "DecisionConfig": "simrlhf.world",
    "MDP": "simrlhf.world",
    "Behaviours": "simrlhf.world",
    "World": "simrlhf.world",
    "make_world": "simrlhf.world",
    "sample_preferences": "simrlhf.sampling",
    "prompt_bandit": "simrlhf.prompts",
    "Preferences": "simrlhf.data",
    "load_preferences": "simrlhf.data",
    "fit": "simrlhf.estimators",
    "list_estimators": "simrlhf.estimators",
    "load_fit": "simrlhf.estimators",
    "FitResult": "simrlhf.estimators",
    "FitStatus": "simrlhf.estimators",
    "adapt_users": "simrlhf.estimators",
    "standard_errors": "simrlhf.estimators",
    "Training": "simrlhf.estimators",
    "TrainingSettings": "simrlhf.estimators",
    "train_first_order": "simrlhf.estimators",
    "subspace_distance": "simrlhf.core.subspaces",
    "principal_angles": "simrlhf.core.subspaces",
    "InputError": "simrlhf.core.checks",
    "load_results": "simrlhf.study",
}
_PACKAGES = ("theory", "metrics", "policy", "study", "testing")

if TYPE_CHECKING:
    from simrlhf import metrics, policy, study, testing, theory
    from simrlhf.core.checks import InputError
    from simrlhf.core.subspaces import principal_angles, subspace_distance
    from simrlhf.data import Preferences, load_preferences
    from simrlhf.estimators import (
        FitResult,
        FitStatus,
        Training,
        TrainingSettings,
        adapt_users,
        fit,
        list_estimators,
        load_fit,
        standard_errors,
        train_first_order,
    )
    from simrlhf.prompts import prompt_bandit
    from simrlhf.sampling import sample_preferences
    from simrlhf.study import load_results
    from simrlhf.world import MDP, Behaviours, DecisionConfig, World, WorldConfig, make_world

__all__ = [
    "MDP",
    "Behaviours",
    "DecisionConfig",
    "FitResult",
    "FitStatus",
    "InputError",
    "Preferences",
    "Training",
    "TrainingSettings",
    "World",
    "WorldConfig",
    "adapt_users",
    "fit",
    "list_estimators",
    "load_fit",
    "load_preferences",
    "load_results",
    "make_world",
    "metrics",
    "policy",
    "principal_angles",
    "prompt_bandit",
    "sample_preferences",
    "standard_errors",
    "study",
    "subspace_distance",
    "testing",
    "theory",
    "train_first_order",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"simrlhf.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'simrlhf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
