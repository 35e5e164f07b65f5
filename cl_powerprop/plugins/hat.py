"""HAT: each task learns which hidden units it uses, by gates that become binary within every epoch.

Serra et al., "Overcoming Catastrophic Forgetting with Hard Attention to the Task", ICML 2018, arXiv:1801.01423,
section 2.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from cl_powerprop.limits import check_hat
from cl_powerprop.plugins.masking import MaskingPlugin
from cl_powerprop.plugins.unit_gates import UnitGates
from cl_powerprop.sparsity.allocator import Unmasked


class HATPlugin(MaskingPlugin):
    """Learns a gate for each hidden unit (of a convolution: channel) of a network whose layers follow one another.

    In training, gates are ``sigmoid(s * e)`` of an embedding ``e``, and ``s`` rises from ``1 / s_max`` to ``s_max``
    over each epoch; in an epoch of one batch it is ``s_max``. At the end the units with ``e > 0`` are the task's: its
    mask has the weights between them.

    Args:
        c: weight of the regulariser, the mean gate of units that no earlier task uses.
        s_max: the largest scale of the gates, at least 1.
        gate_lr: learning rate of the embeddings, times the optimizer's.
        retrain_epochs, unmasked, seed: see :class:`MaskingPlugin`; the paper retrains nothing.

    Raises:
        ConfigurationError: for a value outside its range.
    """

    def __init__(
        self,
        c: float = 0.75,
        s_max: float = 400.0,
        gate_lr: float = 1.0,
        retrain_epochs: int = 0,
        unmasked: Unmasked = "frozen",
        seed: int = 0,
    ) -> None:
        super().__init__(retrain_epochs, unmasked, seed)
        check_hat(c, s_max, gate_lr)
        self.c = c
        self.learned: UnitGates = UnitGates(s_max, gate_lr, seed)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"c": self.c}

    def graph_tensors(self, strategy: Any) -> Iterable[Tensor]:
        return [*super().graph_tensors(strategy), *(self.learned.tensors if self.learned.is_attached else ())]

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """Set the scale of this step."""
        if self.learned.is_attached:
            others = len(strategy.dataloader) - 1
            done = strategy.clock.train_epoch_iterations / others if others > 0 else 1.0
            self.learned.set_scale(min(1.0, done))

    def before_backward(self, strategy: Any, **_: Any) -> None:
        """Add the regulariser to the loss."""
        if self.learned.is_attached:
            strategy.loss = strategy.loss + self.c * self.learned.regulariser()

    def after_backward(self, strategy: Any, **_: Any) -> None:
        """Compensate the gradients of the embeddings."""
        if self.learned.is_attached:
            self.learned.compensate()

    def after_update(self, strategy: Any, **_: Any) -> None:
        """Restore the frozen weights, and limit the embeddings."""
        super().after_update(strategy)
        if self.learned.is_attached:
            self.learned.limit()

    def choose_masks(self, strategy: Any) -> dict[str, Tensor]:
        """Return the weights between units in use."""
        masks = self.learned.masks()
        self.learned.close()
        return masks
