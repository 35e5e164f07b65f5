"""When a mask changes, how sparse the network is at a step, and which share of it is exchanged."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

from cl_powerprop.errors import ConfigurationError


def check_steps(**steps: int) -> None:
    """Refuse what is no whole number of steps, by name.

    Raises:
        ConfigurationError: saying how to get the steps from a share of the training.
    """
    for option, value in steps.items():
        try:
            operator.index(value)
        except TypeError:
            raise ConfigurationError(
                f"{option} must be a whole number of steps, not {value!r}; a share of the training is "
                "round(share * steps)"
            ) from None


@dataclass(frozen=True)
class Updates:
    """The steps after which a mask changes: ``start``, then every ``every`` steps, up to ``stop``.

    Attributes:
        start: first of them; steps are counted from 1.
        stop: none is later.
        every: steps from one to the next.

    Raises:
        ConfigurationError: for what is no whole number, an interval below 1, or a stop before the start.
    """

    start: int
    stop: int
    every: int

    def __post_init__(self) -> None:
        check_steps(stop=self.stop, every=self.every, start=self.start)
        if self.stop < 0:
            raise ConfigurationError(f"stop must be at least 0, not {self.stop}")
        if self.every < 1:
            raise ConfigurationError(f"every must be at least 1 step, not {self.every}")
        if not 0 <= self.start <= self.stop:
            raise ConfigurationError(f"start must be from 0 to stop={self.stop}, not {self.start}")

    def __contains__(self, step: int) -> bool:
        return self.start <= step <= self.stop and (step - self.start) % self.every == 0

    @property
    def last(self) -> int:
        """The last update."""
        return self.stop - (self.stop - self.start) % self.every


def cubic(step: int, start: int, stop: int, final: float, initial: float = 0.0) -> float:
    """Return the sparsity at a step: fast growth from ``initial`` at ``start``, then ever slower to ``final``.

    Zhu & Gupta, "To prune, or not to prune", 2017, arXiv:1710.01878, equation 1. It is ``final`` exactly from ``stop``
    on.
    """
    if step >= stop:
        return final
    left = 1.0 - max(step - start, 0) / (stop - start)
    return final + (initial - final) * left**3


def geometric(pruned: int, rounds: int, final: float) -> float:
    """Return the sparsity after some of several rounds of which each keeps the same share of the weights.

    Han et al., "Learning both weights and connections", NeurIPS 2015.
    """
    return final if pruned >= rounds else 1.0 - (1.0 - final) ** (pruned / rounds)


Decay = Callable[[int, int], float]
"""``(step, stop) -> factor`` of the drop fraction, from 1 at step 0."""


def constant_decay(step: int, stop: int) -> float:
    """Return 1: the same share is exchanged at every update."""
    return 1.0


def linear_decay(step: int, stop: int) -> float:
    """Return a factor that falls evenly to 0 at ``stop``."""
    return max(0.0, 1.0 - step / stop)


def cosine_decay(step: int, stop: int) -> float:
    """Return half a cosine, from 1 to 0 at ``stop`` (Evci et al. 2020, section 3)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(step / stop, 1.0)))


DECAYS: dict[str, Decay] = {"cosine": cosine_decay, "constant": constant_decay, "linear": linear_decay}
