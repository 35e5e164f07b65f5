"""What is put together to learn: a benchmark, a learner and a strategy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.strategies.base import Strategy


@dataclass
class Parts:
    """What is put together to learn.

    Attributes:
        benchmark: Avalanche's, whose streams train, test and, if there is one, valid have an experience for each task.
        learner: Avalanche's strategy object: it holds the network, the optimizer and the plugins.
        strategy: the continual-learning strategy, where it is one of ours; else all is in the learner.
        plan: which tasks are tested when; by default, all tasks learned so far after each.
        task_names, task_classes: of each task, its name and how many classes it has; by default, its number, and what
            Avalanche knows.
        architecture: what :func:`~cl_powerprop.networks.build.build_model` rebuilds the network from.
        save: called as ``save(results)`` when a task is finished; writes what else the run folder is to hold.
        train_options: arguments of the learner's ``train``.
    """

    benchmark: Any
    learner: Any
    strategy: Strategy = field(default_factory=Strategy)
    plan: EvaluationPlan | None = None
    task_names: Sequence[str] = ()
    task_classes: Sequence[int] = ()
    architecture: dict[str, Any] = field(default_factory=dict)
    save: Callable[[Any], None] | None = None
    train_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tasks = self.benchmark.streams["test"]
        self.task_names = self.task_names or [f"task_{index}" for index in range(len(tasks))]
        self.task_classes = self.task_classes or [len(task.classes_in_this_experience) for task in tasks]

    @property
    def n_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.task_names)

    def curriculum(self) -> list[tuple[int, Any]]:
        """Return what is trained, in order: (the last task that is learned then, experience)."""
        return self.strategy.curriculum(self.benchmark.streams["train"], self.n_tasks)

    def train(self, experience: Any) -> None:
        """Train one experience; none, if it is None."""
        if experience is not None:
            self.learner.train(experience, eval_streams=[], **self.train_options)

    def steps(self) -> list[int]:
        """Return how many optimizer steps each experience takes."""
        epochs, size = self.learner.train_epochs, self.learner.train_mb_size
        return [epochs * -(-len(experience.dataset) // size) for experience in self.benchmark.streams["train"]]
