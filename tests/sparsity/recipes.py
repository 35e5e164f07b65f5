"""Optimizers with which the contracts must hold: moments, decay, clipping, steps in theta-space, gradients of 0."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from cl_powerprop.sparsity import ThetaSpaceStep


@dataclass(frozen=True)
class Recipe:
    make: Callable[..., torch.optim.Optimizer]
    theta_space: bool = False
    clip: float | None = None
    set_to_none: bool = True
    scores: bool = False  # masks are learned by scores, in a group of their own without decay

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        optimizer = self.make(network.parameters())
        if self.theta_space:
            ThetaSpaceStep(optimizer, network)
        return optimizer


SGD, ADAM, ADAMW, RMSPROP = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop
RECIPES = {
    "sgd_momentum": Recipe(functools.partial(SGD, lr=0.1, momentum=0.9)),
    "sgd_nesterov_decay_clip": Recipe(
        functools.partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01), clip=0.5
    ),
    "adam_theta": Recipe(functools.partial(ADAM, lr=0.01, weight_decay=0.01), theta_space=True),
    "adamw_phi_zero_grads": Recipe(functools.partial(ADAMW, lr=0.01, weight_decay=0.1), set_to_none=False),
    "adamw_theta_clip": Recipe(functools.partial(ADAMW, lr=0.01, weight_decay=0.1), theta_space=True, clip=0.5),
    "rmsprop_decay_zero_grads": Recipe(
        functools.partial(RMSPROP, lr=0.01, momentum=0.9, weight_decay=0.01), set_to_none=False
    ),
}
# With masks that are learned by scores, which the optimizer moves too.
SCORED = {
    "sgd_scores": Recipe(functools.partial(SGD, lr=0.1, momentum=0.9, weight_decay=0.01), scores=True),
    "adam_theta_scores": Recipe(functools.partial(ADAM, lr=0.01, weight_decay=0.01), theta_space=True, scores=True),
    "adamw_scores_zero_grads": Recipe(
        functools.partial(ADAMW, lr=0.01, weight_decay=0.1), set_to_none=False, scores=True
    ),
}
