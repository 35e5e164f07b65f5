"""Learning without Forgetting in Avalanche's events, also for networks with one head per task."""

import copy
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn.functional import kl_div

from cl_powerprop.networks.heads import head_sizes, select_heads
from cl_powerprop.sparsity import select_task


class LearningWithoutForgetting(SupervisedPlugin):  # type: ignore[misc]
    """Holds the network to what it answered before the task, on the task's own samples (Li & Hoiem 2016).

    With one head per task, the answers of all earlier heads are held; with a shared head, those for all classes so
    far. Avalanche's ``LwFPlugin``, whose formula this is, takes a shared head's classes from task 0 alone, and has one
    head per task only in models of its own. It comes after the plugin that selects the task's head.

    Args:
        alpha: weight of the distillation loss, which is summed over heads.
        temperature: both networks' logits are divided by it.

    Attributes:
        teacher: the network as it was before the task, in evaluation mode; None in the first one.
        learned: what the teacher has learned: its tasks, with one head per task, else its classes.
    """

    def __init__(self, alpha: float, temperature: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.temperature = temperature
        self.teacher: nn.Module | None = None
        self.learned: list[int] = []
        self._sizes: list[int] = []  # of the heads of the learned tasks; empty with a shared head
        self._columns = torch.empty(0, dtype=torch.int64)
        self._answers: list[Tensor] = []

    def graph_tensors(self, strategy: Any) -> list[Tensor]:
        teacher = self.teacher
        return [] if teacher is None else [*teacher.parameters(), *teacher.buffers(), self._columns]

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Choose what of the outputs is held."""
        if self.teacher is None:
            return
        sizes = head_sizes(strategy.model)
        self._sizes = [sizes[task] for task in self.learned] if sizes else []
        self._columns = torch.tensor(self.learned, device=strategy.device)
        if sizes:
            select_heads(self.teacher, self.learned)

    def before_forward(self, strategy: Any, **_: Any) -> None:
        """Let the network answer by the heads of earlier tasks too."""
        if self._sizes:
            select_heads(strategy.model, [*self.learned, strategy.experience.task_label])

    def after_forward(self, strategy: Any, **_: Any) -> None:
        """Take the answers of earlier heads from the outputs."""
        if self.teacher is None:
            return
        if self._sizes:
            *self._answers, strategy.mb_output = strategy.mb_output.split(
                [*self._sizes, strategy.mb_output.shape[1] - sum(self._sizes)], dim=1
            )
        else:
            self._answers = [strategy.mb_output.index_select(1, self._columns)]

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the distillation loss."""
        if self.teacher is None:
            return
        with torch.no_grad():
            outputs = self.teacher(strategy.mb_x)
        targets = outputs.split(self._sizes, dim=1) if self._sizes else [outputs.index_select(1, self._columns)]
        for answer, target in zip(self._answers, targets, strict=True):
            student = torch.log_softmax(answer / self.temperature, dim=1)
            held = torch.softmax(target / self.temperature, dim=1)
            strategy.loss = strategy.loss + self.alpha * kl_div(student, held, reduction="batchmean")

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Keep the network as the next task's teacher."""
        experience, model = strategy.experience, strategy.model
        select_task(model, experience.task_label)
        self._answers = []  # whose autograd graphs are not copied
        self.teach(copy.deepcopy(model))
        new = [experience.task_label] if head_sizes(model) else experience.classes_in_this_experience
        self.learned = sorted({*self.learned, *map(int, new)})

    def teach(self, teacher: nn.Module) -> None:
        """Take a network as the teacher."""
        self.teacher = teacher.eval().requires_grad_(False)
