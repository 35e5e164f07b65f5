"""The options that every way of sparse training has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.limits import DISTRIBUTIONS, SHARES_OF, check_sparsity
from cl_powerprop.registry import T, door
from cl_powerprop.training.phase import Phase

if TYPE_CHECKING:
    from cl_powerprop.sparsity import Distribution
    from cl_powerprop.strategies.base import Strategy


@dataclass(kw_only=True)
class SparsityConfig:
    """What every `sparsity` has: its name. A way of sparse training has the options of :class:`SparseConfig` as well.

    Attributes:
        name: name of the choice.
    """

    name: str = "none"

    def check(self) -> None:
        """Refuse impossible values, before anything is loaded.

        Raises:
            ConfigurationError: naming the option and what it can be.
        """

    def check_strategy(self, name: str, strategy: Strategy, n_tasks: int) -> None:
        """Refuse a continual-learning strategy, or a number of tasks, that this does not go with.

        Raises:
            ConfigurationError: saying what it goes with.
        """

    def check_untested(self) -> None:
        """Refuse what needs test data, for a run that measures none.

        Raises:
            ConfigurationError: naming the option.
        """

    def facts(self) -> dict[str, Any]:
        """Return what runs are named and compared by: the controller and the sparsity it is to reach; None if dense."""
        return {"controller": None, "target_sparsity": None}

    def phases(self, phases: list[Phase]) -> list[Phase]:
        """Return the phases over each of which the learning rate runs through its schedule."""
        return phases


@dataclass(kw_only=True)
class SparseConfig(SparsityConfig):
    """Options of every way of sparse training.

    Attributes:
        target: share of the masked weights that are not used in the end, in [0, 1).
        distribution: of the weights that are used among the layers: "uniform", "erk" or "global".
        erk_power: of ERK's ratio; 0 is uniform.
        last_scale: for "uniform": the last layer has so many times the density of the others.
        exempt: layers that stay dense: names with * and ?, "first", "last", or types such as "Conv2d".
        share_of: what the target is a share of: "masked" weights, or "all", with those of exempt layers.
        curve: densities at which the trained network is also tested, pruned by magnitude without retraining.
    """

    target: float = 0.9
    distribution: str = "erk"
    erk_power: float = 1.0
    last_scale: float = 1.0
    exempt: list[str] = field(default_factory=list)
    share_of: str = "masked"
    curve: list[float] = field(default_factory=list)

    def check(self) -> None:
        check_sparsity("sparsity.target", self.target)
        check_choice("sparsity.distribution", self.distribution, DISTRIBUTIONS)
        check_choice("sparsity.share_of", self.share_of, SHARES_OF)
        if not 0.0 <= self.erk_power < float("inf"):
            raise ConfigurationError(f"sparsity.erk_power must be a finite number of at least 0, not {self.erk_power}")
        if not 0.0 < self.last_scale < float("inf"):
            raise ConfigurationError(f"sparsity.last_scale must be a finite number above 0, not {self.last_scale}")
        if self.last_scale != 1.0 and self.distribution != "uniform":
            raise ConfigurationError("sparsity.last_scale is for sparsity.distribution=uniform")
        if any(not 0.0 < density <= 1.0 for density in self.curve):
            raise ConfigurationError(f"sparsity.curve needs densities in (0, 1], not {self.curve}")

    def check_untested(self) -> None:
        if self.curve:
            raise ConfigurationError("sparsity.curve tests the network, and evaluation.schedule=never tests nothing")

    def check_strategy(self, name: str, strategy: Strategy, n_tasks: int) -> None:
        if not strategy.takes_sparsity:
            raise ConfigurationError(
                f"sparsity={self.name} does not go with strategy={name}, which has masks or networks of its own; it "
                "goes with those that train one network without masks: strategy=naive, joint, ewc and other baselines"
            )

    def facts(self) -> dict[str, Any]:
        return {"controller": self.name, "target_sparsity": self.target}

    def shared(self, seed: int) -> dict[str, Any]:
        """Return the arguments of every :class:`~cl_powerprop.sparsity.Controller`; per-task heads stay dense."""
        from cl_powerprop.networks.heads import TaskHeads

        return {
            "sparsity": self.target,
            "distribution": self._distribution(),
            "exempt": (*self.exempt, TaskHeads),
            "share_of": self.share_of,
            "seed": seed,
        }

    def _distribution(self) -> Distribution:
        from cl_powerprop.sparsity import ErdosRenyiKernel, Global, Uniform

        made: dict[str, Callable[[], Distribution]] = {
            "uniform": lambda: Uniform(self.last_scale),
            "erk": lambda: ErdosRenyiKernel(self.erk_power),
            "global": Global,
        }
        return made[self.distribution]()


def to_steps(option: str, value: float, total: int) -> int:
    """Return a point of the training as a number of steps.

    Args:
        option: its name, for the message.
        value: a share of the training up to 1, or a number of steps above 1.
        total: steps of the whole training.

    Raises:
        ConfigurationError: if it is after the end of training.
    """
    steps = round(value * total) if value <= 1.0 else int(value)
    if steps > total:
        raise ConfigurationError(f"{option}={value:g} is after the end of training, which has {total:,} steps")
    return steps


def check_point(option: str, value: float, least: float = 0.0) -> None:
    """Refuse what is no point of a training: a share up to 1, or a number of steps above 1.

    Raises:
        ConfigurationError: if it is not.
    """
    if not least <= value < float("inf") or (value > 1.0 and value != int(value)):
        raise ConfigurationError(
            f"{option} must be a share of the training, from {least:g} to 1, or a whole number of steps, not {value:g}"
        )


def check_interval(every: int) -> None:
    """Refuse an interval without a step.

    Raises:
        ConfigurationError: for one below 1.
    """
    if every < 1:
        raise ConfigurationError(f"sparsity.every must be at least 1 step, not {every}")


def register_sparsity(name: str, config: type, *, aliases: Sequence[str] = ()) -> Callable[[T], T]:
    """Make a function the choice ``sparsity=NAME``: ``f(model, optimizer, config, *, steps, seed) -> Controller``.

    ``steps`` are those of the whole training, over all tasks. It returns None to train densely. Arguments and errors
    are those of :func:`register_strategy`; the config is derived from :class:`SparsityConfig`.
    """
    return door("sparsity", name, config, SparsityConfig, aliases)
