"""The bits of several networks' masks as one tensor, for networks that are computed at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cl_powerprop.sparsity.bits import to_bits

Hold = Callable[[str, Tensor], Tensor]
"""``(name, values) -> values`` in a tensor that stays where it is as long as its shape is the same."""


def stack_bits(masks: Sequence[Tensor | None], like: Tensor) -> Tensor | None:
    """Return masks as bits for floats of the dtype of ``like``; None if no network has a mask.

    Args:
        masks: of each network: boolean, or bits; None for all weights.
        like: float ``[networks, *weight]``.
    """
    if all(mask is None for mask in masks):
        return None
    everything = torch.ones_like(like[0], dtype=torch.bool)
    return torch.stack([to_bits(everything if mask is None else mask, like.dtype) for mask in masks])
