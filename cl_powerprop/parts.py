"""What is put together to learn: a benchmark, a learner and a strategy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cl_powerprop import interrupts
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.plugins.sparse_training import sparse_training_of
from cl_powerprop.strategies.base import Strategy
from cl_powerprop.strategies.masking import strategy_of
from cl_powerprop.training.batches import count_batches

if TYPE_CHECKING:
    from cl_powerprop.training.checkpoints import Checkpoints


class Parts:
    """A benchmark, a learner for it, and all else that the loop needs to know.

    Args:
        benchmark: Avalanche's, whose streams train, test and, if there is one, valid have an experience for each task.
        learner: Avalanche's strategy object: it holds the network, the optimizer and the plugins.
        strategy: the continual-learning strategy, where it is one of ours; None if all is in the learner.
        plan: which tasks are tested when; None tests all tasks learned so far after each.
        task_names: of each task; None for a number.
        architecture: what :func:`~cl_powerprop.networks.build.build_model` rebuilds the network from.
        train_options: arguments of the learner's ``train``.
        steps_a_task: optimizer steps after which the training of a task ends; None if all its epochs are trained.

    Attributes:
        curriculum: what is trained, in order: (index of the last task that is learned with it, experience).
        sparsity: the learner's plugin for sparse training; None for dense training.
        save: called as ``save(results)`` when a task is finished; writes what else the run folder is to hold.
        watch: called as ``watch(results)`` after each task but the last; an error of its own ends the run.
        checkpoints: write checkpoints, and let signals wait for them; None for none.

    Raises:
        ConfigurationError: for streams that do not fit together, or a curriculum that leaves tasks out.
    """

    def __init__(
        self,
        benchmark: Any,
        learner: Any,
        *,
        strategy: Strategy | None = None,
        plan: EvaluationPlan | None = None,
        task_names: Sequence[str] | None = None,
        architecture: Mapping[str, Any] | None = None,
        train_options: Mapping[str, Any] | None = None,
        steps_a_task: int | None = None,
    ) -> None:
        streams = benchmark.streams
        if "train" not in streams or "test" not in streams:
            raise ConfigurationError(f"a benchmark needs the streams train and test; this has {', '.join(streams)}")
        tasks = streams["test"]
        if "valid" in streams and len(streams["valid"]) != len(tasks):
            raise ConfigurationError(
                f"the stream valid has {len(streams['valid'])} experiences, and test {len(tasks)}: one for each task"
            )
        self.benchmark = benchmark
        self.learner = learner
        self.strategy = strategy or strategy_of(learner)
        self.plan = plan or EvaluationPlan(len(tasks))
        self.task_names = task_names or [f"task_{index}" for index in range(len(tasks))]
        self.architecture = dict(architecture or {})
        self.train_options = dict(train_options or {})
        self.steps_a_task = steps_a_task
        self.sparsity = sparse_training_of(learner)
        self.save: Callable[[Any], None] = lambda results: None
        self.watch: Callable[[Any], None] = lambda results: None
        self.checkpoints: Checkpoints | None = None
        self.curriculum = self.strategy.curriculum(streams["train"], len(tasks))
        _check(self.curriculum, len(tasks))

    @property
    def n_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.task_names)

    @property
    def labels_tasks(self) -> bool:
        """Whether the test stream has a task label of its own for each experience: the task is known when tested."""
        labels = {getattr(experience, "task_label", None) for experience in self.benchmark.streams["test"]}
        return None not in labels and len(labels) == self.n_tasks

    def train(self, experience: Any) -> int:
        """Train one experience (none, if it is None); return for how many epochs, which may be stopped early."""
        if experience is None:
            return int(self.learner.train_epochs)
        self.learner.train(experience, **{"eval_streams": [], **self.train_options})
        return int(self.learner.clock.train_exp_epochs)

    def interruptible(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a signal waits for a checkpoint, if any is written."""
        return contextlib.nullcontext() if self.checkpoints is None else interrupts.deferred()

    def moment(self) -> None:
        """Write a checkpoint, if it is time for one; training is finished up to here."""
        if self.checkpoints is not None:
            self.checkpoints.moment()

    def steps(self) -> list[int]:
        """Return how many optimizer steps each experience takes."""
        learner = self.learner
        if self.steps_a_task is not None:
            return [self.steps_a_task] * len(self.benchmark.streams["train"])
        joins_lone = getattr(learner, "joins_lone", False)  # Avalanche's own strategies do not
        return [
            learner.train_epochs * count_batches(len(experience.dataset), learner.train_mb_size, joins_lone)
            for experience in self.benchmark.streams["train"]
        ]


def _check(curriculum: Sequence[tuple[int, Any]], n_tasks: int) -> None:
    """Refuse a curriculum that does not go through the tasks in their order, up to the last one."""
    learned = [task for task, _ in curriculum]
    if not learned or learned != sorted(learned) or learned[0] < 0 or learned[-1] != n_tasks - 1:
        raise ConfigurationError(
            f"training must go through the tasks in their order, up to task {n_tasks - 1} of the test stream; "
            f"the experiences of the train stream end with the tasks {', '.join(map(str, learned)) or 'none'}"
        )
