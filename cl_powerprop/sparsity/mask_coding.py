"""The masks of all tasks for one weight, compressed: an entropy coder whose probabilities are counted, not learned.

A mask of density d takes about H(d) bits a weight, and less where it is like the masks before it. A weight joins two
units, such as an output and an input of a layer, and is seen as a matrix ``[out, in, rest]``. The stream of a range
coder (the package constriction) has, in this order:

1. For each task one bit, whether units are named; if so, a bit for each output and then for each input: whether the
   mask has any weight of it. Where units are named, weights of the others are not coded at all. So the mask of a method
   that chooses units, and pixels that no task uses, take bits a unit.
2. For each block of rows and each task in it, a bit for each weight whose two units are used.

Bits are coded in groups of equal context. The context of a weight is how many earlier tasks use it (0, 1, 2, or more)
and whether the task before does; that of a unit is the same of the tasks that name units. A group begins with the
number of its bits that are 1. Where all bits are equal, there is nothing more: a mask that holds all earlier weights
takes nothing for them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cl_powerprop.sparsity.packing import packed_size

Bits = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Places = NDArray[np.intp]

_WEIGHTS_AT_A_TIME = 2**18  # in a block, unless eight rows have more
_MOST_USES = 3  # that contexts tell apart
_DIGIT = 2**12  # of a count; constriction's uniform distributions have 2**24 values at most
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)  # in each byte
_WORD = np.dtype("<u4")  # of the stream


def encode_masks(masks: Tensor, shape: torch.Size) -> Tensor:
    """Compress the masks of a weight. The same masks give the same bytes.

    Args:
        masks: uint8 ``[tasks, ceil(n / 8)]``, packed as :func:`~cl_powerprop.sparsity.packing.pack` does.
        shape: of the weight, which has n values.

    Returns:
        uint8 ``[bytes]`` on the CPU.
    """
    writer = _Writer()
    _walk(writer, masks.cpu().numpy(), shape)
    return torch.from_numpy(writer.stream().astype(_WORD, copy=False).view(np.uint8).copy())


def decode_masks(stream: Tensor, shape: torch.Size, tasks: int) -> Tensor:
    """Undo :func:`encode_masks`; it takes no more time or memory than ``tasks`` masks of this shape do.

    Args:
        stream: what it returned.
        shape: of the weight.
        tasks: how many masks it has.

    Returns:
        uint8 ``[tasks, ceil(n / 8)]`` on the CPU.

    Raises:
        ValueError: if it is not the stream of so many masks of that shape.
    """
    content = stream.cpu().numpy()
    if len(content) % _WORD.itemsize:
        raise ValueError("compressed masks end in the middle of a word")
    masks = np.zeros((tasks, packed_size(shape.numel())), np.uint8)
    reader = _Reader(content.view(_WORD).astype(np.uint32))
    try:
        _walk(reader, masks, shape)
    except AssertionError as error:  # constriction's, of what no encoder writes
        raise ValueError("compressed masks are damaged") from error
    reader.check_end()
    return torch.from_numpy(masks)


class _Coder(ABC):
    """Writes or reads bits: the walk over masks is the same for both, and a reader is given zeros."""

    @abstractmethod
    def number(self, most: int, value: int = 0) -> int:
        """Code a number from 0 to ``most``, and return it."""

    @abstractmethod
    def group(self, bits: Bits, places: Places) -> Bits:
        """Code the bits at some places, which have one context, and return them."""

    @abstractmethod
    def units(self, bits: Bits) -> tuple[bool, Bits, Bits]:
        """Return whether units are to be named, and which outputs and inputs a mask ``[out, in, rest]`` has."""


class _Writer(_Coder):
    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def number(self, most: int, value: int = 0) -> int:
        for base, digit in zip(_bases(most), divmod(value, _DIGIT), strict=True):
            if base > 1:
                self._coder.encode(digit, constriction.stream.model.Uniform(base))
        return value

    def group(self, bits: Bits, places: Places) -> Bits:
        flags = bits[places]
        ones = self.number(len(flags), int(np.count_nonzero(flags)))
        rare, share = _rarer(ones, len(flags))
        if share:
            self._coder.encode(np.packbits(flags == rare).astype(np.int32), _bytes_of(share))
        return flags

    def units(self, bits: Bits) -> tuple[bool, Bits, Bits]:
        outputs, inputs = np.logical_or.reduce(bits, (1, 2)), np.logical_or.reduce(bits, (0, 2))
        return _are_fewer(bits, outputs, inputs), outputs, inputs

    def stream(self) -> NDArray[np.uint32]:
        return np.asarray(self._coder.get_compressed())


class _Reader(_Coder):
    def __init__(self, stream: NDArray[np.uint32]) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(stream)

    def number(self, most: int, value: int = 0) -> int:
        uniform = constriction.stream.model.Uniform
        high, low = (int(self._coder.decode(uniform(base))) if base > 1 else 0 for base in _bases(most))
        found = high * _DIGIT + low
        if found > most:
            raise ValueError("compressed masks are damaged")
        return found

    def group(self, bits: Bits, places: Places) -> Bits:
        size = len(places)
        ones = self.number(size)
        rare, share = _rarer(ones, size)
        if not share:
            return np.full(size, not rare)
        content = np.asarray(self._coder.decode(_bytes_of(share), packed_size(size)))
        flags: Bits = np.unpackbits(content.astype(np.uint8), count=size).view(bool) == rare
        if np.count_nonzero(flags) != ones:
            raise ValueError("compressed masks are damaged")
        return flags

    def units(self, bits: Bits) -> tuple[bool, Bits, Bits]:
        return False, np.zeros(bits.shape[0], bool), np.zeros(bits.shape[1], bool)

    def check_end(self) -> None:
        if not self._coder.maybe_exhausted():
            raise ValueError("compressed masks are longer than they say")


def _bases(most: int) -> tuple[int, int]:
    """Return how many values the two digits of a number up to ``most`` can have."""
    return most // _DIGIT + 1, min(most + 1, _DIGIT)


def _rarer(ones: int, size: int) -> tuple[bool, float]:
    """Return which of two values is the rarer, and its share; coded as 1, it makes filling up a byte with 0 cheap."""
    return (True, ones / size) if 2 * ones <= size else (False, (size - ones) / size)


def _bytes_of(share: float) -> Any:
    """Return the distribution of bytes whose bits are 1 with a probability.

    Powers are products, which have the same bits on every machine, as a reader needs them.
    """
    ones, zeros = np.full(9, share), np.full(9, 1.0 - share)
    ones[0] = zeros[0] = 1.0
    likelihood = ones.cumprod()[_ONES] * zeros.cumprod()[8 - _ONES]
    return constriction.stream.model.Categorical(likelihood, perfect=False, lazy=False)


def _walk(coder: _Coder, masks: Bytes, shape: torch.Size) -> None:
    """Code masks in the order of the stream; a reader fills them in."""
    if not len(masks):
        return
    rows, columns, rest = _matrix(shape)
    units = list(_units(coder, masks, rows, columns, rest))
    step = 8 * max(1, _WEIGHTS_AT_A_TIME // (8 * max(1, columns * rest)))  # eight rows begin with a new byte
    for first in range(0, rows, step):
        last = min(first + step, rows)
        size = (last - first) * columns * rest
        block = masks[:, first * columns * rest // 8 :][:, : packed_size(size)]
        history = _History(size)
        for packed, (outputs, inputs) in zip(block, units, strict=True):
            bits = np.unpackbits(packed, count=size, bitorder="little").view(bool)
            every = outputs.all() and inputs.all()
            used = None if every else np.repeat(np.outer(outputs[first:last], inputs), rest)
            packed[:] = np.packbits(history.code(coder, bits, used), bitorder="little")


def _units(coder: _Coder, masks: Bytes, rows: int, columns: int, rest: int) -> Iterator[tuple[Bits, Bits]]:
    """Yield which outputs and inputs each task may use."""
    histories = _History(rows), _History(columns)
    size = rows * columns * rest
    for packed in masks:
        bits = np.unpackbits(packed, count=size, bitorder="little").view(bool)
        named, *units = coder.units(bits.reshape(rows, columns, rest))
        if coder.number(1, named):
            outputs, inputs = (history.code(coder, used) for history, used in zip(histories, units, strict=True))
            yield outputs, inputs
        else:
            yield np.ones(rows, bool), np.ones(columns, bool)


class _History:
    """Which weights, or units, have which context.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        # By context: 0 for weights that no task uses, u for those that u tasks use but the last one does not, and
        # _MOST_USES + u for those that the last one uses too.
        self._places = [np.arange(size), *[np.empty(0, np.intp)] * (2 * _MOST_USES)]

    def code(self, coder: _Coder, bits: Bits, used: Bits | None = None) -> Bits:
        """Code the bits of the next task. Returns them, ``[size]``.

        Args:
            coder: writes or reads them.
            bits: ``[size]``; a reader only takes their number.
            used: ``[size]``, where bits can be 1; None for everywhere.
        """
        coded = np.zeros(len(bits), bool)
        places: list[list[Places]] = [[] for _ in self._places]
        for context, held in enumerate(self._places):
            uses = context if context <= _MOST_USES else context - _MOST_USES
            if used is not None:
                inside = used[held]
                places[uses].append(held.compress(~inside))
                held = held.compress(inside)
            if len(held):
                flags = coder.group(bits, held)
                ones = held.compress(flags)
                coded[ones] = True
                places[_MOST_USES + min(uses + 1, _MOST_USES)].append(ones)
                places[uses].append(held.compress(~flags))
        self._places = [np.concatenate(parts) if parts else np.empty(0, np.intp) for parts in places]
        return coded


def _are_fewer(bits: Bits, outputs: Bits, inputs: Bits) -> bool:
    """Return whether a mask takes fewer bits if its units are named."""
    ones = int(np.count_nonzero(bits))
    used = int(np.count_nonzero(outputs)) * int(np.count_nonzero(inputs)) * bits.shape[2]
    named = _entropy(outputs.mean()) * len(outputs) + _entropy(inputs.mean()) * len(inputs)
    return bool(named + _entropy(ones / max(used, 1)) * used < _entropy(ones / bits.size) * bits.size)


def _entropy(share: float) -> float:
    """Return the bits that each of many flags takes, of which a share is 1."""
    return sum(-part * math.log2(part) for part in (share, 1.0 - share) if part > 0.0)


def _matrix(shape: torch.Size) -> tuple[int, int, int]:
    """Return the shape of a weight as outputs, inputs, and the rest."""
    if len(shape) < 2:
        return 1, 1, shape.numel()
    return shape[0], shape[1], math.prod(shape[2:])
