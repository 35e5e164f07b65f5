"""What values an option that is tuned can have: some that are listed, or numbers between two ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Value = str | int | float

_MOST_SAMPLES = 30  # values of a choice that are tried out before any trial runs


class Range(Protocol):
    """The values that an option can have.

    Attributes:
        written: the range, as Hydra has it.
    """

    @property
    def written(self) -> str:
        """The range in one line: two that are equal have the same."""

    @property
    def samples(self) -> Sequence[Value]:
        """Some values that tell whether the option can have all of them: the first and the last are its ends."""

    @property
    def size(self) -> float:
        """How many values there are."""

    def value(self, index: int) -> Value:
        """Return one of finitely many values."""

    def has(self, value: object) -> bool:
        """Return whether this is one of the values."""

    def find(self, value: object) -> Value | None:
        """Return the value of the range that gives an option this one; None if there is none."""

    def distribution(self) -> BaseDistribution:
        """Return Optuna's name for it."""


@dataclass(frozen=True)
class Choices:
    """Some values, each as it stands in an override."""

    values: tuple[str, ...]

    @property
    def written(self) -> str:
        return f"choice({','.join(self.values)})"

    @property
    def samples(self) -> Sequence[Value]:
        step = max(1, len(self.values) // _MOST_SAMPLES)
        return [*self.values[:-1:step], self.values[-1]]

    @property
    def size(self) -> float:
        return len(self.values)

    def value(self, index: int) -> Value:
        return self.values[index]

    def has(self, value: object) -> bool:
        return value in self.values

    def find(self, value: object) -> Value | None:
        return next((each for each in self.values if _read(each) == value), None)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


@dataclass(frozen=True)
class Numbers:
    """All numbers of one type from ``low`` to ``high``, both included, or those that ``step`` leads to from ``low``.

    Attributes:
        step: None for a continuous range.
        log: whether the scale is logarithmic.
    """

    low: int | float
    high: int | float
    step: int | float | None
    log: bool

    @property
    def written(self) -> str:
        step = "" if self.step is None else f", in steps of {self.step}"
        return f"from {self.low} to {self.high}{step}{', log' if self.log else ''}"

    @property
    def samples(self) -> Sequence[Value]:
        between = self.low + (self.high - self.low) / math.pi  # no round number: some options have whole ones only
        return (self.low, self.high) if isinstance(self.low, int) else (self.low, between, self.high)

    @property
    def size(self) -> float:
        if self.low == self.high:
            return 1
        return math.inf if self.step is None else round((self.high - self.low) / self.step) + 1

    def value(self, index: int) -> Value:
        return self.low + index * (self.step or 0)

    def has(self, value: object) -> bool:
        return type(value) is type(self.low) and self.find(value) == value

    def find(self, value: object) -> Value | None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return None
        found = type(self.low)(value)
        off = 0 if self.step is None else (found - self.low) % self.step
        return found if found == value and not off else None

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if isinstance(self.low, int):
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)


def _read(text: str) -> object:
    """Return what Hydra reads in a value of a choice."""
    try:
        return float(text)
    except ValueError:
        value: Any = OverridesParser.create().parse_override(f"key={text}").value()
        return getattr(value, "text", value)
