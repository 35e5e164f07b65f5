"""A continual-learning strategy as one object: all that the loop asks of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.registry import T, door
from cl_powerprop.training.phase import Phase

if TYPE_CHECKING:
    from avalanche.core import BasePlugin
    from torch import Tensor, nn

    from cl_powerprop.evaluation.weights import WeightCount
    from cl_powerprop.sparsity import LayerCapacity
    from cl_powerprop.tasks import Task
    from cl_powerprop.training.tensor_data import Samples


@dataclass(kw_only=True)
class StrategyConfig:
    """What every `strategy` has: its name. A strategy adds its own options in a class derived from this one."""

    name: str

    def settle(self, epochs: int) -> None:
        """Replace options that are null by what they stand for.

        Args:
            epochs: `train.epochs`, what a task is trained for.
        """

    def check(self, epochs: int) -> None:
        """Refuse impossible values, before anything is loaded.

        Args:
            epochs: `train.epochs`.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """

    def check_tasks(self, n_tasks: int) -> None:
        """Refuse what does not fit the number of tasks, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """


@dataclass(frozen=True)
class Context:
    """What a strategy learns in: all that its plugins may depend on beside its own options.

    Attributes:
        seed: of the run.
        n_tasks: how many tasks there are.
        epochs: what each of them is trained for.
        bias: what becomes of biases and norms (`model.bias`).
        validation: the Avalanche stream whose experience k holds task k's validation samples.
    """

    seed: int
    n_tasks: int
    epochs: int
    bias: str
    validation: Sequence[Any]


@dataclass(frozen=True)
class TaskReport:
    """What a strategy has to report of the task that it has just trained.

    Attributes:
        capacity_used: share of the maskable weights that some task holds so far.
        capacity: what the task holds of each tensor; empty without masks.
        search: how its mask was found, with JSON values; None without a search.
        search_seconds: what that took, of the time that training took.
        messages: what a user should know.
    """

    capacity_used: float = 1.0
    capacity: Sequence[LayerCapacity] = ()
    search: Mapping[str, Any] | None = None
    search_seconds: float = 0.0
    messages: Sequence[str] = ()


@dataclass(frozen=True)
class Summary:
    """What a strategy has to report at the end.

    Attributes:
        weights: how large the network's weights are.
        mask_bits: bits that the stored masks take.
        overlaps: int64 ``[T, T]``, how many weights the masks of two tasks share; None without masks.
        coverage: share of the weights that can have masks; None without masks.
        buffer_bits: size of the samples of earlier tasks that are kept, with all that is kept of each of them.
        importance_bits: size of what earlier tasks leave beside the network: importances, and values of weights that
            are not the network's own; without what only a task in training needs, or what follows from the rest.
    """

    weights: Iterable[WeightCount]
    mask_bits: int = 0
    overlaps: Tensor | None = None
    coverage: float | None = None
    buffer_bits: int = 0
    importance_bits: int = 0


class Strategy:
    """Trains a network on one task after the other. As it stands it does nothing against forgetting.

    A strategy of your own overrides what differs, most often :meth:`plugins` alone, and enters by
    :func:`~cl_powerprop.registry.register_strategy`.

    Attributes:
        needs_task: a test must say which task its samples are of, for tasks have masks or networks of their own.
        gives_masks: each task has a mask over shared weights, and the weights in it are frozen.
        tests_unseen: a task that was not learned yet can be tested, as forward transfer asks for.
        resumable: :meth:`state_dict` and the network's are all that the next task depends on; False unless a strategy
            says so, for a plugin may keep something to itself.
        resumable_within_tasks: together with the optimizer's, they also are all that the next epoch depends on.
        resumable_anywhere: they also are all that the next step depends on, or the next test after training, together
            with what plugins give by ``task_progress()`` (see :mod:`cl_powerprop.training.task_state`).
        infers_task: it finds out by itself which task test samples are of.
        inference_batch: how many test samples it must know to be of one task for that.
        keeps_samples: it keeps training samples of earlier tasks.
        needs_n_tasks: it must know in advance how many tasks there are.
        takes_sparsity: a sparse-training controller may mask its one network (see `sparsity`).
        clip_norm: the largest global norm of the gradient unless `train.clip_norm` says otherwise; None for no limit.
        task_hint: how a user can have it find out, for messages; "" if not at all.
    """

    needs_task = False
    gives_masks = False
    tests_unseen = True
    resumable = False
    resumable_within_tasks = False
    resumable_anywhere = False
    infers_task = False
    inference_batch = 1
    keeps_samples = False
    needs_n_tasks = False
    takes_sparsity = False
    task_hint = ""
    clip_norm: float | None = None

    def __init__(self, config: Any = None) -> None:
        self.config = config

    def architecture(self, architecture: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of :func:`~cl_powerprop.networks.build.build_model`, changed where that is needed."""
        return architecture

    def check_model(self, model: nn.Module) -> None:
        """Refuse a network that it cannot train, before anything is written.

        Raises:
            ConfigurationError: saying what is possible.
        """

    def training_samples(self, tasks: Sequence[Task]) -> list[Samples]:
        """Return the training samples of each experience."""
        return [task.train for task in tasks]

    def curriculum(self, stream: Sequence[Any], n_tasks: int) -> list[tuple[int, Any]]:
        """Return what to train, in order: (index of the last task that is learned with it, Avalanche's experience).

        The indices must not fall, and end with the last task. An experience of None trains nothing.

        Args:
            stream: the train stream, an experience for each of :meth:`training_samples`.
            n_tasks: how many tasks there are.
        """
        return list(enumerate(stream))

    def plugins(self, context: Context) -> list[BasePlugin]:
        """Return new Avalanche plugins in the order that events reach them, after those that measure."""
        from cl_powerprop.plugins.task_selection import TaskSelection

        return [TaskSelection()]

    def phases(self, epochs: int) -> list[Phase]:
        """Return the phases of a task, over each of which the learning rate runs through its schedule."""
        return [Phase(epochs)]

    def settings(self) -> dict[str, Any]:
        """Return the options that tell its runs from others where there is no config, as ``{"strategy": {...}}``."""
        return {}

    def report(self) -> TaskReport:
        """Report the task that was just trained; called once for each."""
        return TaskReport()

    def identified(self) -> Mapping[int, float]:
        """Return the share of each task's samples whose task was inferred right in the last test."""
        return {}

    def summary(self, model: nn.Module) -> Summary:
        """Report what is known at the end, of the trained network."""
        from cl_powerprop.evaluation.weights import weight_histogram
        from cl_powerprop.networks.heads import TaskHeads

        return Summary(weight_histogram(model, (TaskHeads,), masked=False))

    def mask_options(self) -> dict[str, Any] | None:
        """Return the arguments of the :class:`MaskAllocator` over the network; None without masks."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next task depends on, the network apart: JSON values, or tensors, by name.

        It is called between tasks and, if it is resumable within tasks, between two epochs of one; if it is resumable
        anywhere, after any step.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any], model: nn.Module) -> None:
        """Take back what :meth:`state_dict` returned.

        Args:
            state: the values by name, tensors on the CPU.
            model: as it is built anew; its own state is loaded next.
        """


def register_strategy(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a class derived from :class:`Strategy` the choice ``strategy=NAME``.

    Args:
        name: of the choice.
        config: dataclass of its options, derived from :class:`StrategyConfig`.
        aliases: other names for it.

    Raises:
        ConfigurationError: for a name that is taken, something else than such a class, or a config that is not a
            dataclass with a type for every option.
    """
    enter = door("strategy", name, config, StrategyConfig, aliases)

    def enter_strategy(make: T) -> T:
        if not (isinstance(make, type) and issubclass(make, Strategy)):
            raise ConfigurationError(f"strategy {name!r}: {make!r} is not a class derived from Strategy")
        return enter(make)

    return enter_strategy
