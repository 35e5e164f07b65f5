"""A separate network for each task, which shows the accuracy that each task reaches on its own."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cl_powerprop.sparsity.task_aware import TaskAware


class IndependentNetworks(nn.Module, TaskAware):
    """One network per task; the selected one is used.

    Args:
        networks: one per task, each with a single head.
    """

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.selected = 0

    def select_task(self, task: int | None) -> None:
        if task is not None:
            if not 0 <= task < len(self.networks):
                raise LookupError(f"there is no network for task {task}; there are {len(self.networks)}")
            self.selected = task

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[n, classes]``; torch.compile leaves them out, as it would compile each network anew."""
        return self.networks[self.selected](images)  # type: ignore[no-any-return]
