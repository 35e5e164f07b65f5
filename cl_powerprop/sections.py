"""The sections of a config that belong to no part: how all parts are trained, and when they are tested."""

from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import (
    CUDA_GRAPHS,
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
    cuda_graphs: str = "auto"

    def __post_init__(self) -> None:
        self.cuda_graphs = self.cuda_graphs.lower()  # YAML's true is a name here

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
        check_choice("train.cuda_graphs", self.cuda_graphs, CUDA_GRAPHS)
        check_label_smoothing(self.label_smoothing)
        check_augmentation(self.shift, self.rotate, self.crop)


SCHEDULES = ("every_task", "diagonal_and_last", "last", "never")


@dataclass
class EvaluationConfig:
    """`evaluation`: when the tasks learned so far are tested, between tasks and within them."""

    schedule: str = "every_task"
    every_epochs: int | None = None
    every_steps: int | None = None

    @property
    def tests(self) -> bool:
        """Whether test data is measured at all."""
        return self.schedule != "never"

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
        if self.within_tasks and not self.tests:
            raise ConfigurationError(
                "evaluation.every_epochs and evaluation.every_steps test within tasks, and evaluation.schedule=never "
                "tests nothing"
            )


@dataclass
class CheckpointConfig:
    """`checkpoint`: when a run writes where it stands, so that it can go on from there.

    Attributes:
        every_epochs, every_seconds: how long after the last checkpoint the next one is due; None for never.
        max_share: of a run's time that checkpoints may take; 1 for no limit.
    """

    every_epochs: int | None = 1
    every_seconds: float | None = 60.0
    max_share: float = 0.02

    def check(self) -> None:
        """Refuse what is no interval.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        if self.every_epochs is not None and self.every_epochs < 1:
            raise ConfigurationError(f"checkpoint.every_epochs must be at least 1, or null, not {self.every_epochs}")
        if self.every_seconds is not None and not self.every_seconds >= 0.0:
            raise ConfigurationError(f"checkpoint.every_seconds must be at least 0, or null, not {self.every_seconds}")
        if not 0.0 < self.max_share <= 1.0:
            raise ConfigurationError(f"checkpoint.max_share must be above 0 and at most 1, not {self.max_share}")
