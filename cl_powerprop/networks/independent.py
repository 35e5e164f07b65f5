"""One network for each task, which share nothing: what a task reaches on its own."""

from collections.abc import Iterable

from torch import Tensor, nn

from cl_powerprop.sparsity.task_aware import TaskAware


class IndependentNetworks(nn.Module, TaskAware):
    """A network a task, the selected one in use.

    Args:
        networks: one for each task; their own heads count from 0.
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

    def forward(self, images: Tensor) -> Tensor:
        return self.networks[self.selected](images)  # type: ignore[no-any-return]
