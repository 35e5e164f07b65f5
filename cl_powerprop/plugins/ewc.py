"""Elastic weight consolidation in Avalanche's events, with a penalty that is computed on the device alone."""

from collections.abc import Iterable
from typing import Any

import torch
from avalanche.models.utils import is_multi_task_module
from avalanche.training.plugins import EWCPlugin
from avalanche.training.utils import ParamData, zerolike_params_dict
from torch import Tensor, nn

from cl_powerprop.plugins.quadratic_penalty import trained_parameters
from cl_powerprop.sparsity.powerprop import to_theta
from cl_powerprop.sparsity.theta_space import theta_gradients
from cl_powerprop.training.loaders import statistics_batches
from cl_powerprop.training.tensor_data import find_tensors


class DeviceEWC(EWCPlugin):  # type: ignore[misc]
    """Avalanche's ``EWCPlugin`` with the same numbers, and importances that are computed on whole batches.

    Its steps can be recorded: none copies a number to the GPU. Where the optimizer steps in theta-space, gradients are
    those of ``theta``, and distances are too.
    """

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """Look up the parameters whose gradient is one of theta."""
        self._alphas = theta_gradients(strategy.model)

    def graph_tensors(self, strategy: Any) -> Iterable[Tensor]:
        tables = (self.saved_params, self.importances)
        return [kept.data for table in tables for values in table.values() for kept in values.values()]

    def compute_importances(
        self,
        model: nn.Module,
        criterion: Any,
        optimizer: Any,
        dataset: Any,
        device: torch.device,
        batch_size: int,
        num_workers: int = 0,
    ) -> dict[str, ParamData]:
        """Return the mean over batches of the squared gradient of each batch.

        Data that is not in tensors is loaded by Avalanche, sample by sample.
        """
        tasks = list(dataset.targets_task_labels.uniques)
        if find_tensors(dataset) is None or len(tasks) > 1 or is_multi_task_module(model):
            importances: dict[str, ParamData] = super().compute_importances(
                model, criterion, optimizer, dataset, device, batch_size, num_workers
            )
            return importances
        sums = zerolike_params_dict(model)
        parameters, batches = trained_parameters(model), 0
        model.eval()
        for images, labels, _ in statistics_batches(dataset, tasks[0], batch_size, device, join_lone=False):
            loss = criterion(model(images), labels)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:  # the head of another task has none
                    sums[name].data += gradient.pow(2)
            batches += 1
        for total in sums.values():
            total.data /= float(batches)
        model.train()
        return sums  # type: ignore[no-any-return]

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the penalty to the loss."""
        learned = strategy.clock.train_exp_counter
        if not learned:
            return
        penalty = torch.zeros((), device=strategy.device)
        for task in range(learned) if self.mode == "separate" else (learned - 1,):
            saved, importances = self.saved_params[task], self.importances[task]
            for name, parameter in strategy.model.named_parameters():
                if name in saved:
                    now, then = parameter, saved[name].expand(parameter.shape)
                    alpha = self._alphas.get(name, 1.0)
                    if alpha != 1.0:
                        phi = parameter.detach()
                        # The value is theta; the derivative is 1, for the optimizer is to get that of theta.
                        now, then = parameter + (to_theta(phi, alpha) - phi), to_theta(then, alpha)
                    distance = now - then
                    penalty += (importances[name].expand(parameter.shape) * distance.pow(2)).sum()
        strategy.loss += self.ewc_lambda * penalty
