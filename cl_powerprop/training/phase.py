"""The phases of a task's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """Some epochs of a task with their own learning-rate schedule, which starts at ``scale`` times the base rate."""

    epochs: int
    scale: float = 1.0
