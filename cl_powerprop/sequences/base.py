"""The options that every task sequence has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import MOST_TASKS
from cl_powerprop.registry import T, door

if TYPE_CHECKING:
    from cl_powerprop.data.dataset import Dataset

SCENARIOS = ("task", "domain", "class")


@dataclass(kw_only=True)
class SequenceConfig:
    """Options of every task sequence.

    Attributes:
        name: name of the sequence.
        n_tasks: number of tasks.
        scenario: whether the task is known when it is tested (van de Ven & Tolias 2019): "task" (known), "domain"
            (unknown; all tasks have the same labels) or "class" (unknown; every class has its own label).
        validation: how much of the training data is held out for validation: a share below 1, or a number of samples.
        needs: what of a data set the tasks are made of: "images", "drawings", or "" if it may be either.
    """

    name: str
    n_tasks: int = 5
    scenario: str = "task"
    validation: float = 0.1
    needs: ClassVar[str] = ""

    def check(self) -> None:
        """Reject impossible values.

        Raises:
            ConfigurationError: naming the option and its choices.
        """
        check_choice("benchmark.scenario", self.scenario, SCENARIOS)
        check_n_tasks(self.n_tasks)
        if not 0.0 < self.validation < math.inf:
            raise ConfigurationError(
                f"benchmark.validation={self.validation} leaves nothing to train or to validate on; "
                "give a share in (0, 1) or a number of samples"
            )

    def check_data(self, dataset: Dataset) -> None:
        """Refuse a data set that the tasks cannot be made of, as far as that is known before it is read.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        if self.needs:
            dataset.check_offers(self.needs)


def register_sequence(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``benchmark=NAME``, called as ``sequence(config, data, seed) -> TaskSequence``.

    Arguments and errors are those of :func:`register_strategy`; the config is derived from :class:`SequenceConfig`.
    ``data`` is a :class:`~cl_powerprop.source.DataSource`.
    """
    return door("benchmark", name, config, SequenceConfig, aliases)


def refuse_class_scenario(name: str, scenario: str) -> None:
    """Refuse the scenario in which every class has its own label, where all tasks have the same classes.

    Raises:
        ConfigurationError: for scenario "class".
    """
    if scenario == "class":
        raise ConfigurationError(f"{name} has the same classes in every task: scenario is task or domain")


def check_n_tasks(n_tasks: int) -> int:
    """Return ``n_tasks``.

    Raises:
        ConfigurationError: if it is below 1, or more than an accuracy matrix can hold.
    """
    if n_tasks < 1:
        raise ConfigurationError(f"benchmark.n_tasks must be at least 1, not {n_tasks}")
    if n_tasks > MOST_TASKS:
        raise ConfigurationError(f"benchmark.n_tasks must be at most {MOST_TASKS:,}, not {n_tasks}")
    return n_tasks
