"""What masks take by Huffman coding, as WSN counts them (Kang et al., ICML 2022, section 4.1)."""

import heapq

import numpy as np
from torch import Tensor

_TASKS_AT_A_TIME = 7  # WSN's maps of seven bits
_BYTES_AT_A_TIME = 2**17


def huffman_bits(masks: Tensor, weights: int) -> int:
    """Return what the masks of one weight tensor take in bits, Huffman coded in groups of seven tasks.

    A weight's bits in seven tasks are one symbol, as in WSN's public code. The code itself is not counted.

    Args:
        masks: uint8 ``[tasks, ceil(weights / 8)]``, packed (see :func:`~cl_powerprop.sparsity.packing.pack`).
        weights: how many there are.
    """
    content, bits = masks.cpu().numpy(), 0
    for first in range(0, len(content), _TASKS_AT_A_TIME):
        group = content[first : first + _TASKS_AT_A_TIME]
        counts = np.zeros(2 ** len(group), np.int64)
        for start in range(0, group.shape[1], _BYTES_AT_A_TIME):
            part = group[:, start : start + _BYTES_AT_A_TIME]
            flags = np.unpackbits(part, axis=1, count=min(8 * part.shape[1], weights - 8 * start), bitorder="little")
            symbols = np.packbits(flags, axis=0, bitorder="little")[0]
            counts += np.bincount(symbols, minlength=len(counts))
        bits += _coded(counts[counts > 0].tolist())
    return bits


def _coded(counts: list[int]) -> int:
    """Return the bits of a text with these numbers of symbols: each merge makes all symbols below it one bit longer."""
    heapq.heapify(counts)
    bits = 0
    while len(counts) > 1:
        merged = heapq.heappop(counts) + heapq.heappop(counts)
        bits += merged
        heapq.heappush(counts, merged)
    return bits
