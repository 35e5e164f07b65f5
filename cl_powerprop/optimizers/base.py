"""The options that every optimizer has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError, at_least, check_choice
from cl_powerprop.registry import T, door

SPACES = ("auto", "phi", "theta")


@dataclass(kw_only=True)
class OptimizerConfig:
    """Options of every optimizer.

    Attributes:
        name: name of the optimizer.
        lr: learning rate.
        weight_decay: weight decay of Linear and Conv weights; heads, biases and norms are not decayed.
        space: the gradient from which steps are computed with Powerpropagation: dL/dphi ("phi"), dL/dtheta ("theta"),
            or "auto", which is "theta" for adaptive optimizers and "phi" for SGD.
        power: scale the step in theta-space by ``alpha * |phi|^power`` (ReWA, for comparison); None is ``alpha - 1``,
            as in Powerpropagation, and leaves the space as it is.
    """

    name: str
    lr: float = 1.0e-3
    weight_decay: float = 0.0
    space: str = "auto"
    power: float | None = None

    def check(self) -> None:
        """Reject impossible values.

        Raises:
            ConfigurationError: naming the option and its choices.
        """
        check_choice("optimizer.space", self.space, SPACES)
        at_least("optimizer.lr, the learning rate,", self.lr, 0)
        at_least("optimizer.weight_decay", self.weight_decay, 0)
        if self.power is not None and self.space == "phi":
            raise ConfigurationError("optimizer.power scales the step in theta-space; leave optimizer.space=phi out")


def register_optimizer(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``optimizer=NAME``: ``optimizer(groups, config) -> torch.optim.Optimizer``.

    ``groups`` are parameter groups: the maskable weights, then all others, which have no weight decay. Arguments and
    errors are those of :func:`register_strategy`; the config is derived from :class:`OptimizerConfig`.
    """
    return door("optimizer", name, config, OptimizerConfig, aliases)
