"""The options that every task sequence has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.registry import T, door

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
    """

    name: str
    n_tasks: int = 5
    scenario: str = "task"
    validation: float = 0.1

    def check(self) -> None:
        """Reject impossible values.

        Raises:
            ConfigurationError: naming the option and its choices.
        """
        check_choice("benchmark.scenario", self.scenario, SCENARIOS)


def register_sequence(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``benchmark=NAME``, called as ``sequence(config, data, seed) -> TaskSequence``.

    Arguments and errors are those of :func:`register_strategy`; the config is derived from :class:`SequenceConfig`.
    ``data`` is a :class:`~cl_powerprop.source.DataSource`.
    """
    return door("benchmark", name, config, SequenceConfig, aliases)


def check_n_tasks(n_tasks: int) -> int:
    """Return ``n_tasks``.

    Raises:
        ConfigurationError: if it is below 1.
    """
    if n_tasks < 1:
        raise ConfigurationError(f"benchmark.n_tasks must be at least 1, not {n_tasks}")
    return n_tasks
