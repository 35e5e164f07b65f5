"""The loop: train a task, note what it reported, validate, test, write, go on. Start reading here.

What is put in are :class:`Parts`, made from a config by :mod:`cl_powerprop.assemble` or by hand from any Avalanche
strategy; what comes out is a run folder, kept by :class:`~cl_powerprop.results.results.Results`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_powerprop.evaluation.plan import EvaluationPlan
from cl_powerprop.results.results import Results
from cl_powerprop.strategies.base import Strategy
from cl_powerprop.training.continual_evaluation import ContinualEvaluation
from cl_powerprop.training.meters import EvaluationMeter, Measured, TrainingMeter


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
        save: called as ``save(results)`` when a task is finished: writes what else the run folder is to hold.
        train_options: arguments of the learner's ``train``.
    """

    benchmark: Any
    learner: Any
    strategy: Strategy = field(default_factory=Strategy)
    plan: EvaluationPlan = None  # type: ignore[assignment]
    task_names: Sequence[str] = ()
    task_classes: Sequence[int] = ()
    architecture: dict[str, Any] = field(default_factory=dict)
    save: Callable[[Results], None] | None = None
    train_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tasks = self.benchmark.streams["test"]
        self.plan = self.plan or EvaluationPlan(len(tasks))
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


def learn(parts: Parts, results: Results) -> Results:
    """Learn all tasks, one after the other, and write the run folder.

    Args:
        parts: what learns, and on what.
        results: take everything that is found out. Those of a run that was cut off go on where it stopped.

    Raises:
        DivergedError: if the loss is no longer finite; what was finished is in the folder, marked failed.
    """
    plan, curriculum, clock = parts.plan, parts.curriculum(), parts.learner.clock
    with results.recording(parts.steps(), len(curriculum)), measuring(parts, results) as measure:
        if not results.trained_tasks:
            results.tested_untrained(measure("test", plan.before_training))
        for task, experience in curriculum:
            trained = results.trained_tasks
            if task < trained:
                continue  # by the run that goes on here
            with results.time("train"):
                parts.train(experience)
            results.trained(task, parts.strategy.report(), parts.learner.train_epochs, clock.train_iterations)
            results.validated(measure("valid", plan.to_validate(trained, task)))
            tested = measure("test", plan.to_test(task))
            results.tested(tested, parts.strategy.identified() if tested else {})
            results.flush()
            if parts.save is not None:
                parts.save(results)
        results.finish(parts.strategy.summary(parts.learner.model))
    return results


Measure = Callable[[str, Sequence[int]], dict[int, Measured]]


@contextlib.contextmanager
def measuring(parts: Parts, results: Results) -> Iterator[Measure]:
    """Put meters on the learner, and yield what measures some tasks of a stream."""
    learner, streams, plan = parts.learner, parts.benchmark.streams, parts.plan
    last = {experience.current_experience: task for task, experience in parts.curriculum() if experience is not None}
    meter = EvaluationMeter()

    def measure(name: str, tasks: Sequence[int]) -> dict[int, Measured]:
        if not tasks or name not in streams:
            return {}
        with results.time("eval"):
            learner.eval([streams[name][task] for task in tasks])
        return dict(meter.measured)

    def test_within(epoch: int, step: int) -> None:
        visible = range(last[learner.experience.current_experience] + 1)
        results.tested_within(epoch, step, measure("test", visible))

    before: list[Any] = learner.plugins
    # Avalanche counts epochs and steps by a plugin at the end, which must not have moved on when ours ask.
    theirs, clock = [plugin for plugin in before if plugin is not learner.clock], learner.clock
    within = ContinualEvaluation(test_within, plan.every_epochs, plan.every_steps)
    # Meters come first: a loss that is not finite stops the run before anything is made of it, and logits are seen
    # before task inference puts others in their place. What is not used would cost a call a step.
    learner.plugins = [TrainingMeter(results.epoch_ended), meter, *theirs, results.display]
    learner.plugins += [within, clock] if plan.every_epochs or plan.every_steps else [clock]
    try:
        yield measure
    finally:
        learner.plugins = before
