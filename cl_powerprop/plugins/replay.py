"""Experience replay and dark experience replay in Avalanche's events."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cl_powerprop.networks.heads import head_sizes, select_samples
from cl_powerprop.plugins.memory import Memory, MemoryPlugin, loss_of
from cl_powerprop.sparsity import select_task


class ReplayPlugin(MemoryPlugin):
    """Trains each batch together with one of the memory, by the mean loss of both (as Avalanche's ``ReplayPlugin``).

    Losses and accuracies of an epoch are those of the task's own samples. A plugin that selects the head of each
    sample comes after it.
    """

    def graph_tensors(self, strategy: Any) -> list[Tensor] | None:
        return self.recordable()

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Put the batch of the memory after the task's own."""
        if not len(self.memory):
            return
        self._own, self._recalled = strategy.mbatch, self.recall()
        strategy.mbatch = [torch.cat(parts) for parts in zip(self._own, self._recalled, strict=True)]

    def after_forward(self, strategy: Any, **_: Any) -> None:
        """Take the two apart."""
        if not len(self.memory):
            return
        strategy.mbatch, outputs = self._own, strategy.mb_output
        strategy.mb_output, self._outputs = outputs.split([len(each[1]) for each in (self._own, self._recalled)])

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the loss of the memory."""
        if len(self.memory):
            strategy.loss = self.total(strategy, strategy.loss, loss_of(strategy, self._recalled, self._outputs))

    def total(self, strategy: Any, own: Tensor, recalled: Tensor) -> Tensor:
        """Return the loss of a step from that of the task's own samples and that of the memory's."""
        count, more = len(self._own[1]), len(self._recalled[1])
        return (count * own + more * recalled) / (count + more)


class DarkReplayPlugin(ReplayPlugin):
    """DER++: recalled samples are held to their labels, and to the logits that the network had for them.

    As in Avalanche's ``DER``, the logits are those at the end of the task, of samples that are not augmented, and one
    batch of the memory is for logits and labels; the paper keeps those of the training step, and draws two batches.

    Args:
        memory, batch: see :class:`MemoryPlugin`.
        alpha: weight of the logits' mean squared error.
        beta: weight of the labels' loss.

    Attributes:
        logits: float32 ``[m, classes]`` of the samples in the memory; None while nothing is kept.
        classes: int64 ``[tasks]``, of each task's head, if they differ: the squared error of a sample is the mean over
            the classes that it has.
    """

    def __init__(self, memory: Memory, batch: int | None, alpha: float, beta: float) -> None:
        super().__init__(memory, batch)
        self.alpha = alpha
        self.beta = beta
        self.logits: Tensor | None = None
        self.classes: Tensor | None = None

    def graph_tensors(self, strategy: Any) -> list[Tensor] | None:
        tensors = self.recordable()
        more = [tensor for tensor in (self.logits, self.classes) if tensor is not None]
        return None if tensors is None else [*tensors, *more]

    def total(self, strategy: Any, own: Tensor, recalled: Tensor) -> Tensor:
        assert self.logits is not None
        distance = self._distance(self._outputs, self.logits.index_select(0, self._which))
        return own + self.alpha * distance + self.beta * recalled

    def _distance(self, outputs: Tensor, kept: Tensor) -> Tensor:
        if self.classes is None:
            return mse_loss(outputs, kept)
        return (mse_loss(outputs, kept, reduction="none").sum(1) / self.classes[self._recalled[-1]]).mean()

    def before_training_exp(self, strategy: Any, **options: Any) -> None:
        """Begin a task."""
        super().before_training_exp(strategy, **options)
        sizes = head_sizes(strategy.model)
        self.classes = torch.tensor(sizes, device=strategy.device) if len(set(sizes)) > 1 else None

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Keep samples of the task, and the network's logits for them."""
        task, memory = strategy.experience.current_experience, self.memory
        stay, new = memory.add(task)
        logits = [] if self.logits is None else [self.logits[stay]]
        if new:
            logits.append(self._compute(strategy, len(memory) - new))
            select_task(strategy.model, strategy.experience.task_label)
        self.logits = torch.cat(logits)

    @torch.no_grad()
    def _compute(self, strategy: Any, first: int) -> Tensor:
        """Return the logits of the memory's samples from the first one on."""
        model, memory, size = strategy.model, self.memory, strategy.eval_mb_size
        assert memory.images is not None
        was_training = model.training
        model.eval()
        outputs = []
        for images, tasks in zip(memory.images[first:].split(size), memory.tasks[first:].split(size), strict=True):
            select_samples(model, tasks)
            outputs.append(model(images))
        model.train(was_training)
        return torch.cat(outputs)

    def load_logits(self, logits: Tensor) -> None:
        """Take back :attr:`logits`.

        Raises:
            ValueError: if they are not those of the samples in the memory.
        """
        if logits.dim() != 2 or len(logits) != len(self.memory):
            raise ValueError(f"{len(self.memory)} samples have logits of the shape {list(logits.shape)}")
        self.logits = logits.to(self.memory.labels.device)
