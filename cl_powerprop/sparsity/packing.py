"""Boolean masks packed into one bit per weight."""

import torch
from torch import Tensor

_BIT_VALUES = (1, 2, 4, 8, 16, 32, 64, 128)


def packed_size(weights: int) -> int:
    """Return the number of bytes that hold one bit for each of ``weights`` weights."""
    return -(-weights // 8)


def pack(mask: Tensor) -> Tensor:
    """Pack a boolean tensor of any shape into uint8 ``[ceil(n / 8)]``, lowest bit first."""
    flat = mask.reshape(-1).to(torch.uint8)
    flat = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=mask.device)
    return (flat * values).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    """Undo :func:`pack`: return the boolean tensor of shape ``shape``."""
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(1) & values).ne(0).view(-1)
    return bits[: shape.numel()].view(shape)
