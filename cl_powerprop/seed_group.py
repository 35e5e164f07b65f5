"""What the runs of several seeds share while they are trained together in one process."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from cl_powerprop.assemble import choose_device, load_sequence
from cl_powerprop.config import RunConfig
from cl_powerprop.tasks import Pixels, Split, TaskSequence
from cl_powerprop.training.lockstep import Lockstep
from cl_powerprop.training.task_state import generator_states, global_generators


class SeedGroup:
    """Seeds of one config that are trained together.

    Args:
        seeds: how many there are.
        device: that they are trained on.

    Attributes:
        lockstep: in which their runs take turns, each with the states of torch's generators that it would have alone.
    """

    def __init__(self, seeds: int, device: torch.device) -> None:
        self.seeds = seeds
        self.lockstep = Lockstep(partial(_keep, global_generators(device)))
        self._held: list[Pixels] = []

    def load_sequence(self, config: RunConfig) -> TaskSequence:
        """Read the data and make the tasks of a seed; images that another one has too are held once for all."""
        sequence = load_sequence(config, choose_device(config.device))
        shared: dict[int, Pixels] = {}  # by the number of the object that this seed has read

        def share(split: Split) -> Split:
            source = split.source
            if id(source) not in shared:
                shared[id(source)] = self._shared(source)
            return replace(split, source=shared[id(source)])

        parts = [(task, [share(split) for split in (task.train, task.valid, task.test)]) for task in sequence.tasks]
        tasks = [replace(task, train=train, valid=valid, test=test) for task, (train, valid, test) in parts]
        return replace(sequence, tasks=tasks)

    def _shared(self, source: Pixels) -> Pixels:
        if source.pictures is not None:  # they are read whenever they are needed
            return source
        for held in self._held:
            if _same(source, held):
                return held
        self._held.append(source)
        return source


def _same(one: Pixels, other: Pixels) -> bool:
    """Return whether two data sets have the same images and labels, and normalise them in the same way."""
    pairs = ((one.images, other.images), (one.labels, other.labels), (one.mean, other.mean), (one.std, other.std))
    return all(_equal(mine, theirs) for mine, theirs in pairs)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one is other or (isinstance(one, float) and one == other)


def _keep(generators: dict[str, torch.Generator]) -> Callable[[], None]:
    """Return what puts the states back that torch's own generators have now."""
    states = generator_states(generators)

    def restore() -> None:
        for name, draws in generators.items():
            draws.set_state(states[name])

    return restore
