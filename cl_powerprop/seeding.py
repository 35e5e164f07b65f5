"""Every random draw comes from a generator of its own, named by what it is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """Return a 63-bit seed that depends on (seed, purpose, index) and on nothing else."""
    key = ":".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """Return a CPU generator for one purpose, such as ``generator(seed, "order", task)``.

    Draws are made on the CPU and then moved, so that a seed means the same on every device.
    """
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, *index))
