"""Every way to fit reward vectors; one entry, `fit`."""

from simrlhf.estimators.batching import fit_many
from simrlhf.estimators.charts import FISHER_CLASSES
from simrlhf.estimators.classes import ESTIMATORS
from simrlhf.estimators.estimator import Estimator, Outcome, Request
from simrlhf.estimators.fitting import fit, list_estimators
from simrlhf.estimators.new_users import adapt_users
from simrlhf.estimators.requests import check_shape
from simrlhf.estimators.result import Evaluation, FitResult, FitStatus, load_fit
from simrlhf.estimators.training import Training, train_first_order
from simrlhf.estimators.training_settings import TrainingSettings
from simrlhf.estimators.uncertainty import RewardUncertainty, standard_errors

__all__ = [
    "ESTIMATORS",
    "FISHER_CLASSES",
    "Estimator",
    "Evaluation",
    "FitResult",
    "FitStatus",
    "Outcome",
    "Request",
    "RewardUncertainty",
    "Training",
    "TrainingSettings",
    "adapt_users",
    "check_shape",
    "fit",
    "fit_many",
    "list_estimators",
    "load_fit",
    "standard_errors",
    "train_first_order",
]
