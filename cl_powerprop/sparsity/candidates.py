"""The masks that a task can choose from, one for each sparsity: a sparser one is part of every denser one."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from cl_powerprop.sparsity.allocator import MaskAllocator
from cl_powerprop.sparsity.topk import rank, rank_global

Scope = Literal["layer", "global"]


class CandidateMasks:
    """Masks of the highest-ranked weights, frozen or free, of the task in training.

    Args:
        allocator: of the network. Weights that it hides are in no mask.
        criteria: by which weights rank: tensors like the weights, at least 0, by layer name; with several of them,
            weights rank by the sum of their ranks.
        scope: rank the weights of each layer ("layer"), or of all layers together ("global").
        reuse_bonus: what the criteria of frozen weights are multiplied by.
        max_new: share of the free weights, of each layer or of all of them as in ``scope``, that a mask may have: those
            that rank highest.
        output_layer: name of the layer that gets half the sparsity; None for no layer.
    """

    def __init__(
        self,
        allocator: MaskAllocator,
        criteria: Sequence[Mapping[str, Tensor]],
        scope: Scope = "layer",
        reuse_bonus: float = 1.0,
        max_new: float = 1.0,
        output_layer: str | None = None,
    ) -> None:
        self._weights = allocator.weights
        self._scope = scope
        self._output_layer = output_layer
        self._ranks = self._ranked([self._favoured(scores, reuse_bonus) for scores in criteria])
        self._views = self._limited(max_new)
        self._total = sum(ranks.numel() for ranks in self._ranks.values())

    def at(self, sparsity: float) -> dict[str, Tensor]:
        """Return the mask at a sparsity from 0 to 1: boolean, by layer name."""
        masks = {}
        for name, ranks in self._ranks.items():
            if name == self._output_layer:
                ranks = rank(-ranks) if self._scope == "global" else ranks
                count = round((1.0 - sparsity / 2) * ranks.numel())
            else:
                count = round((1.0 - sparsity) * (self._total if self._scope == "global" else ranks.numel()))
            view, mask = self._views[name], ranks < count
            masks[name] = mask if view is None else mask & view
        return masks

    def _favoured(self, scores: Mapping[str, Tensor], bonus: float) -> dict[str, Tensor]:
        """Return scores with the bonus of frozen weights; hidden weights come last."""
        favoured = {}
        for name, score in scores.items():
            weight = self._weights[name]
            if bonus != 1.0:
                score = torch.where(weight.frozen, bonus * score, score)
            favoured[name] = score if weight.visible is None else torch.where(weight.visible, score, -1.0)
        return favoured

    def _ranked(self, criteria: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return the rank of each weight, 0 for the first, in its layer or among all."""
        first, *others = [self._rank(scores) for scores in criteria]
        if not others:
            return first
        return self._rank({name: -sum((ranks[name] for ranks in others), start) for name, start in first.items()})

    def _rank(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return rank_global(scores) if self._scope == "global" else {name: rank(each) for name, each in scores.items()}

    def _limited(self, max_new: float) -> dict[str, Tensor | None]:
        """Return the weights that a mask may have; None for all of a layer's."""
        weights = self._weights
        if max_new == 1.0:
            return {name: weight.visible for name, weight in weights.items()}
        last = -sum(weight.owner.numel() for weight in weights.values())
        order = self._rank({name: torch.where(weights[name].frozen, last, -each) for name, each in self._ranks.items()})
        free = {name: int((~weight.frozen).sum()) for name, weight in weights.items()}
        if self._scope == "global":
            free = dict.fromkeys(weights, sum(free.values()))
        views: dict[str, Tensor | None] = {}
        for name, weight in weights.items():
            view = weight.frozen | (order[name] < round(max_new * free[name]))
            views[name] = view if weight.visible is None else view & weight.visible
        return views
