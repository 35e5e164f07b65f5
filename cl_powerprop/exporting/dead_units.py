"""Remove units without an effect: those that are constant, those that nothing uses, and what feeds only them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cl_powerprop.exporting.layers import Select
from cl_powerprop.exporting.network import ExportedNetwork, Step
from cl_powerprop.exporting.rules import rule_of

_MOST_SELECTED = 0.75  # share of the pixels: leaving out fewer than a quarter takes longer than it saves


@torch.no_grad()
def remove_dead_units(network: ExportedNetwork, sample_shape: Sequence[int], select: bool = True) -> ExportedNetwork:
    """Return the network without its dead units; it computes the same function, apart from rounding.

    A unit all of whose incoming weights are 0 is constant; its effect is moved into the biases of the layers that take
    it. A unit all of whose outgoing weights are 0 is not needed, and so are the units that feed only such ones.
    Units that an addition pairs, as in residual blocks, go only together. Each layer keeps at least one unit. Pixels
    that a fully connected network does not use can be left out by a :class:`Select`, if they are at least a quarter.

    Args:
        network: its layers are changed in place.
        sample_shape: shape of one sample, (channels, height, width).
        select: whether pixels may be left out.
    """
    first = network.steps[0].layer
    if select and isinstance(first, nn.Flatten):
        network = network.with_step_after(1, Select(math.prod(sample_shape)))
    steps = network.steps
    constants = _constants(steps, sample_shape[0])
    units = [len(values) for values in constants]
    kept = _together(steps, _needed(steps, units))
    for index, step in enumerate(steps):
        if isinstance(step.layer, Select) and kept[index + 1].float().mean() > _MOST_SELECTED:
            kept[index + 1][:] = True
    for index, step in enumerate(steps):
        rule_of(step.layer).keep(step.layer, kept[step.inputs[0]], kept[index + 1])
    return network.without([index for index, step in enumerate(steps) if _selects_all(step, kept[index + 1])])


def _constants(steps: Sequence[Step], inputs: int) -> list[Tensor]:
    """Return the constant units of each value (NaN for those that vary), and move their effects into biases."""
    constants = [torch.full((inputs,), torch.nan)]
    for step in steps:
        constants.append(rule_of(step.layer).constants(step.layer, [constants[value] for value in step.inputs]))
    return constants


def _needed(steps: Sequence[Step], units: Sequence[int]) -> list[Tensor]:
    """Return the units of each value that have an effect on the network's outputs."""
    needed = [torch.zeros(count, dtype=torch.bool) for count in units]
    needed[0][:] = True
    needed[-1][:] = True
    for index in reversed(range(len(steps))):
        layer, rule = steps[index].layer, rule_of(steps[index].layer)
        if rule.whole:
            needed[index + 1][:] = True
        for value in steps[index].inputs:
            needed[value] |= rule.needed(layer, units[value], needed[index + 1])
    return needed


def _together(steps: Sequence[Step], needed: Sequence[Tensor]) -> list[Tensor]:
    """Return the units of each value that are kept: what is paired with a needed unit is kept with it."""
    groups = list(range(len(needed)))  # values of one group have the same units
    for index, step in enumerate(steps):
        if rule_of(step.layer).pairs:
            joined = {groups[value] for value in step.inputs}
            groups = [index + 1 if group in joined else group for group in groups]
    kept: dict[int, Tensor] = {}
    for group, units in zip(groups, needed, strict=True):
        kept[group] = kept[group] | units if group in kept else units.clone()
    for units in kept.values():
        units[0] |= not units.any()
    return [kept[group] for group in groups]


def _selects_all(step: Step, kept: Tensor) -> bool:
    return isinstance(step.layer, Select) and bool(kept.all())
