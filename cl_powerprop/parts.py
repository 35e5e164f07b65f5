"""What is put together to learn: a benchmark, a learner and a strategy."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.strategies.base import Strategy
from cl_powerprop.strategies.masking import strategy_of


class Parts:
    """A benchmark, a learner for it, and all else that the loop needs to know.

    Args:
        benchmark: Avalanche's, whose streams train, test and, if there is one, valid have an experience for each task.
        learner: Avalanche's strategy object: it holds the network, the optimizer and the plugins.
        strategy: the continual-learning strategy, where it is one of ours; None if all is in the learner.
        plan: which tasks are tested when; None tests all tasks learned so far after each.
        task_names, task_classes: of each task, its name and how many classes it has; None for a number, and for what
            Avalanche knows.
        architecture: what :func:`~cl_powerprop.networks.build.build_model` rebuilds the network from.
        train_options: arguments of the learner's ``train``.

    Attributes:
        save: called as ``save(results)`` when a task is finished; writes what else the run folder is to hold.
    """

    def __init__(
        self,
        benchmark: Any,
        learner: Any,
        *,
        strategy: Strategy | None = None,
        plan: EvaluationPlan | None = None,
        task_names: Sequence[str] | None = None,
        task_classes: Sequence[int] | None = None,
        architecture: Mapping[str, Any] | None = None,
        train_options: Mapping[str, Any] | None = None,
    ) -> None:
        tasks = benchmark.streams["test"]
        self.benchmark = benchmark
        self.learner = learner
        self.strategy = strategy or strategy_of(learner)
        self.plan = plan or EvaluationPlan(len(tasks))
        self.task_names = task_names or [f"task_{index}" for index in range(len(tasks))]
        self.task_classes = task_classes or [len(task.classes_in_this_experience) for task in tasks]
        self.architecture = dict(architecture or {})
        self.train_options = dict(train_options or {})
        self.save: Callable[[Any], None] | None = None

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
