"""Classes that a task's head does not have, in Avalanche's multi-head models.

``MultiTaskModule.forward`` pads the logits of a narrow head with 0 to the width of the widest. Zero wins over negative
logits, so the accuracy of a task would fall when a later one has more classes, though none of its weights changed.
"""

from typing import Any

from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional

from cl_powerprop.networks.heads import NEVER


def never_predict_padding(model: nn.Module) -> None:
    """Pad with :data:`NEVER` instead of 0, in batches of one task; the width of the outputs stays the same."""
    for module in model.modules():
        padding = isinstance(module, MultiTaskModule) and type(module).forward is MultiTaskModule.forward
        if padding and not any(hook is _pad for hook in module._forward_hooks.values()):
            module.register_forward_pre_hook(_one_task, with_kwargs=True)
            module.register_forward_hook(_pad)


def _one_task(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the task of the whole batch as a number, for which Avalanche does not pad."""
    x, labels = (*inputs, *(named[name] for name in ("x", "task_labels")[len(inputs) :]))
    if isinstance(labels, Tensor) and labels.numel() and bool((labels == labels.flatten()[0]).all()):
        labels = int(labels.flatten()[0])
    return (x, labels), {}


def _pad(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
    missing = module.max_class_label - output.shape[1] if isinstance(output, Tensor) else 0  # type: ignore[operator]
    return functional.pad(output, (0, int(missing)), value=NEVER) if missing > 0 else output
