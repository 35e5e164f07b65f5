"""What a network is judged by on validation samples: its accuracy, or the likelihood of the right answers.

Schwarz et al. 2021, algorithm 1, hold the accuracy. With few samples, one of them is worth half a per cent or more; the
likelihood also says how sure each answer is, and therefore varies less.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Judge:
    """Judges outputs sample by sample; a network's value is the mean over samples.

    Attributes:
        score: ``(logits [..., n, classes], labels int64 [..., n]) -> [..., n]``, the value of each sample.
        lowest: the least that a sample can add.
        highest: the most that a sample can add.
        counts: values are 0 or 1, so that their sum does not depend on how it is computed.
        target: ``(gamma, mean) -> mean``, what a mask must reach to hold the share gamma of what was reached.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    lowest: float
    highest: float
    counts: bool
    target: Callable[[float, float], float]


def _is_right(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.argmax(-1) == labels


def _log_likelihood(outputs: Tensor, labels: Tensor) -> Tensor:
    return outputs.double().log_softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)


JUDGE_BY_NAME = {
    "accuracy": Judge(_is_right, 0, 1, True, lambda gamma, mean: gamma * mean),
    # A share of the geometric mean of the likelihoods.
    "loss": Judge(_log_likelihood, -math.inf, 0.0, False, lambda gamma, mean: mean + math.log(gamma)),
}
"""The choices of ``strategy.judge``."""
