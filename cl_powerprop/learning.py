"""The loop: train a task, note what it reported, validate, test, write, go on. Start reading here.

What is put in are :class:`Parts`, made from a config by :mod:`cl_powerprop.assemble` or by hand from any Avalanche
strategy; what comes out is a run folder, kept by :class:`~cl_powerprop.results.results.Results`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.parts import Parts
from cl_powerprop.plugins.sparse_training import SparseTraining
from cl_powerprop.results.efficiency import measure_efficiency
from cl_powerprop.results.results import Results
from cl_powerprop.training.continual_evaluation import ContinualEvaluation
from cl_powerprop.training.meters import EvaluationMeter, Measured, TrainingMeter
from cl_powerprop.training.sparsity_meter import SparsityMeter


def learn(parts: Parts, results: Results) -> Results:
    """Learn all tasks, one after the other, and write the run folder.

    Args:
        parts: what learns, and on what.
        results: take everything that is found out, once. Those of a resumed run begin where it was interrupted.

    Raises:
        ConfigurationError: if the learner has trained before: what it learns now would not be a run of its own.
        RunFolderError: if the results were recorded before.
        DivergedError: if the loss is no longer finite; what was finished is in the folder, marked failed.
    """
    plan, clock = parts.plan, parts.learner.clock
    if not (results.is_resumed or results.trained_experiences):
        refuse_trained(parts.learner)
    with results.recording(parts.steps(), len(parts.curriculum)), measuring(parts, results) as measure:
        if not results.is_resumed:
            results.tested_untrained(measure("test", plan.before_training))
        for task, experience in parts.curriculum[results.trained_experiences :]:
            trained = results.trained_tasks
            with results.training(task):
                epochs = parts.train(experience)
            results.trained(task, parts.strategy.report(), epochs, clock.train_iterations)
            results.validated(measure("valid", plan.to_validate(trained, task)))
            tested = measure("test", plan.to_test(task))
            results.tested(tested, parts.strategy.identified() if tested else {})
            results.flush()
            if parts.save is not None:
                parts.save(results)
        if parts.sparsity is not None:
            results.pruned(density_curve(parts.sparsity, lambda: measure("test", range(parts.n_tasks))))
        results.finish(parts.strategy.summary(parts.learner.model), measure_efficiency(parts, results.capacity.rows))
    return results


def density_curve(
    sparsity: SparseTraining, measure: Callable[[], dict[int, Measured]]
) -> dict[float, dict[int, Measured]]:
    """Return what each task measures with the trained network pruned to each density of the curve, not retrained."""
    measured = {}
    for density in sparsity.curve:
        with sparsity.pruned_to(density):
            measured[density] = measure()
    return measured


def refuse_trained(learner: Any) -> None:
    """Refuse a learner that has trained before.

    Raises:
        ConfigurationError: if it has.
    """
    if learner.clock.train_iterations:
        raise ConfigurationError("the learner has trained before; make a new one, with a new network, for each run")


Measure = Callable[[str, Sequence[int]], dict[int, Measured]]


@contextlib.contextmanager
def measuring(parts: Parts, results: Results) -> Iterator[Measure]:
    """Put meters on the learner, and yield what measures some tasks of a stream."""
    learner, streams, plan = parts.learner, parts.benchmark.streams, parts.plan
    meter = EvaluationMeter()

    def measure(name: str, tasks: Sequence[int]) -> dict[int, Measured]:
        if not tasks or name not in streams:
            return {}
        with results.time("eval"):
            learner.eval([streams[name][task] for task in tasks])
        return dict(zip(tasks, meter.measured.values(), strict=True))

    def test_within(epoch: int, step: int) -> None:
        results.tested_within(epoch, step, measure("test", range(results.task_in_training + 1)))

    before: list[Any] = learner.plugins
    # Avalanche counts epochs and steps by a plugin at the end, which must not have moved on when ours ask.
    theirs, clock = [plugin for plugin in before if plugin is not learner.clock], learner.clock
    within = ContinualEvaluation(test_within, plan.every_epochs, plan.every_steps)
    # Meters come first: a loss that is not finite stops the run before anything is made of it, and logits are seen
    # before task inference puts others in their place. What is not used would cost a call a step.
    learner.plugins = [TrainingMeter(results.epoch_ended), meter, *theirs, results.display]
    if parts.sparsity is not None:
        learner.plugins.append(SparsityMeter(parts.sparsity, results.sparsified))
    learner.plugins += [within, clock] if plan.every_epochs or plan.every_steps else [clock]
    if parts.checkpoints is not None:
        learner.plugins.append(parts.checkpoints)
    try:
        yield measure
    finally:
        learner.plugins = before
