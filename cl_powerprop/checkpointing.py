"""When a run writes checkpoints, and how it goes on from one."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from cl_powerprop.checkpoint import FILE, Checkpoint, kept_config, write_checkpoint
from cl_powerprop.config import RunConfig
from cl_powerprop.parts import Parts
from cl_powerprop.results.results import Results
from cl_powerprop.saving import save
from cl_powerprop.strategies.base import Strategy
from cl_powerprop.torchrun import place
from cl_powerprop.training.checkpoints import Checkpoints, Reach
from cl_powerprop.training.task_state import fitting, global_generators


def make_checkpoints(config: RunConfig, parts: Parts, results: Results, begun: Checkpoint | None) -> Checkpoints:
    """Return what writes the checkpoints of a run, and goes on from one within a task."""
    kept = kept_config(config)

    def write(task: dict[str, Any]) -> None:
        if not place().is_first:
            return
        results.sync()
        with results.time("logging"), results.folder.writing():
            write_checkpoint(results.folder.path, parts, results, kept, task, checkpoints.measured())

    def go_on() -> Mapping[str, Any]:
        assert begun is not None
        parts.learner.model.load_state_dict(begun.model)  # once more: weights may have changed as the task began
        return {f"generator/{name}": state for name, state in begun.random.items()} | begun.task

    options = asdict(config.checkpoint)
    if config.checkpoint.max_share < 1.0:  # of the time that all seeds take together
        options["max_share"] /= results.facts.seeds_together
    within_task = begun is not None and begun.task
    checkpoints = Checkpoints(
        write,
        reach_of(parts.strategy),
        **options,
        go_on=go_on if within_task else None,
        measured={} if begun is None else begun.evaluation,
        source=str(results.folder.path / FILE),
    )
    return checkpoints


def reach_of(strategy: Strategy) -> Reach:
    """Return where a run can go on."""
    said = (strategy.resumable, strategy.resumable_within_tasks, strategy.resumable_anywhere)
    reach = Reach(said.index(False) if False in said else len(said))
    # Several processes have the same state at the end of an epoch only.
    return reach if place().ranks == 1 else min(reach, Reach.EPOCHS)


def saver(config: RunConfig, parts: Parts, checkpoints: Checkpoints) -> Callable[[Results], None]:
    """Return what writes a checkpoint between two tasks, and the network: always after the last one."""

    def save_all(results: Results) -> None:
        is_last = results.trained_experiences == len(parts.curriculum)
        saves = config.save_model and (is_last or checkpoints.can_afford)
        checkpoints.task_ended()
        if saves and place().is_first:
            file, strategy = results.folder.path / "model.safetensors", parts.strategy
            masked, learned = strategy.mask_options(), results.trained_tasks
            with checkpoints.spending(), results.time("logging"), results.folder.writing():
                save(parts.learner.model, file, architecture=parts.architecture, masked=masked, n_tasks=learned)

    return save_all


def restore(checkpoint: Checkpoint, parts: Parts, results: Results) -> None:
    """Make network, strategy, clock and results what they were; all else follows from the config and the task.

    Raises:
        RunFolderError: if the checkpoint is not one of this run.
    """
    learner = parts.learner
    with fitting(str(results.folder.path / FILE)):
        results.load_state_dict(checkpoint.results, checkpoint.step)
        parts.strategy.load_state_dict(checkpoint.strategy, learner.model)
        learner.model.load_state_dict(checkpoint.model)
        if parts.sparsity is not None:
            parts.sparsity.load_state_dict(checkpoint.sparsity)
        learner.clock.train_iterations = checkpoint.step
        learner.clock.train_exp_counter = results.trained_tasks
        for name, draws in global_generators(learner.device).items():
            if name in checkpoint.random:
                draws.set_state(checkpoint.random[name])
