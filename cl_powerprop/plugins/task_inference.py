"""Which task does a test batch belong to? The one whose mask makes the surest prediction.

As in Wortsman et al., "Supermasks in Superposition" (SupSup), NeurIPS 2020: among the masks of all learned tasks, take
the one whose prediction has the lowest entropy.
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
    """Replaces the prediction of a test batch by that of the mask with the lowest mean entropy over some samples.

    Comes after the plugin of the masks and after all that wants to see the prediction with the task known.

    Args:
        masking: the plugin that gives tasks their masks.
        batch: how many neighbouring samples of a test are known to be of one task and decide together. With 1 every
            sample is alone, and what is measured is class-incremental learning in the strict sense. Groups do not cross
            the batches of an evaluation.

    Attributes:
        identified: share of the samples whose task was found, by experience of the last ``strategy.eval``.
    """

    def __init__(self, masking: MaskingPlugin, batch: int) -> None:
        super().__init__()
        self.masking = masking
        self.batch = batch
        self.identified: dict[int, float] = {}
        self._right: Tensor | int = 0
        self._samples = 0

    def before_eval(self, strategy: Any, **_: Any) -> None:
        """Forget the evaluation before."""
        self.identified = {}

    def before_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Start counting anew."""
        self._right, self._samples = 0, 0

    @torch.no_grad()
    def after_eval_forward(self, strategy: Any, **_: Any) -> None:
        """Let every learned task predict, and keep the surest prediction of each group of samples."""
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
        """Return the entropy of each group of samples, summed; the last group may be smaller."""
        log_shares = output.log_softmax(1)
        entropy = -(log_shares.exp() * log_shares).sum(1)
        return functional.pad(entropy, (0, -len(entropy) % self.batch)).view(-1, self.batch).sum(1)

    def after_eval_exp(self, strategy: Any, **_: Any) -> None:
        """Keep the share of the experience."""
        self.identified[strategy.experience.current_experience] = int(self._right) / max(1, self._samples)


def _pick(outputs: list[Tensor], chosen: Tensor) -> Tensor:
    """Return row i of ``outputs[chosen[i]]``; heads of fewer classes are filled up with what never wins."""
    width = max(output.shape[1] for output in outputs)
    filled = [functional.pad(output, (0, width - output.shape[1]), value=NEVER) for output in outputs]
    return torch.stack(filled)[chosen, torch.arange(len(chosen), device=chosen.device)]
