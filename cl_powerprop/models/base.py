"""The options that every model has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cl_powerprop.errors import check_choice
from cl_powerprop.limits import INITS, check_alpha, check_init_scale, check_reparam
from cl_powerprop.registry import T, door

HEADS = ("shared", "per_task")
BIASES = ("none", "per_task", "frozen")


@dataclass(kw_only=True)
class ModelConfig:
    """Options of every model; those that a model adds become arguments of the function that makes it.

    Attributes:
        name: name of the model.
        alpha: exponent of Powerpropagation; 1 is the ordinary network.
        reparam: "powerprop", or "product": a weight is the product of two trained factors, for comparison; alpha is 2.
        init_scale: factor of the initial weights.
        init: how they are drawn: as torch does for each layer ("default"), or from a normal distribution of variance
            1 / fan-in, truncated at two deviations, with biases 0 ("truncated_normal").
        heads: one output layer for all tasks ("shared"), or one per task ("per_task").
        bias: biases and affine norms, which masks do not cover: "none", own values for each task ("per_task"), or
            frozen after the first task ("frozen").
    """

    name: str
    alpha: float = 2.0
    reparam: str = "powerprop"
    init_scale: float = 1.0
    init: str = "default"
    heads: str = "per_task"
    bias: str = "per_task"

    def check(self) -> None:
        """Reject impossible values.

        Raises:
            ConfigurationError: naming the option and its choices.
        """
        check_choice("model.heads", self.heads, HEADS)
        check_choice("model.bias", self.bias, BIASES)
        check_alpha(self.alpha)
        check_reparam(self.reparam, self.alpha)
        check_init_scale(self.init_scale)
        check_choice("model.init", self.init, INITS)


def register_model(name: str, config: type | None = None, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``model=NAME``: ``model(sample_shape, *, bias, **options) -> nn.Module``.

    It returns features, over which heads are put; ``options`` are what its config adds to :class:`ModelConfig`.
    Arguments and errors are those of :func:`register_strategy`; the config is :class:`ModelConfig` or derived from it.
    """
    return door("model", name, config or ModelConfig, ModelConfig, aliases)
