"""Select the top share of a score, within one layer or over all layers together.

Ties are broken by position, so a mask never grows beyond its share.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def rank(score: Tensor) -> Tensor:
    """Return the rank of every element, 0 for the highest score; of equal elements, the earlier one ranks first.

    ``score`` and the result (int64) have the same shape. ``rank(score) < k`` is the mask of the top k.
    """
    flat = score.reshape(-1)
    order = torch.argsort(flat, descending=True, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(order.numel(), device=order.device)
    return ranks.view(score.shape)


def largest(scores: Tensor, count: int) -> Tensor:
    """Return the boolean mask of the ``count`` highest scores; of equal ones, earlier ones come first.

    The same mask as ``rank(scores) < count``, without sorting all scores.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.reshape(-1)
    if count >= flat.numel():
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = flat.topk(count, sorted=False).values.min()
    mask, ties = flat > threshold, flat == threshold
    missing = count - mask.sum()
    return (mask | (ties & (ties.cumsum(0, dtype=torch.int32) <= missing))).view(scores.shape)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def kth_largest(values: Tensor, count: int) -> Tensor:
    """Return the ``count``-th largest of some float32 values, as a scalar; ``count`` is at least 1.

    On a CPU NumPy partitions several times faster than torch, which matters where this is done in every step.
    """
    flat = values.detach().reshape(-1)
    if flat.device.type != "cpu":
        return flat.topk(count, sorted=False).values.min()
    place = flat.numel() - count
    return torch.from_numpy(np.partition(flat.numpy(), place))[place]


def rank_global(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rank the elements of all tensors against each other; return int64 ranks by name, each shaped like its score.

    Ties are broken by the order of the tensors, then by position.
    """
    joined = rank(torch.cat([score.reshape(-1) for score in scores.values()]))
    parts = joined.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def top_share(score: Tensor, share: float) -> Tensor:
    """Return the boolean mask of the top ``share`` (0 to 1) of the elements, rounded to the nearest whole number."""
    return rank(score) < round(share * score.numel())
