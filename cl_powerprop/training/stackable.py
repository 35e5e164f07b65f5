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

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from avalanche.models.utils import is_multi_task_module

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.training.listeners import listens, speaks_for
from cl_powerprop.training.stacked_network import network_key, stored_parameters
from cl_powerprop.training.stacked_optimizer import moves_several, optimizer_options, optimizer_state
from cl_powerprop.training.steps import STEP_EVENTS
from cl_powerprop.training.unseen import unseen


class Epoch:
    """An epoch that a learner is about to train.

    Args:
        learner: the learner.

    Attributes:
        plugins: those of its plugins that act in a step, but for Avalanche's clock.
        form: of the key, what does not change from epoch to epoch by itself.
        hindrance: why there is no key; None if there is one.
    """

    form: Hashable = None
    hindrance: str | None = None

    def __init__(self, learner: Any) -> None:
        self.learner = learner
        others = [plugin for plugin in learner.plugins if plugin is not learner.clock]
        handled = [[event for event in STEP_EVENTS if listens(plugin, event)] for plugin in others]
        self._acting = [(plugin, events) for plugin, events in zip(others, handled, strict=True) if events]
        self.plugins = [plugin for plugin, _ in self._acting]

    def key(self) -> Hashable | None:
        """Return what learners have in common that can train this epoch together; None if this one cannot.

        Raises:
            ConfigurationError: if a plugin says something that cannot be a key.
        """
        parts = list(self._parts())
        self.hindrance = next((why for why, part in parts if part is None), None)
        if self.hindrance is not None:
            return None
        learner, clock = self.learner, self.learner.clock
        options = optimizer_options(learner.optimizer)
        self.form = (learner.precision, learner.label_smoothing, options, *(part for _, part in parts))
        place = (learner.experience.current_experience, clock.train_exp_epochs, clock.train_exp_iterations)
        return place, learner._stop_training, optimizer_state(learner.optimizer), self.form

    def _parts(self) -> Iterator[tuple[str, Hashable | None]]:
        """Yield what must be equal, None where it is impossible, with the words for that."""
        learner = self.learner
        yield "this network cannot be computed for several", learner.stacks or None
        yield "the loss is not plain cross-entropy", learner.means_cross_entropy or None
        yield "train.compile=true", None if learner.compile else True
        yield "the model chooses by task labels", None if is_multi_task_module(learner.model) else True
        found = unseen(learner)
        yield found or "unseen", found is None or None
        if found is not None:
            return
        loader = learner.dataloader
        yield "batches of this kind are loaded one by one", loader.stack_key() if hasattr(loader, "stack_key") else None
        yield "a weight is computed in a way that is not known for several", network_key(learner.model)
        moves = moves_several(learner.optimizer)
        yield f"{type(learner.optimizer).__name__} cannot move several networks", moves or None
        stacked = stored_parameters(learner.model)
        trained = [id(each) for group in learner.optimizer.param_groups for each in group["params"]]
        yield "the optimizer has parameters that are not the model's", all(each in stacked for each in trained) or None
        for plugin, events in self._acting:
            words = f"the plugin {type(plugin).__name__} acts in steps of one network"
            yield words, _plugin_key(plugin, events, learner)


def _plugin_key(plugin: Any, events: Sequence[str], learner: Any) -> Hashable | None:
    """Return the key of a plugin, and None if its class handles events of a step that its key knows nothing of."""
    if not speaks_for(plugin, "stack_key", events):
        return None
    key: Hashable = plugin.stack_key(learner)
    try:
        hash(key)
    except TypeError as error:
        raise ConfigurationError(
            f"{type(plugin).__name__}.stack_key must return what can be hashed ({error})"
        ) from error
    return None if key is None else (type(plugin), key)
