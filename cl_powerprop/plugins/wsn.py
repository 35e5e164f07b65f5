"""Winning SubNetworks: a task learns weights and the scores that choose its mask at the same time.

Kang et al., "Forget-free Continual Learning with Winning Subnetworks", ICML 2022, section 3 and algorithm 1.
"""

from typing import Any

from torch import Tensor

from cl_powerprop.plugins.learned_scores import LearnedScores
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.sparsity.allocator import Unmasked


class WSNPlugin(MaskingPlugin):
    """Trains each task through the top share of each layer by learned scores, frozen weights included.

    In each step the weights that the mask has at that moment are trained, except those in the mask of an earlier task,
    and the scores of all weights are. The mask at the end of training is the task's.

    Args:
        density: share of each layer's weights in a mask, in (0, 1]; ``c`` in the paper.
        score_lr: learning rate of the scores, times the optimizer's.
        reset_scores: draw the scores anew for each task; in the paper they go on from task to task.
        retrain_epochs, unmasked, seed: see :class:`MaskingPlugin`; the paper's algorithm retrains nothing.

    Raises:
        ConfigurationError: for a value outside its range.
    """

    def __init__(
        self,
        density: float = 0.1,
        score_lr: float = 1.0,
        reset_scores: bool = False,
        retrain_epochs: int = 0,
        unmasked: Unmasked = "frozen",
        seed: int = 0,
    ) -> None:
        super().__init__(retrain_epochs, unmasked, seed)
        self.learned: LearnedScores = LearnedScores(density, score_lr, reset_scores, seed)

    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        return self.learned.masks()
