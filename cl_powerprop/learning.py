"""The loop: train a task, note what it reported, validate, test, write, go on. Start reading here.

What is put in are :class:`Parts`, made from a config by :mod:`cl_powerprop.assemble` or by hand from any Avalanche
strategy; what comes out is a run folder, kept by :class:`~cl_powerprop.results.results.Results`.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.evaluation.cost import measure_cost
from cl_powerprop.parts import Parts
from cl_powerprop.plugins.sparse_training import SparseTraining
from cl_powerprop.results.efficiency import measure_efficiency
from cl_powerprop.results.results import Results
from cl_powerprop.training.continual_evaluation import ContinualEvaluation
from cl_powerprop.training.measure import Measure
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
    with (
        parts.interruptible(),
        results.recording(parts.steps(), len(parts.curriculum)),
        measuring(parts, results) as measure,
    ):
        if not results.is_begun:
            results.tested_untrained(measure("test", plan.before_training, "untrained"))
            measure.entered()
        for index, (task, experience) in enumerate(parts.curriculum):
            if index >= results.trained_experiences:
                with results.training(task):
                    epochs = parts.train(experience)
                results.trained(task, parts.strategy.report(), epochs, clock.train_iterations)
                parts.moment()
            if index < results.tested_experiences:  # in a run that goes on
                continue
            learned = parts.curriculum[index - 1][0] + 1 if index else 0
            validated, tested = measure("valid", plan.to_validate(learned, task)), measure("test", plan.to_test(task))
            results.validated(validated)
            results.tested(tested, measure.identified() if tested else {})
            measure.entered()
            results.flush()
            if index + 1 < len(parts.curriculum):
                parts.watch(results)  # before a checkpoint, from which a run goes on without being asked again
                parts.save(results)
        parts.save(results)
        if parts.sparsity is not None:
            results.pruned(density_curve(parts.sparsity, partial(measure, "test", range(parts.n_tasks))))
            parts.moment()
        summary = parts.strategy.summary(parts.learner.model)
        cost = measure_cost(parts.learner.model, summary.buffer_bits, summary.importance_bits)
        results.finish(summary, measure_efficiency(parts, results.capacity.rows), cost)
    return results


def density_curve(
    sparsity: SparseTraining, measure: Callable[[str], dict[int, Measured]]
) -> dict[float, dict[int, Measured]]:
    """Return what each task measures with the trained network pruned to each density of the curve, not retrained.

    Args:
        sparsity: of the network.
        measure: called as ``measure(purpose)``, for each density another one.
    """
    measured = {}
    for density in sparsity.curve:
        with sparsity.pruned_to(density):
            measured[density] = measure(f"density {density}")
    return measured


def refuse_trained(learner: Any) -> None:
    """Refuse a learner that has trained before.

    Raises:
        ConfigurationError: if it has.
    """
    if learner.clock.train_iterations:
        raise ConfigurationError("the learner has trained before; make a new one, with a new network, for each run")


@contextlib.contextmanager
def measuring(parts: Parts, results: Results) -> Iterator[Measure]:
    """Put meters on the learner, and yield what measures some tasks of a stream."""
    learner, streams, plan = parts.learner, parts.benchmark.streams, parts.plan
    meter = EvaluationMeter()
    measure = Measure(learner, streams, meter, parts.strategy.identified, partial(results.time, "eval"))

    def test_within(epoch: int, step: int) -> None:
        results.tested_within(epoch, step, measure("test", range(results.task_in_training + 1), "within"))
        measure.entered()

    before: list[Any] = learner.plugins
    # Avalanche counts epochs and steps by a plugin at the end, which must not have moved on when ours ask, but when a
    # checkpoint is written and a test within the task begins.
    theirs, clock = [plugin for plugin in before if plugin is not learner.clock], learner.clock
    within = ContinualEvaluation(test_within, plan.every_epochs, plan.every_steps)
    # Meters come first: a loss that is not finite stops the run before anything is made of it, and logits are seen
    # before task inference puts others in their place. What is not used would cost a call a step.
    learner.plugins = [TrainingMeter(results.epoch_ended), meter, *theirs, results.display]
    if parts.sparsity is not None:
        learner.plugins.append(SparsityMeter(parts.sparsity, results.sparsified))
    learner.plugins.append(clock)
    if parts.checkpoints is not None:
        parts.checkpoints.watch(measure)
        learner.plugins.append(parts.checkpoints)
    learner.plugins += [within] if plan.every_epochs or plan.every_steps else []
    try:
        yield measure
    finally:
        learner.plugins = before
