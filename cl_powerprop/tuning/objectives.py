"""What is tuned for: metrics of a run that need no test data, each to be raised or lowered."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.metrics import Metric, find_metric
from cl_powerprop.registry import metrics

DEFAULT = "validation_accuracy"


class NoValueError(ConfigurationError):
    """An objective that a run has no value of."""


@dataclass(frozen=True)
class Objective:
    """A metric, and which of its values are better."""

    metric: Metric
    direction: Literal["maximize", "minimize"]

    @property
    def written(self) -> str:
        """As the command takes it."""
        return ("-" if self.direction == "minimize" else "") + self.metric.name

    @property
    def sign(self) -> int:
        """1 if higher values are better, -1 if lower ones are."""
        return 1 if self.direction == "maximize" else -1

    def of(self, record: Mapping[str, Any]) -> float:
        """Return the value that a run reached.

        Args:
            record: the content of its `run.json`.

        Raises:
            NoValueError: if it has none, as of the training FLOPs of a strategy with masks.
        """
        value: Any = record
        for key in self.metric.name.split(".") if self.metric.function is None else ("metrics", self.metric.name):
            value = value[key]
        if value is None or not math.isfinite(value):
            raise NoValueError(f"the run has no {self.metric.name}; choose another objective")
        return float(value)


def parse_objectives(text: str) -> list[Objective]:
    """Return the objectives that a command names, separated by commas; `-` before one that is to be low.

    Raises:
        ConfigurationError: for one that does not exist, needs test data, stands there twice, or has the wrong sign.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigurationError(f"--objective needs the name of a metric, as in --objective {DEFAULT}")
    objectives = [_objective(word) for word in words]
    names = [objective.metric.name for objective in objectives]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(f"the objective {twice} stands there twice")
    return objectives


def _objective(word: str) -> Objective:
    known = metrics()
    metric = find_metric(word.removeprefix("-"), known)
    choices = ", ".join(name for name, each in known.items() if not each.needs_test)
    if metric is None:
        raise ConfigurationError(f"unknown objective {word.removeprefix('-')!r}; choose from: {choices}")
    if metric.needs_test:
        raise ConfigurationError(
            f"the objective {metric.name} is measured on test data, which settings are not chosen by; choose from: "
            f"{choices}"
        )
    if word.startswith("-") and metric.direction == "max":
        raise ConfigurationError(f"the objective {metric.name} is better the higher it is: leave the - out")
    is_low = word.startswith("-") or metric.direction == "min"
    return Objective(metric, "minimize" if is_low else "maximize")
