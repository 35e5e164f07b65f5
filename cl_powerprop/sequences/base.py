"""What every task sequence's options have."""

from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError, check_choice

SCENARIOS = ("task", "domain", "class")


@dataclass(kw_only=True)
class SequenceConfig:
    """What every `benchmark` has.

    Attributes:
        name: of the sequence.
        n_tasks: how many tasks there are.
        scenario: what a test says about the task (van de Ven & Tolias 2019): "task", "domain" or "class".
        validation: of the training data: a share below 1, or a number of samples.
    """

    name: str
    n_tasks: int = 5
    scenario: str = "task"
    validation: float = 0.1

    def check(self) -> None:
        """Refuse a value that no sequence can have.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_choice("benchmark.scenario", self.scenario, SCENARIOS)


def check_n_tasks(n_tasks: int) -> int:
    """Return ``n_tasks``.

    Raises:
        ConfigurationError: if it is below 1.
    """
    if n_tasks < 1:
        raise ConfigurationError(f"benchmark.n_tasks must be at least 1, not {n_tasks}")
    return n_tasks
