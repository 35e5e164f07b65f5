"""Gradient clipping by global norm."""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from cl_powerprop.limits import check_clip_norm


class GradientClipping(SupervisedPlugin):  # type: ignore[misc]
    """Scales the gradients of a step down to a global norm of at most ``max_norm``.

    Raises:
        ConfigurationError: if ``max_norm`` is not above 0.
    """

    def __init__(self, max_norm: float) -> None:
        super().__init__()
        check_clip_norm(max_norm)
        self.max_norm = max_norm

    def graph_tensors(self, strategy: Any) -> tuple[()]:
        return ()

    def before_update(self, strategy: Any, **_: Any) -> None:
        """Clip, after the backward pass and before the optimizer's step."""
        torch.nn.utils.clip_grad_norm_(strategy.model.parameters(), self.max_norm)
