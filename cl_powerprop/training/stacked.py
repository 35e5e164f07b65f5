"""Several learners of one config, which differ in their seed, train an epoch together: one stacked step for all.

Every learner stays what it is, and has its own network, optimizer and loader. As an epoch begins, their tensors are
copied into stacked ones, and back when it is over. The steps between work on stacked tensors alone, by about as many
launches as the steps of one learner take. A learner's numbers are those that it computes alone, but for the rounding of
sums; frozen weights are restored to the bit, and each learner has its own batches, the same as alone.
"""

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import accumulate, takewhile
from typing import Any

import torch
from torch import Tensor

from cl_powerprop import interrupts
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.training.graphs import Replay
from cl_powerprop.training.stackable import Epoch
from cl_powerprop.training.stacked_network import NotStackedError, StackedNetwork
from cl_powerprop.training.stacked_optimizer import StackedOptimizer

log = logging.getLogger("cl_powerprop")

_EVENTS = ("before_training_iteration", "before_update", "after_update", "after_training_iteration", "ended")
# What Avalanche's clock counts in steps.
_COUNTS = ("train_iterations", "train_exp_iterations", "train_epoch_iterations", "total_iterations")


def train_together(epochs: Sequence[Epoch]) -> list[bool]:
    """Train an epoch of some learners whose keys are equal; return whether all of it was done, for each of them.

    Nothing is done for one learner. Where they have different numbers of samples, batches that are not equally large in
    all of them are left to each one: its loader goes on with them. A signal that arrives waits until all is done; if
    one has arrived, all is left to each one, which writes a checkpoint after its next step.

    Args:
        epochs: of each learner.
    """
    nothing = [False] * len(epochs)
    if len(epochs) == 1 or interrupts.requested():
        return nothing
    learners = [epoch.learner for epoch in epochs]
    together: Together | None = learners[0].together
    if together is None or not together.fits(learners, epochs[0].form):
        together = None
        for learner in learners:
            learner.together = None  # the tensors of another group are freed before there are new ones
        try:
            together = Together(learners, epochs[0].form)
        except NotStackedError as error:
            train_alone(learners, error)
            return nothing
        for learner in learners:
            learner.together = together
    return together.train_epoch(learners, [epoch.plugins for epoch in epochs])


def train_alone(learners: Sequence[Any], reason: NotStackedError) -> None:
    """Note, and say, that learners cannot do anything together from now on."""
    log.warning(f"seeds are trained one after the other: this network cannot be computed for several ({reason})")
    for learner in learners:
        learner.stacks = False


class _Held:
    """Tensors that stay where they are while their shapes do.

    Attributes:
        version: changes whenever one of them is another tensor than in the epoch before.
    """

    def __init__(self) -> None:
        self.version = 0
        self._tensors: dict[str, Tensor] = {}
        self._used: set[str] = set()

    def __call__(self, name: str, values: Tensor) -> Tensor:
        """Return a tensor with these values: that of the name, if it has their shape."""
        self._used.add(name)
        held = self._tensors.get(name)
        if held is not None and held.shape == values.shape and held.dtype == values.dtype:
            return held.copy_(values)
        self.version += 1
        self._tensors[name] = values
        return values

    def begin(self) -> None:
        """Note that an epoch begins, which asks for all that it holds."""
        self._used = set()

    def begun(self) -> None:
        """Let go of what the epoch has not asked for."""
        unused = self._tensors.keys() - self._used
        self.version += bool(unused)
        for name in unused:
            del self._tensors[name]


