"""Label smoothing for samples of several tasks, whose heads have different numbers of classes."""

from torch import Tensor
from torch.nn.functional import nll_loss

from cl_powerprop.networks.heads import NEVER


def smoothed_loss(outputs: Tensor, labels: Tensor, share: float) -> Tensor:
    """Return the mean cross-entropy, a share of each label being spread over the classes that its sample's head has.

    Without padding it is ``cross_entropy(outputs, labels, label_smoothing=share)`` (Szegedy et al. 2016, section 7).

    Args:
        outputs: logits ``[n, classes]``, those of narrower heads padded with :data:`NEVER`.
        labels: int64 ``[n]``.
        share: in [0, 1).
    """
    log_probabilities = outputs.log_softmax(1)
    has = outputs > NEVER
    spread = -(log_probabilities * has).sum(1) / has.sum(1)
    return (1.0 - share) * nll_loss(log_probabilities, labels) + share * spread.mean()
