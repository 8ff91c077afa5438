"""From a truth and a fit to numbers."""

from simrlhf.metrics.bounds import bounds_of_fit
from simrlhf.metrics.instance import Instance, measure_instance
from simrlhf.metrics.recovery import recovery

__all__ = ["Instance", "bounds_of_fit", "measure_instance", "recovery"]