class Together:
    """What some learners train with together, in one task: stacked weights, optimizer and images.

    Args:
        learners: whose keys are equal.
        form: of their epoch (see :class:`Epoch`).

    Attributes:
        hold: ``hold(name, values)`` returns the values in a tensor that stays where it is; for plugins.
        learners: those that train, while they do.
        losses: of the step: float ``[learners]``, the mean loss of each one's batch.
        outputs: of the step: ``[learners, batch, classes]``.
        labels: of the step: int64 ``[learners, batch]``; of all steps, when they have ended.

    Raises:
        NotStackedError: if the networks cannot be computed at once.
    """

    losses: Tensor
    outputs: Tensor
    labels: Tensor

    def __init__(self, learners: Sequence[Any], form: Hashable = None) -> None:
        self._form = form
        loaders = [learner.dataloader for learner in learners]
        self._network = StackedNetwork([learner.model for learner in learners])
        self._network.try_out(loaders[0].first_image)
        self._optimizer = StackedOptimizer([learner.optimizer for learner in learners], self._network.stacked)
        self._loaders = [weakref.ref(loader) for loader in loaders]
        self._starts = list(accumulate((len(loader.labels) for loader in loaders[:-1]), initial=0))
        self._images = _hold_together(loaders) if loaders[0].gathers else None
        self._labels = torch.cat([loader.labels for loader in loaders])
        self._steps: dict[int, tuple[list[Tensor], Replay]] = {}  # by size of the batch: where to put it, and the step
        self._acts: dict[str, list[Callable[[], None]]] = {}
        self.hold = _Held()
        self.learners: Sequence[Any] = ()

    def fits(self, learners: Sequence[Any], form: Hashable) -> bool:
        """Whether it is of these learners, in this order, of the task that they train, and of an epoch of this form."""
        return self._form == form and [loader() for loader in self._loaders] == [
            learner.dataloader for learner in learners
        ]

    def stacked(self, parameter: Tensor) -> Tensor:
        """Return the tensor ``[learners, *parameter]`` that is trained in place of one of the first learner's."""
        return self._network.stacked(parameter)

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self._labels.device

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients of the step, each ``[learners, *parameter]``."""
        return [stacked.grad for stacked in self._network.parameters if stacked.grad is not None]

    def train_epoch(self, learners: Sequence[Any], plugins: Sequence[Sequence[Any]]) -> list[bool]:
        """Train an epoch, up to the first batch that has not the same size for all; return for which it is over.

        Args:
            learners: those that it is of.
            plugins: of each learner, those that act in a step.
        """
        self.learners, first = learners, learners[0]
        orders, batches = zip(*(learner.dataloader.begin_epoch() for learner in learners), strict=True)
        common = [same[0] for same in takewhile(_equal, zip(*batches, strict=True))]
        places = self._among_all(orders, common[-1].stop if common else 0)
        self.hold.begin()
        self._network.load(self.hold)
        self._optimizer.load()
        acts = [_acts_of(self, same) for same in zip(*plugins, strict=True)]
        self._acts = {event: [act[event] for act in acts if event in act] for event in _EVENTS}
        self.hold.begun()
        steps = 0
        for batch in common:
            if first._stop_training:
                break
            self._act("before_training_iteration")
            self._optimizer.follow_rates()
            self._step(places[:, batch])
            self._act("after_training_iteration")
            first.clock.after_training_iteration(first)
            steps += 1
        self._network.store()
        self._optimizer.store()
        if steps:
            self.labels = self._labels[places[:, common[0].start : common[steps - 1].stop]]
            self._act("ended")
        for learner in learners[1:]:
            learner._stop_training = first._stop_training
            for count in _COUNTS:
                setattr(learner.clock, count, getattr(learner.clock, count) + steps)
        self.learners, self._acts = (), {}
        left = [[] if first._stop_training else parts[len(common) :] for parts in batches]
        for learner, order, parts in zip(learners, orders, left, strict=True):
            if parts:
                learner.dataloader.begun = (order, parts)
        return [not parts for parts in left]

    def release(self) -> None:
        """Let go of recorded steps, which refer to this object; one that is still needed is recorded anew."""
        self._steps = {}

    def _act(self, event: str) -> None:
        for act in self._acts[event]:
            act()

    def _among_all(self, orders: Sequence[Tensor], count: int) -> Tensor:
        """Return the first places of each learner's order among the samples of all, int64 ``[learners, count]``."""
        return torch.stack([order[:count] + start for order, start in zip(orders, self._starts, strict=True)])

    def _step(self, places: Tensor) -> None:
        """Make a step on the samples at some places among those of all, int64 ``[learners, batch]``."""
        inputs = [places] if self._images is not None else self._load(places)
        size, first = places.shape[1], self.learners[0]
        if size not in self._steps:
            fixed = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in inputs]
            step, records = partial(self._compute, *fixed), self._optimizer.can_be_recorded and first._graphs.is_on
            self._steps[size] = fixed, first._graphs.replay(step) if records else Replay(step, self.device, False)
        fixed, replay = self._steps[size]
        for each, values in zip(fixed, inputs, strict=True):
            each.copy_(values)
        try:
            replay((self.hold.version, self._optimizer.version, self._optimizer.rates))
        except RuntimeError as error:
            if not first._graphs.is_on:
                raise
            for learner in self.learners:
                learner._graphs.give_up(error)
            self._steps = {}
            self._step(places)

    def _load(self, places: Tensor) -> list[Tensor]:
        """Return images and labels of a batch, which each learner's loader computes and changes on its own."""
        rows = zip(self.learners, places, self._starts, strict=True)
        batches = [learner.dataloader.batch(own - start) for learner, own, start in rows]
        return [torch.stack([batch[index] for batch in batches]) for index in (0, 1)]

    def _gather(self, places: Tensor) -> list[Tensor]:
        """Return images and labels of a batch, from those of all learners."""
        assert self._images is not None
        rows = places.flatten()
        return [each.index_select(0, rows).unflatten(0, places.shape) for each in (self._images, self._labels)]

    def _compute(self, *inputs: Tensor) -> None:
        """Do the work of a step, on tensors that stay where they are."""
        first = self.learners[0]
        images, self.labels = inputs if self._images is None else self._gather(*inputs)
        for parameter in self._network.parameters:
            parameter.grad = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=first.precision == "bf16"):
            outputs = self._network(images)
        outputs = outputs.float() if first.precision == "bf16" else outputs
        losses = first.sample_losses(outputs.flatten(0, 1), self.labels.flatten())
        losses.backward(torch.full_like(losses, 1.0 / self.labels.shape[1]))  # of the sum of each learner's mean
        self.losses, self.outputs = losses.detach().view_as(self.labels).mean(1), outputs.detach()
        self._act("before_update")
        self._optimizer.step()
        self._act("after_update")


