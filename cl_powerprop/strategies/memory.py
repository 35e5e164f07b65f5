"""What strategies share that keep training samples of earlier tasks in a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, at_least
from cl_powerprop.strategies.base import Context, Strategy, StrategyConfig, Summary
from cl_powerprop.torchrun import place

if TYPE_CHECKING:
    from torch import nn

    from cl_powerprop.plugins.memory import Memory
    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@dataclass(kw_only=True)
class MemoryConfig(StrategyConfig):
    """What strategies with a memory have.

    Attributes:
        mem_size: samples that are kept.
    """

    mem_size: int

    def check(self, epochs: int) -> None:
        at_least("strategy.mem_size", self.mem_size, 1)
        if place().ranks > 1:
            raise ConfigurationError(
                f"strategy={self.name} recalls samples in one process; torchrun starts several for one run"
            )


@dataclass(kw_only=True)
class ReplayConfig(MemoryConfig):
    """What strategies have whose steps get a random batch of the memory.

    Attributes:
        mem_batch: samples of the memory in each step; None for as many as of the task.
    """

    mem_batch: int | None

    def check(self, epochs: int) -> None:
        super().check(epochs)
        if self.mem_batch is not None:
            at_least("strategy.mem_batch", self.mem_batch, 1)


class MemoryStrategy(Strategy):
    """Has a memory; a derived strategy makes the plugin that uses it.

    Attributes:
        memory: what is kept.
        samples_of_each_task: `mem_size` counts the samples of each task.
    """

    resumable = resumable_within_tasks = resumable_anywhere = True
    takes_sparsity = True
    keeps_samples = True
    samples_of_each_task = False
    config: MemoryConfig
    memory: Memory

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        self._samples = super().training_samples(tasks)
        return self._samples

    def make_memory(self, context: Context) -> Memory:
        """Return a new memory of the tasks' training samples."""
        from cl_powerprop.plugins.memory import Memory

        self.memory = Memory(self._samples, self.config.mem_size, context.seed, self.samples_of_each_task)
        return self.memory

    def summary(self, model: nn.Module) -> Summary:
        return replace(super().summary(model), buffer_bits=self.memory.bits)

    def state_dict(self) -> dict[str, Any]:
        return self.memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        self.memory.load_state_dict(state)
