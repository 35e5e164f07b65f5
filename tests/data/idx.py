"""IDX files, written as Y. LeCun's page describes them."""

import struct

import numpy as np
from numpy.typing import NDArray


def write_idx(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.tobytes()
