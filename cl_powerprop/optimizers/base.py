"""What every optimizer's options have."""

from dataclasses import dataclass

from cl_powerprop.errors import check_choice

SPACES = ("auto", "phi", "theta")


@dataclass(kw_only=True)
class OptimizerConfig:
    """What every `optimizer` has.

    Attributes:
        name: of the optimizer.
        lr: learning rate.
        weight_decay: of masked weights; heads, biases and norms have none.
        space: what the step is computed from with Powerpropagation: dL/dphi ("phi"), dL/dtheta ("theta"), or "auto",
            which is theta for an adaptive optimizer.
    """

    name: str
    lr: float = 1.0e-3
    weight_decay: float = 0.0
    space: str = "auto"

    def check(self) -> None:
        """Refuse a value that no optimizer can have.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """
        check_choice("optimizer.space", self.space, SPACES)
