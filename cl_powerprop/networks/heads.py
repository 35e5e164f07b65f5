"""One output layer for each task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from cl_powerprop.sparsity.task_aware import TaskAware

NEVER = -1e4  # the logit of a class that a head does not have: never the largest, and the loss stays finite


class TaskHeads(nn.Module, TaskAware):
    """One Linear output layer per task; the selected one is used. Heads are not masked, since each has its own task.

    Args:
        features: number of inputs of each head.
        classes: number of outputs of each head, one entry per task.
        bias: whether heads have biases.
    """

    def __init__(self, features: int, classes: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(features, count, bias=bias) for count in classes)
        self.selected: int | tuple[int, ...] | Tensor = 0

    def select_task(self, task: int | None) -> None:
        if task is not None and len(self.heads) > 1:  # a single head is used for every task
            if not 0 <= task < len(self.heads):
                raise LookupError(f"there is no head for task {task}; the model has {len(self.heads)}")
            self.selected = task

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[n, classes]``; torch.compile leaves heads out, as it would compile anew for each."""
        if isinstance(self.selected, Tensor):
            return self._forward_mixed(features, self.selected)
        if isinstance(self.selected, tuple):
            return torch.cat([self.heads[task](features) for task in self.selected], dim=1)
        return self.heads[self.selected](features)  # type: ignore[no-any-return]

    def _forward_mixed(self, features: Tensor, tasks: Tensor) -> Tensor:
        width = max(head.out_features for head in self.heads)  # type: ignore[type-var]
        if features.is_cuda:  # which tasks there are would have to be asked for, and waited for
            return self._forward_all(features, tasks, int(width))  # type: ignore[arg-type]
        output = features.new_full((len(features), int(width)), NEVER)  # type: ignore[arg-type]
        for task in torch.unique(tasks).tolist():
            rows = (tasks == task).nonzero().squeeze(1)
            logits = self.heads[task](features[rows])
            output[rows, : logits.shape[1]] = logits
        return output

    def _forward_all(self, features: Tensor, tasks: Tensor, width: int) -> Tensor:
        """Return what :meth:`_forward_mixed` does, by all heads for all samples."""
        output = features.new_full((len(features), width), NEVER)
        for task, head in enumerate(self.heads):
            logits = head(features)
            logits = functional.pad(logits, (0, width - logits.shape[1]), value=NEVER)
            output = torch.where((tasks == task).unsqueeze(1), logits, output)
        return output


def select_samples(model: nn.Module, tasks: Tensor) -> None:
    """Make every :class:`TaskHeads` of ``model`` use, for each sample of the next batch, the head of its own task.

    Args:
        model: any model.
        tasks: int64 ``[n]``, the task of each sample. Logits of heads with fewer classes than the widest are padded
            with :data:`NEVER`.
    """
    for module in model.modules():
        if isinstance(module, TaskHeads) and len(module.heads) > 1:
            module.selected = tasks


def head_sizes(model: nn.Module) -> list[int]:
    """Return the number of outputs of each task's head; empty for a model with a shared one."""
    for module in model.modules():
        if isinstance(module, TaskHeads) and len(module.heads) > 1:
            return [head.out_features for head in module.heads]  # type: ignore[misc]
    return []


def is_padded(model: nn.Module) -> bool:
    """Return whether the outputs of the last batch are padded: it has samples of several tasks, and heads differ."""
    mixed = any(isinstance(module, TaskHeads) and isinstance(module.selected, Tensor) for module in model.modules())
    return mixed and len({*head_sizes(model)}) > 1


def select_heads(model: nn.Module, tasks: Sequence[int]) -> None:
    """Make every :class:`TaskHeads` of ``model`` put the logits of some tasks' heads side by side.

    Args:
        model: any model.
        tasks: in the order of their logits.
    """
    for module in model.modules():
        if isinstance(module, TaskHeads) and len(module.heads) > 1:
            module.selected = tuple(tasks)
