"""Task inference: test samples are assigned to the task whose mask makes the most confident predictions.

As in Wortsman et al., "Supermasks in Superposition" (SupSup), NeurIPS 2020: among the masks of all learned tasks, take
the one whose predictions have the lowest entropy.
"""

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn import functional

from cl_powerprop.networks.heads import NEVER
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity import select_task


class EntropyTaskInference(SupervisedPlugin):  # type: ignore[misc]
    """Replaces the predictions for a group of test samples by those of the mask with the lowest mean entropy.

    It must come after the masking plugin and after all plugins that need the predictions for the known task.

    Args:
        masking: the plugin that gives tasks their masks.
        batch: size of the groups: so many consecutive test samples are known to belong to one task and are assigned
            together. With 1 every sample is assigned on its own, which is class-incremental learning in the strict
            sense. Groups do not cross the batches of an evaluation.

    Attributes:
        identified: share of samples whose task was inferred correctly, by experience of the learner's last ``eval``.
    """

    def __init__(self, masking: MaskingPlugin, batch: int) -> None:
        super().__init__()
        self.masking = masking
        self.batch = batch
        self.identified: dict[int, float] = {}
        self._right: Tensor | int = 0
        self._samples = 0

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Discard the previous evaluation."""
        self.identified = {}

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Reset the counts."""
        self._right, self._samples = 0, 0

    @torch.no_grad()
    def after_eval_forward(self, strategy: Any, **_: Any) -> None:
        """Predict with the mask of every learned task, and keep the most confident predictions of each group."""
        allocator, images = self.masking.allocator, strategy.mb_x
        outputs, entropies = [], []
        for task in range(allocator.tasks):
            select_task(allocator.model, task)
            outputs.append(allocator.model(images))
            entropies.append(self._by_group(outputs[-1]))
        chosen = torch.stack(entropies).argmin(0).repeat_interleave(self.batch)[: len(images)]
        strategy.mb_output = _pick(outputs, chosen)
        true = self.masking.task_of(strategy.experience)
        self._right = self._right + (chosen == true).sum()
        self._samples += len(images)
        select_task(allocator.model, true)

    def _by_group(self, output: Tensor) -> Tensor:
        """Return the summed entropy of each group of samples; the last group may be smaller."""
        log_probabilities = output.log_softmax(1)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(1)
        return functional.pad(entropy, (0, -len(entropy) % self.batch)).view(-1, self.batch).sum(1)

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Keep the share of the experience."""
        self.identified[strategy.experience.current_experience] = int(self._right) / max(1, self._samples)


def _pick(outputs: list[Tensor], chosen: Tensor) -> Tensor:
    """Return row i of ``outputs[chosen[i]]`` for every i, padded with :data:`NEVER` to the width of the widest head."""
    width = max(output.shape[1] for output in outputs)
    filled = [functional.pad(output, (0, width - output.shape[1]), value=NEVER) for output in outputs]
    return torch.stack(filled)[chosen, torch.arange(len(chosen), device=chosen.device)]
