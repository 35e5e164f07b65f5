"""One output layer for each task."""

from collections.abc import Sequence

from torch import Tensor, nn

from cl_powerprop.sparsity.task_aware import TaskAware


class TaskHeads(nn.Module, TaskAware):
    """A Linear output layer a task, the selected one in use. Heads are never masked: each is its task's own.

    Args:
        features: inputs of each head.
        classes: outputs of each head, one entry a task.
        bias: whether heads have biases.
    """

    def __init__(self, features: int, classes: Sequence[int], bias: bool = True) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(features, count, bias=bias) for count in classes)
        self.selected = 0

    def select_task(self, task: int | None) -> None:
        if task is not None and len(self.heads) > 1:  # a single head answers whatever the task
            if not 0 <= task < len(self.heads):
                raise LookupError(f"there is no head for task {task}; the model has {len(self.heads)}")
            self.selected = task

    def forward(self, features: Tensor) -> Tensor:
        return self.heads[self.selected](features)  # type: ignore[no-any-return]
