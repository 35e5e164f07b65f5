"""Which learners can train an epoch together, as one stacked step (see :mod:`cl_powerprop.training.stacked`).

A plugin that acts in a step says itself how that is done for several learners, by two methods:

- ``stack_key(strategy)`` returns what must be equal in all of them, or None if it cannot be done for several at once
  now. Without this method its learner trains alone, and so does that of a derived class which handles another event
  and has no such method of its own.
- ``stack(together, plugins)`` is called as an epoch begins, on the first learner's plugin, with those of all learners,
  itself included. It returns what to call, by the name of the event: "before_training_iteration" and
  "after_training_iteration" before and after each step, on the CPU; "before_update" and "after_update" within it, for
  all learners at once, on tensors that stay where they are, without waiting for the device; "ended" after the last
  step.

Parametrizations of weights have two similar methods (see :class:`~cl_powerprop.sparsity.MaskedWeight`).
"""

from collections.abc import Hashable, Sequence
from typing import Any

from avalanche.models.utils import is_multi_task_module

from cl_powerprop.training.listeners import listens
from cl_powerprop.training.stacked_network import network_key, stored_parameters
from cl_powerprop.training.stacked_optimizer import optimizer_key
from cl_powerprop.training.steps import EVENTS_WITHIN

_STEP_EVENTS = ("before_training_iteration", *EVENTS_WITHIN, "after_training_iteration")


class Epoch:
    """An epoch that a learner is about to train.

    Args:
        learner: the learner.

    Attributes:
        plugins: those of its plugins that act in a step, but for Avalanche's clock.
    """

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        others = [plugin for plugin in learner.plugins if plugin is not learner.clock]
        handled = [[event for event in _STEP_EVENTS if listens(plugin, event)] for plugin in others]
        self._acting = [(plugin, events) for plugin, events in zip(others, handled, strict=True) if events]
        self.plugins = [plugin for plugin, _ in self._acting]

    def key(self) -> Hashable | None:
        """Return what learners have in common that can train this epoch together; None if this one cannot."""
        learner, clock = self.learner, self.learner.clock
        if (
            not (learner.stacks and learner.means_cross_entropy)
            or learner.compile
            or is_multi_task_module(learner.model)
        ):
            return None
        plugins = [_plugin_key(plugin, events, learner) for plugin, events in self._acting]
        parts: list[Hashable] = [
            learner.dataloader.stack_key() if hasattr(learner.dataloader, "stack_key") else None,
            network_key(learner.model),
            optimizer_key(learner.optimizer),
            *plugins,
        ]
        if any(part is None for part in parts):
            return None
        stacked = stored_parameters(learner.model)
        if not all(id(each) in stacked for group in learner.optimizer.param_groups for each in group["params"]):
            return None
        place = (learner.experience.current_experience, clock.train_exp_epochs, clock.train_exp_iterations)
        how = (learner.precision, learner.label_smoothing, learner._stop_training)
        return (place, how, *parts)


def _plugin_key(plugin: Any, events: Sequence[str], learner: Any) -> Hashable | None:
    """Return the key of a plugin, and None if its class handles events of a step that its key knows nothing of."""
    classes = type(plugin).__mro__
    says = next((index for index, each in enumerate(classes) if "stack_key" in vars(each)), None)
    if says is None:
        return None
    for event in events:
        if event in vars(plugin) or any(event in vars(each) for each in classes[:says]):
            return None
    key: Hashable = plugin.stack_key(learner)
    return None if key is None else (type(plugin), key)
