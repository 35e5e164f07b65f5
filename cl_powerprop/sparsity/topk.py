"""Selecting the top share of a score, per layer or over all layers at once.

Both functions decide every tie, so a mask never grows beyond its share.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def rank(score: Tensor) -> Tensor:
    """Return the place of every element, 0 for the highest score; ties go to the earlier element.

    ``score`` and the result (int64) have the same shape. ``rank(score) < k`` is the mask of the top k.
    """
    flat = score.reshape(-1)
    order = torch.argsort(flat, descending=True, stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel(), device=order.device)
    return places.view(score.shape)


def rank_global(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rank the elements of all tensors against each other; ties go to the earlier tensor and element."""
    joined = rank(torch.cat([score.reshape(-1) for score in scores.values()]))
    parts = joined.split([score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


def top_share(score: Tensor, share: float) -> Tensor:
    """Return the boolean mask of the top ``share`` of the elements, rounded to the nearest count."""
    return rank(score) < round(share * score.numel())
