"""Learners of small runs, whose tasks are trained one at a time, and a plugin that looks at their steps."""

from collections.abc import Callable
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.parts import Parts

SMALL = (
    "data=digits",
    "benchmark.n_tasks=3",
    "train.epochs=1",
    "train.batch_size=64",
    "model.hidden=[16]",
    "device=cpu",
)


def make_parts(*words: str) -> Parts:
    """The parts of a small run, and in all else those that the command would make."""
    return assemble(compose([*SMALL, *words]))


class Look(SupervisedPlugin):  # type: ignore[misc]
    """Calls a function at some event of each step.

    Args:
        functions: by the event's name.
    """

    def __init__(self, **functions: Callable[[Any], object]) -> None:
        super().__init__()
        for event, function in functions.items():
            setattr(self, event, lambda strategy, function=function, **_: function(strategy))


def look_after(parts: Parts, name: str, **functions: Callable[[Any], object]) -> None:
    """Look at steps right after the plugin of that class has acted in them."""
    plugins = parts.learner.plugins
    at = next(index for index, plugin in enumerate(plugins) if type(plugin).__name__ == name)
    plugins.insert(at + 1, Look(**functions))


def look_before(parts: Parts, name: str, **functions: Callable[[Any], object]) -> None:
    """Look at steps right before the plugin of that class acts in them."""
    plugins = parts.learner.plugins
    at = next(index for index, plugin in enumerate(plugins) if type(plugin).__name__ == name)
    plugins.insert(at, Look(**functions))


def train(parts: Parts, task: int) -> None:
    """Train a task."""
    parts.train(parts.curriculum[task][1])


def gradients(learner: Any) -> dict[str, Tensor]:
    """Copies of all gradients of the moment, by name; 0 where there is none."""
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad.clone()
        for name, value in learner.model.named_parameters()
    }


def parameters(learner: Any) -> dict[str, Tensor]:
    """Copies of all parameters, by name."""
    return {name: value.detach().clone() for name, value in learner.model.named_parameters()}


def flat(values: dict[str, Tensor]) -> Tensor:
    """All values in one vector."""
    return torch.cat([value.flatten() for value in values.values()])
