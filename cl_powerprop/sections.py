"""The sections of a config that belong to no part: how all parts are trained, and when they are tested."""

from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import (
    PRECISIONS,
    check_augmentation,
    check_clip_norm,
    check_label_smoothing,
    check_schedule,
    check_threads,
)


@dataclass
class TrainConfig:
    """`train`: the loop."""

    epochs: int
    batch_size: int
    eval_batch_size: int
    schedule: str
    warmup: float
    clip_norm: float | None
    threads: int
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    label_smoothing: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    crop: float = 1.0
    flip: bool = False
    steps: int | None = None

    def check(self) -> None:
        """Refuse what no loop can do.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_threads("train.threads", self.threads)
        for option in ("epochs", "batch_size", "eval_batch_size"):
            if getattr(self, option) < 1:
                raise ConfigurationError(f"train.{option} must be at least 1, not {getattr(self, option)}")
        if self.steps is not None and self.steps < 1:
            raise ConfigurationError(f"train.steps must be at least 1, or null for train.epochs, not {self.steps}")
        check_schedule(self.schedule, self.warmup)
        if self.clip_norm is not None:
            check_clip_norm(self.clip_norm)
        check_choice("train.precision", self.precision, PRECISIONS)
        check_label_smoothing(self.label_smoothing)
        check_augmentation(self.shift, self.rotate, self.crop)


SCHEDULES = ("every_task", "diagonal_and_last", "last")


@dataclass
class EvaluationConfig:
    """`evaluation`: when the tasks learned so far are tested, between tasks and within them."""

    schedule: str = "every_task"
    every_epochs: int | None = None
    every_steps: int | None = None

    @property
    def within_tasks(self) -> bool:
        """Whether tasks are also tested while one trains."""
        return self.every_epochs is not None or self.every_steps is not None

    def check(self) -> None:
        """Refuse what no evaluation can do.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_choice("evaluation.schedule", self.schedule, SCHEDULES)
        for option, value in (("every_epochs", self.every_epochs), ("every_steps", self.every_steps)):
            if value is not None and value < 1:
                raise ConfigurationError(f"evaluation.{option} must be at least 1, or null, not {value}")
        if self.every_epochs is not None and self.every_steps is not None:
            raise ConfigurationError("choose one of evaluation.every_epochs and evaluation.every_steps")
