"""What is tuned: overrides with ranges, as Hydra writes them, and the values that a trial gets.

`interval(a,b)` is a range of numbers, on a logarithmic scale as `tag(log,interval(a,b))`, and of whole ones as
`int(interval(a,b))`; `range(a,b,step)` has steps; `choice(a,b)`, or `a,b`, lists values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep
from hydra.errors import HydraException

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.overrides import explain_unreadable, prepare
from cl_powerprop.tuning.ranges import Choices, Numbers, Range, Value

_MOST_STEPS = 10_000  # values of a range with steps
_OWN = {
    "seed": "every trial has the same seed; try the best settings with others afterwards",
    "run_dir": "it is the folder of all trials",
}


@dataclass(frozen=True)
class Space:
    """What the trials have in common, and what differs between them.

    Attributes:
        fixed: overrides that hold for all.
        ranges: of each option that is tuned.
    """

    fixed: tuple[str, ...]
    ranges: dict[str, Range]

    @property
    def size(self) -> float:
        """How many combinations there are."""
        return math.prod(each.size for each in self.ranges.values())

    def overrides(self, values: dict[str, Value]) -> list[str]:
        """Return the overrides of a trial; an option without a value keeps its own. Test data is not measured."""
        given = [f"{key}={values[key]}" for key in self.ranges if key in values]
        return [*self.fixed, *given, "evaluation.schedule=never"]

    def samples(self) -> Iterator[dict[str, Value]]:
        """Yield combinations that tell whether all can be run: one option of the first is changed at a time."""
        first = {key: each.samples[0] for key, each in self.ranges.items()}
        yield first
        for key, each in self.ranges.items():
            for value in reversed(each.samples[1:]):  # the other end first, which messages had better name
                yield first | {key: value}
        yield {key: each.samples[-1] for key, each in self.ranges.items()}

    def combination(self, index: int) -> dict[str, Value]:
        """Return one of finitely many combinations."""
        values = {}
        for key, each in self.ranges.items():
            index, place = divmod(index, int(each.size))
            values[key] = each.value(place)
        return values


def parse_space(words: Sequence[str]) -> Space:
    """Return what the overrides of a command leave open.

    Raises:
        ConfigurationError: for an override that cannot be read, a range that holds nothing or has no end, an option
            that is not to be tuned; and if there is no range.
    """
    fixed: list[str] = []
    ranges: dict[str, Range] = {}
    for word, prepared in zip(words, prepare(words), strict=True):
        override = _parse(word, prepared)
        key = word.partition("=")[0]
        _check_own(word, override)
        if not override.is_sweep_override():
            fixed.append(word)
        elif key in ranges:
            raise ConfigurationError(f"{key} has two ranges")
        else:
            ranges[key] = _range(word, override)
    if not ranges:
        raise ConfigurationError(
            "nothing to tune: give at least one option a range, as in 'optimizer.lr=tag(log,interval(0.01,1))'"
        )
    return Space(tuple(fixed), ranges)


def _parse(word: str, prepared: str) -> Override:
    if word.startswith("-"):
        raise ConfigurationError(f"unknown option {word}: tune takes overrides, --trials, --objective and --jobs")
    try:
        return OverridesParser.create().parse_override(prepared)
    except HydraException as error:
        said = explain_unreadable(prepared) or f"cannot read {word!r}"
        if "interval(" in word or "range(" in word:
            said += "; a range has two ends, which are numbers, as in interval(0.1,1)"
        if "NoneType" in said:
            said = f"{word}: choice() takes no null; list the values without it, as in null,1"
        raise ConfigurationError(said) from error


def _check_own(word: str, override: Override) -> None:
    name = override.key_or_group
    if override.is_hydra_override():
        raise ConfigurationError(f"{word}: tune has no settings for Hydra")
    if name in _OWN and override.is_sweep_override():
        raise ConfigurationError(f"{name} cannot be tuned: {_OWN[name]}")
    if name in ("evaluation.schedule", "resume", "seeds_together"):
        raise ConfigurationError(f"{word}: tune sets {name} itself; leave it out")


def _range(word: str, override: Override) -> Range:
    sweep: Any = override.value()
    tags = set(getattr(sweep, "tags", ()))
    if tags - {"log"}:
        raise ConfigurationError(f"{word}: the only tag is log, not {', '.join(sorted(map(str, tags - {'log'})))}")
    if override.is_interval_sweep():
        return _numbers(word, sweep.start, sweep.end, None, "log" in tags)
    if override.is_range_sweep():
        return _steps(word, sweep, "log" in tags)
    if tags:
        raise ConfigurationError(f"{word}: a choice has no scale; log is for interval and range")
    if any(isinstance(each, Sweep) for each in getattr(sweep, "list", ())):
        raise ConfigurationError(f"{word}: a range within a list of values; give the option one range")
    try:
        values = tuple(dict.fromkeys(override.sweep_string_iterator()))
    except HydraException as error:
        raise ConfigurationError(f"{word}: list the values, as in choice(a,b)") from error
    if not values:
        raise ConfigurationError(f"{word}: a choice needs a value")
    return Choices(values)


def _numbers(word: str, low: Any, high: Any, step: Any, log: bool) -> Numbers:
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise ConfigurationError(f"{word}: the ends of a range are numbers")
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigurationError(f"{word}: a range needs two finite ends")
    if low > high:
        raise ConfigurationError(f"{word}: the first end is above the second one")
    if log and low <= 0:
        raise ConfigurationError(f"{word}: a logarithmic scale begins above 0")
    whole = isinstance(low, int) and isinstance(high, int)
    if whole and step is None:
        step = 1
    return Numbers(low, high, step, log)


def _steps(word: str, sweep: Any, log: bool) -> Range:
    """Return a range with steps, which leaves out its end as Hydra's does."""
    ends = (sweep.start, sweep.stop, sweep.step)
    if any(isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end) for end in ends):
        raise ConfigurationError(f"{word}: a range needs two finite ends, and a step")
    if not sweep.step:
        raise ConfigurationError(f"{word}: the step of a range is not 0")
    count = (sweep.stop - sweep.start) / sweep.step
    if count <= 0:
        raise ConfigurationError(f"{word} holds no value: it goes from {sweep.start} to below {sweep.stop}")
    if count > _MOST_STEPS:
        raise ConfigurationError(f"{word} holds more than {_MOST_STEPS:,} values; use interval({ends[0]},{ends[1]})")
    if not all(isinstance(end, int) for end in ends):
        if log:
            raise ConfigurationError(f"{word}: a logarithmic scale is for interval, or a range of whole numbers")
        start, stop, step = (Decimal(str(end)) for end in ends)  # 0.3 is no sum of binary numbers 0.1
        listed = (start + index * step for index in range(math.ceil((stop - start) / step)))
        return Choices(tuple(str(float(each)) for each in listed))
    values = sorted(sweep.range())
    step = abs(sweep.step)
    if log and step != 1:
        raise ConfigurationError(f"{word}: a logarithmic scale has no steps; use int(interval(a,b))")
    return _numbers(word, values[0], values[-1], step, log)
