"""Loss and accuracy, summed on the device: only the sums of a whole epoch or experience are copied to the CPU."""

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.errors import DivergedError
from cl_powerprop.torchrun import place

_MOST_WAITING = 2**18  # output values that are collected before they are summed, 1 MiB of float32


@dataclass(frozen=True)
class Measured:
    """What was measured over some samples.

    Attributes:
        loss, accuracy: means.
        logits: SHA-256 of all logits if they were evaluated, not trained.
        majority: share of the most frequent class: what always answering it would reach. 0 if it is not known.
    """

    loss: float
    accuracy: float
    logits: str = ""
    majority: float = 0.0


class _Sums:
    """Running sums of one pass over the data, as tensors on the device.

    Several batches are collected and then summed together, which takes a few operations instead of a few per batch.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []  # losses, outputs and labels of some batches
        self._values = 0
        self._loss: Tensor | float = 0.0
        self._correct: Tensor | int = 0
        self._labels: list[Tensor] = []
        self._classes = 0  # outputs
        self.samples = 0

    def add(self, strategy: Any) -> None:
        """Add the batch that the learner has just computed."""
        loss, output, labels = strategy.loss.detach(), strategy.mb_output.detach(), strategy.mb_y
        if getattr(strategy, "reuses_batch", False):  # the next step writes to the same tensors
            copied = torch.cat([loss.reshape(1), output.reshape(-1)])  # by one kernel
            loss, output, labels = copied[0], copied[1:].view(output.shape), labels.clone()
        self._waiting.append((loss, output, labels))
        self.samples += len(labels)
        self._values += output.numel()
        if self._values > _MOST_WAITING:
            self._collapse()

    def add_sums(self, loss: Tensor, correct: Tensor, labels: Tensor, classes: int) -> None:
        """Add several batches.

        Args:
            loss: sum over their samples.
            correct: how many samples were right.
            labels: of all samples.
            classes: number of outputs.
        """
        self._loss, self._correct = self._loss + loss, self._correct + correct
        self._labels.append(labels)
        self._classes = classes
        self.samples += len(labels)

    def _collapse(self) -> None:
        losses, outputs, labels = zip(*self._waiting, strict=True)
        means = torch.cat([loss.reshape(1) for loss in losses])
        self._loss = self._loss + means @ means.new_tensor([len(batch) for batch in labels])
        self._labels.append(torch.cat(labels))
        answers = torch.cat(outputs)
        self._classes = answers.shape[1]
        self._correct = self._correct + (answers.argmax(1) == self._labels[-1]).sum()
        self._waiting, self._values = [], 0

    def measured(self, logits: str = "", total: Callable[[Tensor], Tensor] | None = None) -> Measured:
        """Return the means; this waits for the device.

        Args:
            logits: a hash.
            total: returns the sum of a tensor over all processes, where several have measured a part each.
        """
        if self._waiting:
            self._collapse()
        counts = torch.cat(self._labels).bincount(minlength=self._classes)
        samples = counts.new_tensor(self.samples)
        values = [torch.as_tensor(value) for value in (self._loss, self._correct, counts, samples)]
        summed, correct, counts, samples = values if total is None else map(total, values)
        sums = float(summed), int(correct), int(counts.max())
        loss, accuracy, majority = (value / int(samples) for value in sums)
        return Measured(loss, accuracy, logits, majority)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, and the batches that wait: summed in other groups, the loss would be rounded otherwise."""
        state: dict[str, Any] = {"samples": self.samples, "classes": self._classes}
        if self._labels:
            state |= {"loss": self._loss, "correct": self._correct, "labels": torch.cat(self._labels)}
        if self._waiting:
            losses, outputs, labels = zip(*self._waiting, strict=True)
            state["waiting_sizes"] = [len(batch) for batch in labels]
            state["waiting_losses"] = torch.stack([loss.reshape(()) for loss in losses])
            state |= {"waiting_outputs": torch.cat(outputs), "waiting_labels": torch.cat(labels)}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned; its tensors are on the device.

        Raises:
            ValueError: if there is no such class as a label says.
        """
        classes = state["waiting_outputs"].shape[1] if "waiting_outputs" in state else state["classes"]
        for labels in (state[name] for name in ("labels", "waiting_labels") if name in state):
            if not bool(((labels >= 0) & (labels < classes)).all()):
                raise ValueError("a label is none of the classes")
        self.samples, self._classes = state["samples"], state["classes"]
        if "labels" in state:
            self._loss, self._correct, self._labels = state["loss"], state["correct"], [state["labels"]]
        if sizes := state.get("waiting_sizes"):
            losses, outputs, labels = (state[f"waiting_{name}"] for name in ("losses", "outputs", "labels"))
            self._waiting = list(zip(losses, outputs.split(sizes), labels.split(sizes), strict=True))
            self._values = outputs.numel()


class TrainingMeter(SupervisedPlugin):  # type: ignore[misc]
    """Reports loss and accuracy of every training epoch, and stops a run whose loss is no longer finite.

    Args:
        report: called as ``report(task, epoch, step, measured)`` after each epoch.
    """

    def __init__(self, report: Callable[[int, int, int, Measured], None]) -> None:
        super().__init__()
        self.report = report
        self.last = Measured(math.nan, math.nan)  # of the last finished epoch
        self._sums = _Sums()

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Reset the sums."""
        self._sums = _Sums()

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Add the batch."""
        self._sums.add(strategy)

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common that are measured at once."""
        return ()

    def stack(self, together: Any, meters: Sequence["TrainingMeter"]) -> dict[str, Callable[[], None]]:
        """Sum for each learner; the sums are given to the meters when the epoch has ended."""
        losses = together.hold("losses", torch.zeros(len(meters), device=together.device))
        correct = together.hold("correct", torch.zeros(len(meters), dtype=torch.int64, device=together.device))

        def add() -> None:
            losses.add_(together.losses, alpha=together.labels.shape[1])
            correct.add_((together.outputs.argmax(2) == together.labels).sum(1))

        def give() -> None:
            sums = zip(meters, losses.clone(), correct.clone(), together.labels, strict=True)
            for meter, loss, right, labels in sums:
                meter._sums.add_sums(loss, right, labels, together.outputs.shape[2])

        return {"after_update": add, "ended": give}

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Report the epoch.

        Raises:
            DivergedError: if the mean loss is infinite or not a number.
        """
        if not self._sums.samples:
            return
        task, epoch = strategy.experience.current_experience, strategy.clock.train_exp_epochs + 1
        measured = self._sums.measured(total=getattr(strategy, "sum_over_ranks", None))
        if not math.isfinite(measured.loss):
            raise DivergedError(
                f"training diverged in task {task}, epoch {epoch}: the loss is {measured.loss}; "
                "lower optimizer.lr, or set train.warmup or train.clip_norm"
            )
        self.last = measured
        self._sums = _Sums()  # a run that goes on from here does not report the epoch again
        self.report(task, epoch, strategy.clock.train_iterations, measured)

    def task_progress(self) -> dict[str, Any]:
        """Return what was summed of the epoch."""
        return self._sums.state_dict()

    def load_task_progress(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`task_progress` returned."""
        if place().is_first:  # of several processes, which add up their sums
            self._sums.load_state_dict(state)


class EvaluationMeter(SupervisedPlugin):  # type: ignore[misc]
    """Keeps the results of the learner's last ``eval``: ``measured[k]`` for experience k of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: dict[int, Measured] = {}
        self._sums = _Sums()
        self._outputs: list[Tensor] = []

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Discard the previous evaluation."""
        self.measured = {}

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Reset the sums."""
        self._sums = _Sums()
        self._outputs = []

    def after_eval_forward(self, strategy: Any, **_: Any) -> None:
        """Keep the logits of the known task, before task inference replaces them."""
        self._outputs.append(strategy.mb_output)

    def after_eval_iteration(self, strategy: Any, **_: Any) -> None:
        """Add the batch."""
        self._sums.add(strategy)

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Keep the result of the experience."""
        logits = torch.cat(self._outputs).cpu()
        self._outputs = []
        digest = hashlib.sha256(logits.numpy().tobytes()).hexdigest()
        self.measured[strategy.experience.current_experience] = self._sums.measured(digest)
