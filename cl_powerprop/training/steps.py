"""The steps of an epoch of training."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from cl_powerprop.training.listeners import listeners

EVENTS_WITHIN = (
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
)
"""Avalanche's events within a step."""
STEP_EVENTS = ("before_training_iteration", *EVENTS_WITHIN, "after_training_iteration")
"""Those, and the two around it."""


class Steps:
    """Makes the steps of an epoch one by one: ``take`` a batch, then ``make`` its step.

    Args:
        learner: Avalanche's strategy object, whose epoch begins.
        frozen: parameters whose gradients are dropped after each backward pass.
        options: passed on to plugins.
    """

    def __init__(self, learner: Any, frozen: Sequence[Parameter], options: Mapping[str, Any]) -> None:
        self.learner = learner
        self.frozen = frozen
        self._options = options
        self._listeners = [listeners(learner, event) for event in EVENTS_WITHIN]
        self._zero_grad = _zero_grad(learner.optimizer)

    def batches(self) -> Iterator[Any]:
        """Return the batches of the epoch."""
        return iter(self.learner.dataloader)

    def take(self, batch: Any) -> None:
        """Make a batch the learner's current one."""
        self.learner.mbatch = batch
        self.learner._unpack_minibatch()

    def make(self) -> None:
        """Make the step of the current batch, with the events within it."""
        learner = self.learner
        before_forward, after_forward, before_backward, after_backward, before_update, after_update = self._listeners
        self._zero_grad()
        # Only a plugin that is called before the criterion could add a term to an empty loss.
        learner.loss = learner._make_empty_loss() if before_forward or after_forward else None
        self._notify(before_forward)
        learner.mb_output = learner.forward()
        self._notify(after_forward)
        learner.loss = learner.criterion() if learner.loss is None else learner.loss + learner.criterion()
        self._notify(before_backward)
        learner.backward()
        for parameter in self.frozen:
            parameter.grad = None
        self._notify(after_backward)
        self._notify(before_update)
        learner.optimizer_step()
        self._notify(after_update)

    def _notify(self, called: Sequence[Callable[..., Any]]) -> None:
        for listener in called:
            listener(self.learner, **self._options)


def _zero_grad(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return a function that drops the gradients; torch's own takes ten times as long, to be traced and profiled."""
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad or "zero_grad" in vars(optimizer):
        return optimizer.zero_grad

    def zero_grad() -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    return zero_grad
