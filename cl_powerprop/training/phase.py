"""The phases of a task's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Some epochs of a task, fractions included, with a learning-rate schedule of their own.

    Attributes:
        epochs: how many.
        scale: the schedule starts at so many times the base rate.
    """

    epochs: float
    scale: float = 1.0