def _hold_together(loaders: Sequence[Any]) -> Tensor:
    """Return the images of all loaders in one tensor, of which each loader's own are a part from now on."""
    sizes, first = [len(loader.images) for loader in loaders], loaders[0].images
    whole: Tensor = first.new_empty((sum(sizes), *first.shape[1:]))
    for loader, part in zip(loaders, whole.split(sizes), strict=True):
        loader.hold(part.copy_(loader.images))
    return whole


def _acts_of(together: Together, plugins: Sequence[Any]) -> dict[str, Callable[[], None]]:
    """Return what plugins of one kind do in the epoch, by event.

    Raises:
        ConfigurationError: if they do not say it as :mod:`~cl_powerprop.training.stackable` describes.
    """
    name = type(plugins[0]).__name__
    if not hasattr(plugins[0], "stack"):
        raise ConfigurationError(f"{name} has a method stack_key, and needs a method stack(together, plugins) too")
    acts = plugins[0].stack(together, plugins)
    if not isinstance(acts, dict) or not acts.keys() <= set(_EVENTS):
        found = ", ".join(map(str, acts)) if isinstance(acts, dict) else type(acts).__name__
        raise ConfigurationError(
            f"{name}.stack must return a dictionary of what to call by event ({', '.join(_EVENTS)}), not {found}"
        )
    return acts


def _equal(batches: Sequence[slice]) -> bool:
    return all(batch == batches[0] for batch in batches)
