"""Agreement among the processes of distributed training; without any, nothing is done."""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def is_distributed() -> bool:
    """Return whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def sum_over_ranks_(values: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place: afterwards all have the same sum."""
    if is_distributed():
        distributed.all_reduce(values)
    return values


def check_same_on_ranks(tensors: Iterable[Tensor], what: str) -> None:
    """Make sure that all processes have the same tensors.

    Raises:
        RuntimeError: if they differ.
    """
    if not is_distributed():
        return
    digest = hashlib.sha256()
    device = torch.device("cpu")
    for tensor in tensors:
        device = tensor.device
        digest.update(tensor.cpu().numpy().tobytes())
    mine = torch.tensor(list(digest.digest()), dtype=torch.int32, device=device)
    least, most = mine.clone(), mine.clone()
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise RuntimeError(f"{what} differ between the processes of distributed training")
