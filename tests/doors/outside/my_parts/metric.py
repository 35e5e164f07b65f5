"""A metric: the accuracy of the worst task at the end."""

from cl_powerprop import Measurements, Metric, register_metric


def worst_task(run: Measurements) -> float:
    return float(run.matrix[-1].min())


register_metric(Metric("worst_task", "accuracy of the worst task", "", "max", worst_task))
