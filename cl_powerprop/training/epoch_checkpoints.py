"""Checkpoints within a task: where its training stands at the end of an epoch, and a learner that goes on from there.

A state is flat: tensors, or JSON values, by name. The network is not in it, for checkpoints have it in any case.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from avalanche.core import SupervisedPlugin

_SHARE = 0.02  # of the time of training that checkpoints may take
_FIRST = 0.05  # seconds that the first one is taken to last


def task_state(learner: Any) -> dict[str, Any]:
    """Return how far a learner is within its task: clock, optimizer and random generators."""
    state = {f"generator/{name}": draws.get_state() for name, draws in _generators(learner).items()}
    for index, values in learner.optimizer.state_dict()["state"].items():
        state |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
    return state | {"epochs": learner.clock.train_exp_epochs, "iterations": learner.clock.train_exp_iterations}


def load_task_state(learner: Any, state: Mapping[str, Any]) -> None:
    """Put what :func:`task_state` returned into a learner that has just begun the same task.

    Args:
        learner: before the task's first epoch.
        state: the values by name, tensors on the CPU.

    Raises:
        KeyError: if it lacks a value.
    """
    for name, draws in _generators(learner).items():
        draws.set_state(state[f"generator/{name}"])
    moments: dict[int, dict[str, Any]] = {}
    for key in state:
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            moments.setdefault(int(index), {})[name] = state[key]
    learner.optimizer.load_state_dict(learner.optimizer.state_dict() | {"state": moments})
    learner.clock.train_exp_epochs, learner.clock.train_exp_iterations = state["epochs"], state["iterations"]


def _generators(learner: Any) -> dict[str, torch.Generator]:
    """Return what training draws from: our loaders have generators of their own, and all else uses torch's."""
    device, own = learner.device, getattr(learner.dataloader, "generators", {})
    found = {"torch": torch.default_generator, **own}
    if device.type == "cuda":
        torch.cuda.init()
        found["cuda"] = torch.cuda.default_generators[device.index or 0]
    return found


class EpochCheckpoints(SupervisedPlugin):  # type: ignore[misc]
    """Writes a checkpoint at the end of an epoch, and goes on from one. It must come after all other plugins.

    There is none at a task's last epoch, after which the run writes its own, nor wherever all of them together would
    take more than 2 % of the time of training.

    Args:
        write: called as ``write()`` to write a checkpoint.
        restore: called once, when the first task begins, to put in the state that it goes on from; None if there is
            none.
    """

    def __init__(self, write: Callable[[], None], restore: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._write = write
        self._restore = restore
        self._due = 0.0
        self._cost = _FIRST

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Go on within the task, if a state was given."""
        restore, self._restore = self._restore, None
        if restore is not None:
            restore()
        self._due = time.perf_counter() + self._cost / _SHARE

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Write a checkpoint, if it is time for one."""
        start = time.perf_counter()
        ends = strategy._stop_training or strategy.clock.train_exp_epochs >= strategy.train_epochs
        if ends or start < self._due:
            return
        self._write()
        end = time.perf_counter()
        self._cost = end - start
        self._due = end + self._cost / _SHARE
