"""A strategy: the penalty of L2-SP, towards the weights after the task before."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from cl_powerprop import Context, Strategy, StrategyConfig, register_strategy


@dataclass(kw_only=True)
class AnchoredConfig(StrategyConfig):
    strength: float = 0.1
    norms: list[int] | None = None


class Anchor(SupervisedPlugin):
    """Pulls every parameter towards what it was when the task began."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.anchors: dict[str, Tensor] = {}

    def before_backward(self, strategy: Any, **_: Any) -> None:
        for name, value in strategy.model.named_parameters():
            if name in self.anchors:
                strategy.loss = strategy.loss + self.strength * (value - self.anchors[name]).square().sum()

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        self.anchors = {name: value.detach().clone() for name, value in strategy.model.named_parameters()}


@register_strategy("anchored", AnchoredConfig)
class Anchored(Strategy):
    """Weights are held where the task before left them."""

    resumable = True
    takes_sparsity = True

    def plugins(self, context: Context) -> list[Any]:
        self.anchor = Anchor(self.config.strength)
        return [self.anchor, *super().plugins(context)]

    def state_dict(self) -> dict[str, Any]:
        return {"tasks": 1, **{f"anchor.{name}": value for name, value in self.anchor.anchors.items()}}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        tensors = {name: value for name, value in state.items() if torch.is_tensor(value)}
        self.anchor.anchors = {name.removeprefix("anchor."): value for name, value in tensors.items()}
