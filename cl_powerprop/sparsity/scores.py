"""By what weights are dropped and grown: the highest scores stay, or come."""

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from cl_powerprop.errors import check_choice, check_object


class Scored(Protocol):
    """What a score can depend on."""

    @property
    def theta(self) -> Tensor:
        """The weights, hidden ones as they are stored."""

    @property
    def gradient(self) -> Tensor:
        """dL/dtheta of all weights, hidden ones included, in the last step."""


class Score(ABC):
    """Scores the weights of a layer, by which they are kept or grown.

    Attributes:
        needs_gradient: it depends on the gradient of the last step.
    """

    needs_gradient = False

    @abstractmethod
    def __call__(self, weight: Scored, draws: torch.Generator) -> Tensor:
        """Return a score for each weight, of its shape; the higher, the better.

        Args:
            weight: the layer's weights.
            draws: generator on the CPU, for scores that are drawn.
        """


class Magnitude(Score):
    """``|theta|``."""

    def __call__(self, weight: Scored, draws: torch.Generator) -> Tensor:
        return weight.theta.abs()


class Random(Score):
    """Drawn evenly."""

    def __call__(self, weight: Scored, draws: torch.Generator) -> Tensor:
        shape = weight.theta.shape
        return torch.rand(shape, generator=draws).to(weight.theta.device)


class Gradient(Score):
    """``|dL/dtheta|``: how fast the loss would fall (Evci et al. 2020)."""

    needs_gradient = True

    def __call__(self, weight: Scored, draws: torch.Generator) -> Tensor:
        return weight.gradient.abs()


class Saliency(Score):
    """``|theta * dL/dtheta|``: how the loss would change without the weight (Molchanov et al. 2019, first order)."""

    needs_gradient = True

    def __call__(self, weight: Scored, draws: torch.Generator) -> Tensor:
        return (weight.theta * weight.gradient).abs()


SCORES: dict[str, type[Score]] = {
    "magnitude": Magnitude,
    "random": Random,
    "gradient": Gradient,
    "saliency": Saliency,
}


def make_score(score: str | Score) -> Score:
    """Return a score by its name, or the one that is given.

    Raises:
        ConfigurationError: for an unknown name, or a class.
    """
    check_object("score", score)
    if not isinstance(score, str):
        return score
    check_choice("score", score, tuple(SCORES))
    return SCORES[score]()
