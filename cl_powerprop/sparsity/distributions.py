"""How the weights that a sparse network may keep are divided among its layers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Size

from cl_powerprop.errors import ConfigurationError, check_choice, check_object

Shapes = Mapping[str, Size]
"""Shapes of the masked weights by layer, in the order of the model."""


@dataclass(frozen=True)
class Budget:
    """How many weights some layers may keep together, at least 1."""

    layers: tuple[str, ...]
    weights: int


class Distribution(ABC):
    """Divides a number of weights among layers."""

    @abstractmethod
    def budgets(self, shapes: Shapes, density: float) -> list[Budget]:
        """Return the budgets of all layers.

        Args:
            shapes: of the layers.
            density: share of all their weights that may be kept, in (0, 1].
        """


class PerLayer(Distribution):
    """Gives each layer a density of its own."""

    @abstractmethod
    def densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        """Return the density of each layer, in (0, 1]."""

    def budgets(self, shapes: Shapes, density: float) -> list[Budget]:
        shares = self.densities(shapes, density)
        return [Budget((name,), max(1, round(shares[name] * shape.numel()))) for name, shape in shapes.items()]


class Uniform(PerLayer):
    """The same density in every layer.

    Args:
        last_scale: the last layer has so many times the density of the others, for which the density then is meant.

    Raises:
        ConfigurationError: if ``last_scale`` is not above 0.
    """

    def __init__(self, last_scale: float = 1.0) -> None:
        if not 0.0 < last_scale < math.inf:
            raise ConfigurationError(f"last_scale must be a finite number above 0, not {last_scale}")
        self.last_scale = last_scale

    def densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        last = list(shapes)[-1]
        return {name: min(1.0, self.last_scale * density) if name == last else density for name in shapes}


class ErdosRenyiKernel(PerLayer):
    """ERK: a layer's density grows with (sum of its dimensions) / (product of its dimensions).

    Mocanu et al., Nature Communications 2018 (for Linear layers); Evci et al., "Rigging the Lottery", ICML 2020,
    section 3 (with the dimensions of a convolution's kernel). A layer that would exceed density 1 is dense, and the
    others are scaled again.

    Args:
        power: of that ratio; 0 is uniform.

    Raises:
        ConfigurationError: if ``power`` is not a finite number of at least 0.
    """

    def __init__(self, power: float = 1.0) -> None:
        if not 0.0 <= power < math.inf:
            raise ConfigurationError(f"the power of ERK must be a finite number of at least 0, not {power}")
        self.power = power

    def densities(self, shapes: Shapes, density: float) -> dict[str, float]:
        ratios = {name: (sum(shape) / shape.numel()) ** self.power for name, shape in shapes.items()}
        total = density * sum(shape.numel() for shape in shapes.values())
        dense: set[str] = set()
        while True:
            left = total - sum(shapes[name].numel() for name in dense)
            raised = sum(ratios[name] * shapes[name].numel() for name in shapes if name not in dense)
            scale = left / raised if raised else 0.0
            full = {name for name in shapes if name not in dense and scale * ratios[name] >= 1.0}
            if not full:
                return {name: 1.0 if name in dense else scale * ratios[name] for name in shapes}
            dense |= full


class Global(Distribution):
    """All layers share one budget: one threshold decides over all weights."""

    def budgets(self, shapes: Shapes, density: float) -> list[Budget]:
        return [Budget(tuple(shapes), max(1, round(density * sum(shape.numel() for shape in shapes.values()))))]


DISTRIBUTIONS: dict[str, Callable[[], Distribution]] = {
    "uniform": Uniform,
    "erk": ErdosRenyiKernel,
    "global": Global,
}


def make_distribution(distribution: str | Distribution) -> Distribution:
    """Return a distribution by its name, or the one that is given.

    Raises:
        ConfigurationError: for an unknown name, or a class.
    """
    check_object("distribution", distribution)
    if not isinstance(distribution, str):
        return distribution
    check_choice("distribution", distribution, tuple(DISTRIBUTIONS))
    return DISTRIBUTIONS[distribution]()
