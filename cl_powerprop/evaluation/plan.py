"""Which tasks are validated and tested when."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationPlan:
    """The evaluations of a sequence.

    Attributes:
        n_tasks: how many tasks there are.
        schedule: "every_task" tests all tasks learned so far after each; "diagonal_and_last" a task when it is learned,
            and all at the end; "last" all at the end; "never" none: all tasks learned so far are validated instead.
        tests_unseen: tasks can be tested before they are learned.
        every_epochs, every_steps: how often the tasks are also tested while one trains; None for not at all.
    """

    n_tasks: int
    schedule: str = "every_task"
    tests_unseen: bool = False
    every_epochs: int | None = None
    every_steps: int | None = None

    @property
    def tests(self) -> bool:
        """Whether test data is measured at all."""
        return self.schedule != "never"

    @property
    def before_training(self) -> range:
        """The tasks to test before anything was trained: the ``b_j`` of forward transfer."""
        return range(self.n_tasks if self._looks_ahead else 0)

    @property
    def _looks_ahead(self) -> bool:
        return self.tests_unseen and self.schedule == "every_task"

    def to_validate(self, trained: int, task: int) -> range:
        """Return the tasks to validate after ``task``, when ``trained`` ones were learned before it.

        A task is validated when it is learned, and all of them at the end; after each task if none is tested.
        """
        if not self.tests:
            return range(task + 1)
        return range(0 if task + 1 == self.n_tasks else min(trained, task), task + 1)

    def to_test(self, task: int) -> range:
        """Return the tasks to test after ``task``."""
        if not self.tests:
            return range(0)
        if task + 1 == self.n_tasks or self.schedule == "every_task":
            # Of the tasks to come only the next one tells something: forward transfer.
            return range(min(task + 2, self.n_tasks) if self._looks_ahead else task + 1)
        return range(task, task + 1) if self.schedule == "diagonal_and_last" else range(0)
