"""The phases of a task's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Some epochs of a task with a learning-rate schedule of their own, which starts at ``scale`` times the rate."""

    epochs: int
    scale: float = 1.0
