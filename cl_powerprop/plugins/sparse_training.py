"""Sparse training in Avalanche's events: the controller makes its step after each of the optimizer's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from cl_powerprop.sparsity import Controller, Magnitude


class SparseTraining(SupervisedPlugin):  # type: ignore[misc]
    """Lets a controller decide which weights a learner trains.

    Args:
        controller: over the learner's model and optimizer.
        steps: of the whole training; after as many the controller is final.
        curve: densities at which :meth:`pruned_to` is of interest, the highest first.

    Attributes:
        rows: how sparse each layer was at the end of each epoch: task, epoch, step and the fields of
            :class:`~cl_powerprop.sparsity.LayerDensity`.
        changes_masks: recorded steps must find all masks in one place.
    """

    changes_masks = True

    def __init__(self, controller: Controller, steps: int, curve: Sequence[float] = ()) -> None:
        super().__init__()
        self.controller = controller
        self.steps = steps
        self.curve = sorted(curve, reverse=True)
        self.rows: list[dict[str, Any]] = []

    def graph_tensors(self, strategy: Any) -> tuple[()] | None:
        return () if self.controller.is_recordable else None

    def after_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Note the optimizer's step, and change the masks if it is time."""
        self.controller.step()

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Note how sparse each layer is; after the last step the masks are final."""
        self.controller.hide()
        if self.controller.steps >= self.steps:
            self.controller.finalize()
        place = {
            "task": strategy.experience.current_experience,
            "epoch": strategy.clock.train_exp_epochs + 1,
            "step": self.controller.steps,
        }
        self.rows += [place | asdict(layer) for layer in self.controller.report()]

    def state_dict(self) -> dict[str, Any]:
        """Return where the controller stands: tensors, or JSON values, by name."""
        return self.controller.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned."""
        self.controller.load_state_dict(state)

    @contextmanager
    def pruned_to(self, density: float) -> Iterator[None]:
        """Compute with the largest weights only, as many as a density leaves, in the controller's distribution."""
        controller = self.controller
        masks = controller.select(Magnitude(), 1.0 - density)
        before = {each.name: each.active for each in controller.weights}
        try:
            self._show(masks)
            yield
        finally:
            self._show(before)

    def _show(self, masks: dict[str, torch.Tensor]) -> None:
        for each in self.controller.weights:
            each.masked.set_training_view(masks[each.name])


def sparse_training_of(learner: Any) -> SparseTraining | None:
    """Return the plugin that trains a learner sparsely; None if none does."""
    return next((plugin for plugin in learner.plugins if isinstance(plugin, SparseTraining)), None)
