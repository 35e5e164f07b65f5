"""What a job of a multirun has reached, by which sweepers choose."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any


def validation_accuracy(records: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean validation accuracy of a job's runs; None if a run has none.

    Args:
        records: the content of the `run.json` of each, which an earlier version may have written.
    """
    metrics = [record.get("metrics") for record in records]
    reached = [each.get("validation_accuracy") if isinstance(each, dict) else None for each in metrics]
    values = [float(value) for value in reached if isinstance(value, int | float)]
    return fmean(values) if values and len(values) == len(reached) else None
