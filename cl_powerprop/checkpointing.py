"""When a run writes checkpoints, and how it goes on from one."""

from collections.abc import Callable

from cl_powerprop.checkpoint import Checkpoint, must_match, write_checkpoint
from cl_powerprop.config import RunConfig
from cl_powerprop.parts import Parts
from cl_powerprop.results.results import Results
from cl_powerprop.saving import save
from cl_powerprop.torchrun import place
from cl_powerprop.training.epoch_checkpoints import EpochCheckpoints, load_task_state, task_state


def saver(config: RunConfig, parts: Parts) -> Callable[[Results], None]:
    """Return what writes the network and, between two tasks, what a resumed run needs."""

    def save_all(results: Results) -> None:
        if not place().is_first:
            return
        model, strategy = parts.learner.model, parts.strategy
        with results.time("logging"):
            if config.save_model:
                file = results.folder.path / "model.safetensors"
                masked, learned = strategy.mask_options(), results.trained_tasks
                save(model, file, architecture=parts.architecture, masked=masked, n_tasks=learned)
            if strategy.resumable and results.trained_experiences < len(parts.curriculum):
                write_checkpoint(results.folder.path, parts, results, must_match(config))

    return save_all


def epoch_checkpoints(
    config: RunConfig, parts: Parts, results: Results, begun: Checkpoint | None
) -> EpochCheckpoints | None:
    """Return what writes checkpoints within tasks, and goes on from one; None if the strategy cannot."""
    learner = parts.learner
    if not parts.strategy.resumable_within_tasks:
        return None

    def write() -> None:
        if not place().is_first:
            return
        results.sync()
        with results.time("logging"):
            write_checkpoint(results.folder.path, parts, results, must_match(config), task_state(learner))

    if begun is None or not begun.task:
        return EpochCheckpoints(write)

    def go_on() -> None:
        learner.model.load_state_dict(begun.model)  # once more: weights may have changed as the task began
        load_task_state(learner, begun.task)

    return EpochCheckpoints(write, go_on)


def restore(checkpoint: Checkpoint, parts: Parts, results: Results) -> None:
    """Make network, strategy, clock and results what they were; all else follows from the config and the task."""
    learner = parts.learner
    results.load_state_dict(checkpoint.results, checkpoint.step)
    parts.strategy.load_state_dict(checkpoint.strategy, learner.model)
    learner.model.load_state_dict(checkpoint.model)
    if parts.sparsity is not None:
        parts.sparsity.load_state_dict(checkpoint.sparsity)
    learner.clock.train_iterations = checkpoint.step
    learner.clock.train_exp_counter = results.trained_tasks
