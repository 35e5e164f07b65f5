"""What a network costs: weights, operations, and the time of a batch."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cl_powerprop.exporting.network import ExportedNetwork

Call = Callable[[Tensor], Tensor]

_WARM_UP = 5  # calls that are not timed
_LEAST, _MOST = 15, 2000  # timed calls of each network
_SECONDS = 2.0  # for all networks together, unless the least takes longer


@dataclass(frozen=True)
class Cost:
    """The weights of a network, biases and norms included, and its floating-point operations for one sample.

    Attributes:
        weights: number of weights.
        nonzero: those other than 0.
        flops: as torch's ``FlopCounterMode`` counts them: two for each multiplication by a weight and its addition.
        nonzero_flops: those with weights other than 0, to which all others add nothing.
    """

    weights: int
    nonzero: int
    flops: int
    nonzero_flops: int


@torch.no_grad()
def cost(network: ExportedNetwork, sample: Tensor) -> Cost:
    """Count weights and operations of a network.

    Args:
        network: to count.
        sample: a batch of one, ``[1, *sample_shape]``.
    """
    with FlopCounterMode(display=False) as counter:
        network(sample)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(network).__name__
    used = 0.0
    for name, layer in network.layers.named_children():
        weight: Any = getattr(layer, "weight", None)
        if weight is not None:
            used += flops.get(f"{root}.layers.{name}", 0) * int(weight.count_nonzero()) / weight.numel()
    parameters = list(network.parameters())
    return Cost(
        weights=sum(value.numel() for value in parameters),
        nonzero=sum(int(value.count_nonzero()) for value in parameters),
        flops=counter.get_total_flops(),
        nonzero_flops=round(used),
    )


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def milliseconds(calls: Sequence[Call], images: Tensor, seconds: float = _SECONDS) -> list[float]:
    """Return the median time of each call for a batch, in milliseconds.

    The calls take turns, so that what else the machine does meanwhile meets all of them.

    Args:
        calls: networks, or what runs them.
        images: the batch.
        seconds: for how long to measure.
    """
    for call in calls:
        for _ in range(_WARM_UP):
            call(images)
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < _LEAST or (len(times[0]) < _MOST and time.perf_counter() < end):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call(images)
            own.append(time.perf_counter() - start)
    return [1000.0 * statistics.median(own) for own in times]
