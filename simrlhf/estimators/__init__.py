"""Every way to fit reward vectors; one entry, `fit`."""

from simrlhf.estimators.batching import fit_many
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.fitting import fit, list_estimators
from simrlhf.estimators.requests import check_size
from simrlhf.estimators.result import Evaluation, FitResult, FitStatus, load_fit
from simrlhf.estimators.training import Training, train_first_order
from simrlhf.estimators.training_settings import TrainingSettings

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Evaluation",
    "FitResult",
    "FitStatus",
    "Outcome",
    "Request",
    "Training",
    "TrainingSettings",
    "check_size",
    "fit",
    "fit_many",
    "list_estimators",
    "load_fit",
    "train_first_order",
]
