"""One run from top to bottom: seed, build, then train and evaluate task by task, and write. Start reading here."""

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cl_powerprop import build
from cl_powerprop.checkpoint import FILE as CHECKPOINT
from cl_powerprop.checkpoint import Checkpoint, check_matches, what_matters, write_checkpoint
from cl_powerprop.config import RunConfig, repeatable_yaml
from cl_powerprop.evaluation.weights import weight_histogram
from cl_powerprop.models.heads import TaskHeads
from cl_powerprop.privacy import hide
from cl_powerprop.record import RunRecord
from cl_powerprop.references import load_references
from cl_powerprop.run_folder import RunFolder
from cl_powerprop.saving import save
from cl_powerprop.seeding import derive_seed
from cl_powerprop.sequences import TaskSequence
from cl_powerprop.strategies.epn import EPNPlugin, Search
from cl_powerprop.strategies.masking import MaskingPlugin
from cl_powerprop.strategies.task_inference import EntropyTaskInference
from cl_powerprop.tracking import Row, RowStream
from cl_powerprop.tracking.csv_sink import CsvSink
from cl_powerprop.tracking.progress import ProgressDisplay
from cl_powerprop.training.benchmark import to_avalanche
from cl_powerprop.training.clipping import GradientClipping
from cl_powerprop.training.continual_evaluation import ContinualEvaluation
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.meters import EvaluationMeter, Measured, TrainingMeter
from cl_powerprop.training.schedule import LearningRateSchedule

_CHANCE_MARGIN = 1.2  # an accuracy within this factor of guessing counts as having learned nothing


@dataclass(frozen=True)
class Result:
    """What a run leaves: its folder's path, the content of its `run.json`, and the trained network."""

    path: Path
    record: dict[str, Any]
    model: nn.Module


