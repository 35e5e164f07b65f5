"""Gradient clipping by global norm."""

from collections.abc import Callable, Hashable, Sequence
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

    def stack_key(self, strategy: Any) -> Hashable:
        """Return what learners have in common whose gradients are clipped at once."""
        return self.max_norm

    def stack(self, together: Any, clippings: Sequence["GradientClipping"]) -> dict[str, Callable[[], None]]:
        """Clip each learner's gradients by their own norm, as torch's ``clip_grad_norm_`` does."""

        def clip() -> None:
            gradients = [gradient.flatten(1) for gradient in together.gradients]
            norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
            scales = (self.max_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(scales.unsqueeze(1))

        return {"before_update": clip}
