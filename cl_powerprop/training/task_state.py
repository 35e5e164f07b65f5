"""Where the training of a task stands, as tensors or JSON values by name, and a learner that goes on from there.

The network is not in it, for checkpoints have it in any case. A plugin that knows something of the task in training,
such as sums over an epoch, gives it by ``task_progress()`` and takes it back by ``load_task_progress(state)``.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cl_powerprop.errors import RunFolderError, UserError
from cl_powerprop.shown import as_line

_CLOCK = ("train_exp_epochs", "train_exp_iterations", "train_epoch_iterations")


def global_generators(device: torch.device) -> dict[str, torch.Generator]:
    """Return torch's own generators, by name."""
    found = {"torch": torch.default_generator}
    if device.type == "cuda":
        torch.cuda.init()
        found["cuda"] = torch.cuda.default_generators[device.index or 0]
    return found


def generator_states(generators: Mapping[str, torch.Generator]) -> dict[str, Tensor]:
    """Return the states of some generators, by name."""
    return {name: draws.get_state() for name, draws in generators.items()}


@contextlib.contextmanager
def fitting(source: str = "the checkpoint") -> Iterator[None]:
    """Put the state of a checkpoint in inside.

    Args:
        source: where it came from, for messages.

    Raises:
        RunFolderError: if it is not one of this run, whatever is wrong with it.
    """
    try:
        yield
    except UserError:  # which says what is wrong by itself
        raise
    except KeyError as error:
        raise RunFolderError(as_line(f"{source} does not fit its run: it has no {error}")) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise RunFolderError(
            as_line(f"{source} does not fit its run: a value in it has another type or size than it should ({error})")
        ) from error


class TaskState:
    """The state of the task that a learner trains, between two epochs or two steps of one.

    Args:
        learner: as its task begins.
    """

    def __init__(self, learner: Any) -> None:
        self._learner = learner
        self._loader = learner.dataloader  # an evaluation within the task has one of its own
        self._begun: dict[str, Tensor] = {}  # states of the loader's generators at the beginning of the epoch
        self.in_epoch = False

    @property
    def can_be_within_epoch(self) -> bool:
        """Whether the loader can begin an epoch after some of its batches."""
        return hasattr(self._loader, "first")

    def epoch_begins(self) -> None:
        """Note with which random numbers the epoch begins."""
        self._begun = generator_states(self._own_generators())
        self.in_epoch = True

    def epoch_ended(self) -> None:
        """Note that all of the epoch is over."""
        self.in_epoch = False

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors, or JSON values, by name."""
        learner, clock = self._learner, self._learner.clock
        generators = generator_states(global_generators(learner.device) | self._own_generators())
        if self.in_epoch:
            generators |= {name: at for name, at in self._begun.items() if name not in self._loader.drawn_by_batch}
        state: dict[str, Any] = {f"generator/{name}": values for name, values in generators.items()}
        for index, values in learner.optimizer.state_dict()["state"].items():
            state |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
        for name, source in _with_progress(learner):
            state |= {f"progress/{name}/{key}": value for key, value in source.task_progress().items()}
        epochs, iterations, batches = (getattr(clock, name) for name in _CLOCK)
        state |= {"epochs": epochs, "iterations": iterations, "stops": learner._stop_training}
        return state | ({"batches": batches} if self.in_epoch else {})

    def load(self, state: Mapping[str, Any]) -> None:
        """Go to a state of the task that has just begun; what belongs to an epoch follows as that begins."""
        learner, clock = self._learner, self._learner.clock
        for name, draws in (global_generators(learner.device) | self._own_generators()).items():
            draws.set_state(state[f"generator/{name}"])
        moments: dict[int, dict[str, Any]] = {}
        for key in state:
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                moments.setdefault(int(index), {})[name] = state[key]
        learner.optimizer.load_state_dict(learner.optimizer.state_dict() | {"state": moments})
        clock.train_exp_epochs, clock.train_exp_iterations = int(state["epochs"]), int(state["iterations"])
        if "batches" not in state:
            self._load_progress(state)

    def load_epoch(self, state: Mapping[str, Any]) -> None:
        """Go to the state's place in the epoch that has just begun, if it is within one."""
        if "batches" not in state:
            return
        self._load_progress(state)
        self._learner.clock.train_epoch_iterations = state["batches"]
        self._loader.first = len(self._loader) if state["stops"] else state["batches"]

    def _load_progress(self, state: Mapping[str, Any]) -> None:
        learner = self._learner
        learner._stop_training = state.get("stops", False)
        for name, source in _with_progress(learner):
            start = f"progress/{name}/"
            own = {key.removeprefix(start): _on(learner.device, state[key]) for key in state if key.startswith(start)}
            if own:  # that of an earlier version has none
                source.load_task_progress(own)

    def _own_generators(self) -> dict[str, torch.Generator]:
        found: dict[str, torch.Generator] = getattr(self._loader, "generators", {})
        return found


def _with_progress(learner: Any) -> Iterator[tuple[str, Any]]:
    """Yield what knows something of the task in training, by name."""
    sources = [("learner", learner), *((type(plugin).__name__, plugin) for plugin in learner.plugins)]
    return ((name, source) for name, source in sources if hasattr(source, "task_progress"))


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
