"""Training samples of earlier tasks, kept on the device: what is kept, and what of it each step gets."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor

from cl_powerprop.seeding import derive_seed, generator
from cl_powerprop.training.tensor_data import Samples, Transform


class Memory:
    """Some training samples of each task so far.

    Every sample has a random number, drawn for its task, and those with the smallest are kept: of all samples so far,
    which is what reservoir sampling keeps of their stream (Vitter 1985), or of each task.

    Args:
        samples: the training samples of each task.
        size: how many are kept.
        seed: of the run.
        of_each_task: ``size`` samples are kept of each task, not of all together.

    Attributes:
        images: float32 ``[m, *sample]``, as the network gets them, not augmented; None while nothing is kept.
        labels: int64 ``[m]``.
        tasks: int64 ``[m]``, the task of each.
        rows: int64 ``[m]`` on the CPU, the position of each among its task's samples.
        sizes: how many samples there are of each task that has any, in their order.
    """

    def __init__(self, samples: Sequence[Samples], size: int, seed: int, of_each_task: bool = False) -> None:
        self._samples = list(samples)
        self.size = size
        self.seed = seed
        self.of_each_task = of_each_task
        self.images: Tensor | None = None
        self.labels = self.tasks = torch.empty(0, dtype=torch.int64)
        self.rows = torch.empty(0, dtype=torch.int64)
        self.sizes: list[int] = []
        self._keys = torch.empty(0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, task: int) -> tuple[Tensor, int]:
        """Keep samples of a task that was just trained.

        Returns:
            The places of the earlier samples that stay, int64 on the device, and how many new ones follow them.
        """
        keys = self._draw(task)
        if self.of_each_task:
            kept, new = torch.arange(len(self)), keys.argsort()[: self.size].sort().values
        else:
            best = torch.cat([self._keys, keys]).argsort()[: self.size].sort().values
            kept, new = best[best < len(self)], best[best >= len(self)] - len(self)
        device = self._samples[task].labels.device
        stay = kept.to(device)
        self._set(
            torch.cat([self.rows[kept], new]),
            torch.cat([self.tasks.to(device)[stay], torch.full((len(new),), task, device=device)]),
            torch.cat([self._keys[kept], keys[new]]),
            *self._taken(task, new, None if self.images is None else self.images[stay], self.labels.to(device)[stay]),
        )
        return stay, len(new)

    def _draw(self, task: int) -> Tensor:
        draws = generator(self.seed, "replay", task)
        return torch.rand(len(self._samples[task]), generator=draws, dtype=torch.float64)

    def _taken(self, task: int, rows: Tensor, images: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return images and labels with those of some of a task's samples appended."""
        samples = self._samples[task]
        which = rows.to(samples.labels.device)
        new = samples.images(which)
        return new if images is None else torch.cat([images, new]), torch.cat([labels, samples.labels[which]])

    def _set(self, rows: Tensor, tasks: Tensor, keys: Tensor, images: Tensor, labels: Tensor) -> None:
        self.rows, self.tasks, self._keys, self.images, self.labels = rows, tasks, keys, images, labels
        self.sizes = tasks.unique_consecutive(return_counts=True)[1].tolist()

    def state_dict(self) -> dict[str, Any]:
        """Return which samples are kept; the samples themselves follow from the data."""
        return {"rows": self.rows, "tasks": self.tasks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` returned.

        Raises:
            ValueError: if there are no such samples, or more than are kept.
        """
        rows, tasks = state["rows"].cpu(), state["tasks"].cpu()
        most = self.size * (len(self._samples) if self.of_each_task else 1)
        if rows.shape != tasks.shape or rows.dim() != 1 or len(rows) > most:
            raise ValueError(f"a memory of {most} samples has {list(rows.shape)} of tasks {list(tasks.shape)}")
        if not len(rows):
            return
        if not bool(((tasks >= 0) & (tasks < len(self._samples)) & (tasks.diff(prepend=tasks[:1]) >= 0)).all()):
            raise ValueError("the tasks of the memory are not those of the run, in their order")
        images: Tensor | None = None
        labels, keys = self._samples[0].labels[:0], []
        for task in tasks.unique().tolist():
            own = rows[tasks == task]
            if not bool(((own >= 0) & (own < len(self._samples[task]))).all()):
                raise ValueError(f"the memory has samples that task {task} has not")
            keys.append(self._draw(task)[own])
            images, labels = self._taken(task, own, images, labels)
        assert images is not None
        self._set(rows, tasks.to(labels.device), torch.cat(keys), images, labels)

    @property
    def bits(self) -> int:
        """Bits of the kept samples as they would be stored: 8 for each value of an image, 64 for label and task."""
        values = 0 if self.images is None else self.images.numel()
        return 8 * values + 2 * 64 * len(self)


class MemoryPlugin(SupervisedPlugin):  # type: ignore[misc]
    """Gives each step a random batch of the memory, with replacement, and keeps samples of each task after it.

    Which batch that is follows from the seed, the task, the epoch and the step, so that a run which goes on needs to
    know nothing of it.

    Args:
        memory: what is kept.
        batch: samples of the memory in a step; None for as many as a batch has.
    """

    def __init__(self, memory: Memory, batch: int | None = None) -> None:
        super().__init__()
        self.memory = memory
        self.batch = batch
        self._plan = self._which = torch.empty(0, dtype=torch.int64)
        self._transform: Transform | None = None
        self._draws: torch.Generator | None = None

    def before_training_epoch(self, strategy: Any, **_: Any) -> None:
        """Draw the batches of the memory for the steps of an epoch."""
        if not len(self.memory):
            return
        place = self._place(strategy)
        shape = (len(strategy.dataloader), self.batch or strategy.train_mb_size)
        plan = torch.randint(len(self.memory), shape, generator=generator(self.memory.seed, "replay", *place))
        self._plan = plan.to(strategy.device)
        if self._which.shape != self._plan.shape[1:]:
            self._which = torch.empty_like(self._plan[0])
        self._transform = getattr(strategy.dataloader, "transform", None)

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Choose the step's batch."""
        if not len(self.memory):
            return
        step = strategy.clock.train_epoch_iterations
        self._which.copy_(self._plan[step])
        if self._transform is not None:
            seed = derive_seed(self.memory.seed, "replay transform", *self._place(strategy), step)
            self._draws = torch.Generator(strategy.device).manual_seed(seed)

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """Keep samples of the task."""
        self.memory.add(strategy.experience.current_experience)

    def recall(self) -> list[Tensor]:
        """Return the step's batch ``[images, labels, tasks]``, augmented as the task's own samples are."""
        memory, which = self.memory, self._which
        assert memory.images is not None
        images = memory.images.index_select(0, which)
        if self._transform is not None and self._draws is not None:
            images = self._transform(images, self._draws)
        return [images, memory.labels.index_select(0, which), memory.tasks.index_select(0, which)]

    def recordable(self) -> list[Tensor] | None:
        """Return the tensors that a step uses, for :class:`~cl_powerprop.training.graphs.Graphs`."""
        if self._transform is not None:  # draws from a new generator in each step
            return None
        memory = self.memory
        return [] if memory.images is None else [memory.images, memory.labels, memory.tasks, self._which]

    @staticmethod
    def _place(strategy: Any) -> tuple[int, int]:
        return strategy.experience.current_experience, strategy.clock.train_exp_epochs


def loss_of(strategy: Any, batch: list[Tensor], outputs: Tensor) -> Tensor:
    """Return the loss of a batch ``[images, labels, tasks]`` by the learner's own criterion."""
    own, strategy.mbatch = strategy.mbatch, batch
    own_outputs, strategy.mb_output = strategy.mb_output, outputs
    loss: Tensor = strategy.criterion()
    strategy.mbatch, strategy.mb_output = own, own_outputs
    return loss
