"""The form of every exported network: layers in the order they are computed, each with the values it takes."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from cl_powerprop.exporting.layers import build_layer, describe


@dataclass(frozen=True)
class Step:
    """A layer, and which values it takes: 0 is the network's input, and k is what the k-th step (from 1) returns."""

    layer: nn.Module
    inputs: tuple[int, ...]


class ExportedNetwork(nn.Module):
    """A plain torch module: ``network(x)`` maps ``[n, *sample_shape]`` to the logits ``[n, classes]`` of one task.

    Args:
        steps: in the order they are computed; the last returns the logits.

    Attributes:
        facts: what a file says of the network: the run, the task, the shape of a sample, how pixels are normalised.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(step.layer for step in steps)
        self.inputs = [step.inputs for step in steps]
        self.facts: dict[str, Any] = {}
        last_use = {value: index for index, step in enumerate(steps) for value in step.inputs}
        # What no later step takes is let go, or deep networks would hold all their feature maps.
        self._released = [[value for value, last in last_use.items() if last == index] for index in range(len(steps))]

    def forward(self, x: Tensor) -> Tensor:
        values = {0: x}
        for index, (layer, inputs) in enumerate(zip(self.layers, self.inputs, strict=True)):
            values[index + 1] = layer(*(values[value] for value in inputs))
            for value in self._released[index]:
                del values[value]
        return values[len(self.layers)]

    @property
    def steps(self) -> list[Step]:
        """The layers (not copied), each with the values it takes."""
        return [Step(layer, inputs) for layer, inputs in zip(self.layers, self.inputs, strict=True)]

    def copied(self) -> "ExportedNetwork":
        """Return a network of its own with the same weights."""
        return copy.deepcopy(self)

    def without(self, removed: Collection[int]) -> "ExportedNetwork":
        """Return the network without some steps (their positions, from 0); each step's input takes its result's place.

        The layers are not copied. Steps with several inputs cannot be removed.
        """
        now = [0]  # where each value of this network is in the new one
        steps: list[Step] = []
        for index, step in enumerate(self.steps):
            inputs = tuple(now[value] for value in step.inputs)
            if index in removed:
                now.extend(inputs)
            else:
                steps.append(replace(step, inputs=inputs))
                now.append(len(steps))
        return ExportedNetwork(steps).eval()

    def with_step_after(self, value: int, layer: nn.Module) -> "ExportedNetwork":
        """Return the network with one more step: what took ``value`` takes what ``layer`` makes of it."""

        def moved(inputs: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(taken + 1 if taken >= value else taken for taken in inputs)

        steps = [
            step if index < value else Step(step.layer, moved(step.inputs)) for index, step in enumerate(self.steps)
        ]
        return ExportedNetwork([*steps[:value], Step(layer, (value,)), *steps[value:]]).eval()

    def describe(self) -> list[dict[str, Any]]:
        """Return what :func:`build_network` makes the network from, apart from its tensors, as JSON values."""
        return [describe(step.layer) | {"inputs": list(step.inputs)} for step in self.steps]


def build_network(description: Sequence[dict[str, Any]]) -> ExportedNetwork:
    """Return a new network as :meth:`ExportedNetwork.describe` describes it.

    Raises:
        KeyError, TypeError, ValueError: for a description that does not come from there.
    """
    steps: list[Step] = []
    for index, step in enumerate(description):
        inputs = tuple(step["inputs"])
        if not all(isinstance(value, int) and 0 <= value <= index for value in inputs):
            raise ValueError(f"step {index} takes values that do not come before it")
        steps.append(Step(build_layer(step), inputs))
    if not steps:
        raise ValueError("no steps")
    return ExportedNetwork(steps).eval()
