"""Training by several processes: each on its part of every batch, all by the gradient of the whole batch.

The order of samples and all random numbers are those of a single process. Gradients are added up in one exchange after
the backward pass: unlike torch's ``DistributedDataParallel``, this allows for parameters that get no gradient, such as
those of other tasks' heads, and for plugins that add terms to the loss.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.process_group import collective
from cl_powerprop.sparsity.ranks import check_same_on_ranks
from cl_powerprop.training.batches import Share, divide
from cl_powerprop.training.fast import FastSupervisedTemplate
from cl_powerprop.training.loaders import MixedLoader


class DistributedTemplate(FastSupervisedTemplate):
    """A :class:`FastSupervisedTemplate` in each process of a group, which has been joined.

    Every process evaluates all samples. Batch norms take the statistics of a process's own part of a batch, as is
    usual; those that they keep for evaluation are the first process's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.share = Share(distributed.get_rank(), distributed.get_world_size())
        self._distributed_check = True  # Avalanche warns of plugins that do not say that they are made for this
        self._batches: list[slice] = []

    def make_train_dataloader(self, shuffle: bool = True, drop_last: bool = False, **options: Any) -> None:
        """Load the process's part of every batch.

        Raises:
            ConfigurationError: for data that is not loaded in parts, or a last batch that is too small for all.
        """
        super().make_train_dataloader(shuffle, drop_last, **options)
        if getattr(self.dataloader, "share", None) != self.share:
            raise ConfigurationError("data that Avalanche's own loader mixes is trained on by one process, not several")
        if isinstance(self.dataloader, MixedLoader) and any(
            isinstance(each, TaskHeads) for each in self.model.modules()
        ):
            raise ConfigurationError(
                "several processes cannot train the heads of single tasks on batches that mix tasks; use "
                "model.heads=shared, or one process"
            )
        self._batches = divide(len(self.adapted_dataset), self.train_mb_size)
        last, ranks = self._batches[-1], self.share.ranks
        least = 2 if any(isinstance(module, _BatchNorm) for module in self.model.modules()) else 1
        if (last.stop - last.start) // ranks < least:
            raise ConfigurationError(
                f"the last of {len(self.adapted_dataset)} samples in batches of {self.train_mb_size} are "
                f"{last.stop - last.start}, too few for {ranks} processes; change train.batch_size"
            )

    def backward(self) -> None:
        """Compute the gradient of the mean loss over the whole batch."""
        batch = self._batches[self.clock.train_epoch_iterations]
        weight = len(self.mb_y) / (batch.stop - batch.start)
        (self.loss * weight).backward(retain_graph=self.retain_graph)
        gradients = [value.grad for value in self._trained() if value.grad is not None]
        if gradients:
            flat = self.sum_over_ranks(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            parts = flat.split([gradient.numel() for gradient in gradients])
            summed = [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(gradients, summed)

    def _trained(self) -> Iterable[Tensor]:
        """Return the parameters of the model, and what the optimizer moves beside them, such as scores of masks."""
        moved = (value for group in self.optimizer.param_groups for value in group["params"])
        return {id(value): value for value in (*self.model.parameters(), *moved)}.values()

    def training_epoch(self, **options: Any) -> None:
        """Run one epoch; afterwards all processes have the same network.

        Raises:
            RuntimeError: if they have not.
        """
        super().training_epoch(**options)
        with collective():
            for buffer in self.model.buffers():
                if buffer.is_floating_point():
                    distributed.broadcast(buffer, src=0)
            check_same_on_ranks(self.model.state_dict().values(), "the networks")

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, in its place."""
        with collective():
            distributed.all_reduce(values)
        return values
