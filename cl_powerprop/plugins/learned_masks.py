"""Parameters by which masks are learned while a task trains: the optimizer has them, the model has not."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cl_powerprop.sparsity import MaskAllocator
from cl_powerprop.training.rates import hold_rates

_LEARNED = "learned/"  # what the names of the parameters begin with


class LearnedMasks(ABC):
    """Masks that a task learns with its weights.

    The optimizer has the parameters in a group of their own, without weight decay.

    Args:
        lr: learning rate of the parameters, times the optimizer's.
        reset: draw them anew for each task; else they go on from one task to the next.

    Attributes:
        allocator: freezes the masks.
        parameters: by name.
    """

    allocator: MaskAllocator
    parameters: dict[str, nn.Parameter]

    def __init__(self, lr: float, reset: bool) -> None:
        self.lr = lr
        self.reset = reset
        self._is_drawn = False
        self._is_resumed = False  # the values are those of the task that begins next

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the options that tell runs apart, as JSON values."""

    @abstractmethod
    def cover(self, allocator: MaskAllocator) -> None:
        """Make the parameters for the weights of an allocator.

        Raises:
            ConfigurationError: if its model cannot have such masks.
        """

    @abstractmethod
    def draw(self, task: int) -> None:
        """Draw the values with which a task begins."""

    @abstractmethod
    def attach(self) -> None:
        """Train through the parameters from now on, until the allocator is given masks."""

    @property
    @abstractmethod
    def is_attached(self) -> bool:
        """Whether the task in training learns its masks at present."""

    @abstractmethod
    def masks(self) -> dict[str, Tensor]:
        """Return the masks that were learned: boolean, by layer name."""

    @property
    def in_use(self) -> list[nn.Parameter]:
        """The parameters that the task in training learns; empty once it has its masks."""
        return list(self.parameters.values()) if self.is_attached else []

    def join(self, optimizer: Optimizer) -> None:
        """Give the parameters to an optimizer, unless it has them."""
        known = {id(value) for group in optimizer.param_groups for value in group["params"]}
        own = list(self.parameters.values())
        if not own or id(own[0]) in known:
            return
        device = next(self.allocator.model.parameters()).device
        for parameter in own:  # the model may have moved
            parameter.data = parameter.data.to(device)
        rate = float(optimizer.param_groups[0]["lr"]) * self.lr
        optimizer.add_param_group({"params": own, "lr": rate, "weight_decay": 0.0})
        hold_rates(optimizer)

    @torch.no_grad()
    def begin_task(self) -> None:
        """Train the task that has begun in the allocator through the parameters."""
        if not self._is_resumed and (self.reset or not self._is_drawn):
            self.draw(self.allocator.tasks)
        self._is_drawn, self._is_resumed = True, False
        self.attach()

    def state_dict(self, within_task: bool) -> dict[str, Tensor]:
        """Return the parameters, if the task in training or the next one depends on them.

        Args:
            within_task: a task is in training.
        """
        if not hasattr(self, "allocator") or (not within_task and (self.reset or not self.allocator.tasks)):
            return {}
        return {f"{_LEARNED}{name}": value.detach() for name, value in self.parameters.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned, for the task that begins next."""
        for name, parameter in self.parameters.items():
            if _LEARNED + name in state:
                parameter.copy_(state[_LEARNED + name])
                self._is_resumed = True
