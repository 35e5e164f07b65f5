"""What every model's options have."""

from dataclasses import dataclass

from cl_powerprop.errors import check_choice

HEADS = ("shared", "per_task")
BIASES = ("none", "per_task", "frozen")


@dataclass(kw_only=True)
class ModelConfig:
    """What every `model` has; an option that a model adds is an argument of the function that makes it.

    Attributes:
        name: of the model.
        alpha: Powerpropagation's; 1 is the ordinary network.
        init_scale: multiplies initial weights.
        heads: one output layer for all tasks ("shared"), or one for each ("per_task").
        bias: what becomes of all that is not masked: "none", a value for each task ("per_task"), or frozen after the
            first task ("frozen").
    """

    name: str
    alpha: float = 2.0
    init_scale: float = 1.0
    heads: str = "per_task"
    bias: str = "per_task"

    def check(self) -> None:
        """Refuse a value that no model can have.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_choice("model.heads", self.heads, HEADS)
        check_choice("model.bias", self.bias, BIASES)