def run(
    config: RunConfig,
    path: Path,
    quiet: bool = False,
    multirun: str | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Learn the tasks of ``config`` one after the other, and write the run folder ``path``.

    Args:
        config: what to run.
        path: of the run folder.
        quiet: show no progress, whatever the config says.
        multirun: name of the multirun that this run is a job of; dashboards group by it.
        checkpoint: of the run in ``path``, to go on from.

    Raises:
        UserError: for a config that no run can follow, data that is missing or damaged, or a folder that is taken.
        DivergedError: if the loss leaves the numbers; what was finished is in the folder, marked failed.
    """
    build.check(config)
    _hide_places(config, path)
    if checkpoint is not None:
        check_matches(checkpoint, config, path)
    messages: list[str] = []
    references = []
    if checkpoint is None:
        references = load_references(config, lambda other, where: run(other, where, quiet), messages.append)
    torch.set_num_threads(config.train.threads)
    torch.manual_seed(derive_seed(config.seed, "torch"))
    device = build.choose_device(config.device)

    sequence = build.load_sequence(config, device)
    joint = config.strategy.name == "joint"
    benchmark = to_avalanche(sequence, build.make_augmentation(config), joint)
    architecture = build.model_architecture(config, sequence)
    model = build.make_model(architecture, device)
    optimizer = build.make_optimizer(config.optimizer, model, config.model.alpha)
    plugin = build.make_plugin(config, benchmark.streams["valid"])
    inference = build.make_task_inference(config, plugin)
    schedule = LearningRateSchedule(config.train.schedule, build.phases(config), config.train.warmup)
    clipping = [] if config.train.clip_norm is None else [GradientClipping(config.train.clip_norm)]

    folder = RunFolder(path) if checkpoint is None else RunFolder.reopen(path)
    if checkpoint is None:
        folder.write_text("config.yaml", repeatable_yaml(config))
    record = RunRecord(folder, config, [task.name for task in sequence.tasks], device)
    record.content["messages"] += messages
    for reference in references:
        record.add_reference(reference)
    steps = [config.train.epochs * -(-len(each.dataset) // config.train.batch_size) for each in benchmark.train_stream]
    if checkpoint is not None:
        record.restore(checkpoint.state["record"])
    display = ProgressDisplay(1 if joint else len(sequence), config.progress and not quiet)

    def report_epoch(task: int, epoch: int, step: int, measured: Measured) -> None:
        rows.write(Row(task, epoch, step, task, "train", "loss", measured.loss))
        rows.write(Row(task, epoch, step, task, "train", "accuracy", measured.accuracy))
        display.show(loss=measured.loss, accuracy=measured.accuracy)

    def evaluate_within(task: int, epoch: int, step: int) -> None:
        run_tasks.evaluate_within(task, epoch, step)

    training_meter, meter = TrainingMeter(report_epoch), EvaluationMeter()
    every_epochs, every_steps = config.evaluation.every_epochs, config.evaluation.every_steps
    within = ContinualEvaluation(evaluate_within, every_epochs, every_steps)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No loggers specified")
        strategy = FastSupervisedTemplate(
            model=model,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=config.train.batch_size,
            train_epochs=config.train.epochs,
            eval_mb_size=config.train.eval_batch_size,
            device=device,
            plugins=[
                *(schedule, *clipping, *build.make_penalties(config), training_meter, plugin, meter),
                *([] if inference is None else [inference]),
                display,
                *([within] if every_epochs or every_steps else []),  # unused it would cost a call a step
            ],
            evaluator=None,
            seed=config.seed,
            precision=config.train.precision,
            compile=config.train.compile,
        )
    kept, purge = 0, None
    if checkpoint is not None:
        _restore(checkpoint, strategy, plugin)
        kept, purge = checkpoint.state["rows"], checkpoint.state["step"] + 1
    csv = CsvSink(folder, record.run_id, kept)
    rows = RowStream(csv, build.make_sinks(config, record, steps, multirun, purge), record.tell, kept)
    run_tasks = _TaskLoop(
        config,
        sequence,
        benchmark,
        strategy,
        plugin,
        inference,
        training_meter,
        meter,
        within,
        record,
        rows,
        display,
        architecture,
    )
    try:
        record.write()
        with display:
            run_tasks()
    except BaseException as error:
        with contextlib.suppress(OSError):
            rows.flush()
        record.fail(error)
        raise
    finally:
        rows.close()
        record.add_logging(rows.seconds)
        record.write()  # once more: what the sinks had to say
    return Result(path, record.content, model)


def _hide_places(config: RunConfig, path: Path) -> None:
    """Keep the user's own places out of what a run writes about itself: an error may name any of them."""
    hide(path, "<run folder>")
    hide(config.data.root, "<data>")
    hide(config.references_dir, "<references>")
    if config.logger.wandb is not None:
        hide(config.logger.wandb.dir, "<wandb>")


def _restore(checkpoint: Checkpoint, strategy: FastSupervisedTemplate, plugin: Any) -> None:
    """Make network, masks and clock what they were; all else follows from the config and the task at hand."""
    content = checkpoint.state["record"]["content"]
    if isinstance(plugin, MaskingPlugin):
        plugin.resume(strategy.model, content["trained_tasks"], content["seconds"]["search"])
    if isinstance(plugin, EPNPlugin):
        plugin.searches = [Search(**search) for search in content["searches"]]
    strategy.model.load_state_dict(checkpoint.tensors)
    strategy.clock.train_iterations = checkpoint.state["step"]
    strategy.clock.train_exp_counter = content["trained_tasks"]


@contextlib.contextmanager
def _adding_to(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - start


@dataclass
class _TaskLoop:
    """The parts of a run, and the loop over its tasks."""

    config: RunConfig
    sequence: TaskSequence
    benchmark: Any
    strategy: FastSupervisedTemplate
    plugin: Any
    inference: EntropyTaskInference | None
    training_meter: TrainingMeter
    meter: EvaluationMeter
    within: ContinualEvaluation
    record: RunRecord
    rows: RowStream
    display: ProgressDisplay
    architecture: dict[str, Any]

    def __call__(self) -> None:
        seconds = self.record.content["seconds"]
        start = time.perf_counter() - seconds["total"]
        learned = self.record.content["trained_tasks"]  # more than none in a run that is resumed
        train_stream, valid_stream, test_stream = (self.benchmark.streams[name] for name in ("train", "valid", "test"))
        if self._tests_unseen and not learned:
            with _adding_to(seconds, "eval"):
                measured = self._evaluate(test_stream)
            self.record.references["untrained"][:] = [measured[task].accuracy for task in range(len(self.sequence))]
        for task, experience in self._training(train_stream)[learned:]:
            before = seconds["train"] + seconds["search"]
            with _adding_to(seconds, "train"):
                if experience is not None:
                    self.strategy.train(experience, eval_streams=[], reset_optimizer_state=True)
            with _adding_to(seconds, "logging"):
                self._after_training(task)
                self.record.content["task_seconds"].append(seconds["train"] + seconds["search"] - before)
            with _adding_to(seconds, "eval"):
                last = task + 1 == len(self.sequence)
                self._validate(range(0 if last else learned, task + 1), valid_stream)
                measured = self._evaluate([test_stream[index] for index in self._to_test(task)])
            learned = task + 1
            with _adding_to(seconds, "logging"):
                self._after_evaluation(task, measured)
                if task + 1 < len(self.sequence):
                    seconds["total"] = time.perf_counter() - start
                    self.record.write()
                    self._write_checkpoint()
        masked = isinstance(self.plugin, MaskingPlugin)
        self.record.write_weights(weight_histogram(self.strategy.model, (TaskHeads,), masked))
        if isinstance(self.plugin, MaskingPlugin):
            self.record.write_overlaps(self.plugin.allocator.overlaps())
        seconds["total"] = time.perf_counter() - start
        self.record.finish(self._capacity_used(), self._mask_bits())
        (self.record.folder.path / CHECKPOINT).unlink(missing_ok=True)

    def _training(self, train_stream: Any) -> list[tuple[int, Any]]:
        """Return (the last task that is learned then, experience to train) one after the other."""
        name, last = self.config.strategy.name, len(self.sequence) - 1
        if name == "untrained":
            return [(last, None)]
        return [(last, train_stream[0])] if name == "joint" else list(enumerate(train_stream))

    def evaluate_within(self, task: int, epoch: int, step: int) -> None:
        """Test the task in training and all before it."""
        in_sight = len(self.sequence) if self.config.strategy.name == "joint" else task + 1
        measured = self._evaluate([self.benchmark.streams["test"][index] for index in range(in_sight)])
        self.record.add_evaluation_within(
            {index: value.accuracy for index, value in measured.items()},
            {index: value.logits for index, value in measured.items() if index < task},
        )
        for index, value in measured.items():
            self.rows.write(Row(task, epoch, step, index, "test", "accuracy", value.accuracy))
            self.rows.write(Row(task, epoch, step, index, "test", "loss", value.loss))

    @property
    def _tests_unseen(self) -> bool:
        """Whether tasks are tested before they are learned; with masks or heads of their own that makes no sense."""
        has_own_parts = (
            isinstance(self.plugin, MaskingPlugin)
            or self.config.strategy.name in build.REFERENCES
            or self.config.model.heads == "per_task"
        )
        return not has_own_parts and self.config.evaluation.schedule == "every_task"

    def _to_test(self, task: int) -> range:
        """Return the tasks to test after training ``task``."""
        last = task + 1 == len(self.sequence)
        schedule = self.config.evaluation.schedule
        if last or schedule == "every_task":
            # Of the tasks to come only the next one tells something: forward transfer.
            return range(min(task + 2, len(self.sequence)) if self._tests_unseen else task + 1)
        return range(task, task + 1) if schedule == "diagonal_and_last" else range(0)

    def _evaluate(self, stream: Any) -> dict[int, Measured]:
        if not stream:
            return {}
        self.strategy.eval(stream)
        return self.meter.measured

    def _validate(self, tasks: range, stream: Any) -> None:
        """Measure tasks on their validation data, when learned and at the end: what hyper-parameters are chosen by."""
        epochs, step = self.config.train.epochs, self.strategy.clock.train_iterations
        for task, measured in self._evaluate([stream[task] for task in tasks]).items():
            self.record.validation[task] = measured.accuracy
            self.rows.write(Row(tasks.stop, epochs, step, task, "valid", "accuracy", measured.accuracy))
            self.rows.write(Row(tasks.stop, epochs, step, task, "valid", "loss", measured.loss))

    def _after_training(self, task: int) -> None:
        content = self.record.content
        content["trained_tasks"] = task + 1
        content["seconds"]["train"] -= self.within.seconds
        content["seconds"]["eval"] += self.within.seconds
        self.within.seconds = 0.0
        if isinstance(self.plugin, MaskingPlugin):
            self.record.capacity += self.plugin.capacity
            content["seconds"]["train"] -= self.plugin.search_seconds - content["seconds"]["search"]
            content["seconds"]["search"] = self.plugin.search_seconds
            content["messages"] += self.plugin.messages
            self.plugin.messages = []
        if isinstance(self.plugin, EPNPlugin):
            content["searches"] = [asdict(search) for search in self.plugin.searches]

    def _after_evaluation(self, task: int, measured: dict[int, Measured]) -> None:
        epochs, step = self.config.train.epochs, self.strategy.clock.train_iterations
        self.record.add_evaluation(
            task,
            {index: value.accuracy for index, value in measured.items()},
            {index: value.logits for index, value in measured.items()},
        )
        for index, value in measured.items():
            self.rows.write(Row(task + 1, epochs, step, index, "test", "accuracy", value.accuracy))
            self.rows.write(Row(task + 1, epochs, step, index, "test", "loss", value.loss))
        if self.inference is not None:
            self.record.identified.update(self.inference.identified)
            for index, share in self.inference.identified.items():
                self.rows.write(Row(task + 1, epochs, step, index, "test", "task_identification", share))
        self.rows.write(Row(task + 1, epochs, step, task, "train", "capacity_used", self._capacity_used()))
        self.rows.flush()
        self.display.show(capacity=self._capacity_used())
        # A prediction through another task's mask says nothing about the training.
        tested = task in measured and self.inference is None
        split, learned = ("test", measured[task]) if tested else ("training", self.training_meter.last)
        guessing = _CHANCE_MARGIN / self.sequence.tasks[task].classes
        if learned.accuracy <= guessing and self.config.strategy.name != "untrained":
            message = (
                f"task {task}: {split} accuracy {learned.accuracy:.3f} is no better than guessing: training diverged?"
            )
            self.record.content["diverged_tasks"].append(task)
            self.record.tell(message)
        self._save(task + 1)

    def _write_checkpoint(self) -> None:
        if build.is_resumable(self.config):
            step = self.strategy.clock.train_iterations
            state = {"record": self.record.state(), "rows": self.rows.written, "step": step}
            state["config"] = what_matters(self.config)
            write_checkpoint(self.record.folder.path, self.strategy.model, state)

    def _save(self, trained: int) -> None:
        if not self.config.save_model:
            return
        masked = {"unmasked": self.plugin.unmasked} if isinstance(self.plugin, MaskingPlugin) else None
        path = self.record.folder.path / "model.safetensors"
        save(self.strategy.model, path, architecture=self.architecture, masked=masked, n_tasks=trained)

    def _capacity_used(self) -> float:
        if isinstance(self.plugin, MaskingPlugin):
            return self.plugin.allocator.capacity_used
        # Without masks every weight serves every task; independent networks take one network's weights each.
        return float(len(self.sequence)) if self.config.strategy.name == "independent" else 1.0

    def _mask_bits(self) -> int:
        return self.plugin.allocator.mask_bits if isinstance(self.plugin, MaskingPlugin) else 0
