"""Boolean masks packed into one bit per weight."""

import functools

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
    bits = _bits_of_bytes(packed.device).index_select(0, packed.int()).view(torch.bool)
    return bits[: shape.numel()].view(shape)


def count_ones(packed: Tensor) -> Tensor:
    """Return how many bits of a uint8 tensor ``[n]`` are 1, as an int64 scalar."""
    ones = _bits_of_bytes(packed.device).view(torch.uint8).view(256, 8).sum(1)
    return torch.bincount(packed, minlength=256) @ ones


@functools.cache
def _bits_of_bytes(device: torch.device) -> Tensor:
    """Return int64 ``[256]``: the eight bits of each byte, each in a byte of its own, read as one number."""
    values = torch.tensor(_BIT_VALUES, dtype=torch.uint8, device=device)
    return (torch.arange(256, device=device).unsqueeze(1) & values).ne(0).view(torch.int64).flatten()
