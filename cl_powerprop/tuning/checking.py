"""Whether all that a space holds can be run and compared, found out before any trial runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cl_powerprop.composition import compose
from cl_powerprop.config import RunConfig
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.tuning.settings import settings_of
from cl_powerprop.tuning.space import Space

if TYPE_CHECKING:
    from cl_powerprop.tuning.ranges import Value


def check_space(space: Space) -> RunConfig:
    """Return a config that the space holds, after some others were checked that tell whether all can be run.

    Raises:
        ConfigurationError: for values that no run can have, a range over what is measured rather than how it is
            learned, and a range that changes nothing.
    """
    samples = list(space.samples())
    configs = [_checked(space, values) for values in samples]
    first = configs[0]
    for values, config in zip(samples, configs, strict=True):
        if (config.benchmark, config.data) != (first.benchmark, first.data):
            changed = next(key for key in values if values[key] != samples[0][key])
            raise ConfigurationError(
                f"{changed} cannot be tuned: validation accuracies on other data or tasks cannot be compared"
            )
    for key in space.ranges:
        if len(set(space.ranges[key].samples)) > 1 and not _has_effect(space, key, samples):
            raise ConfigurationError(
                f"{key} cannot be tuned: none of its values changes what is trained; it is no setting of the training, "
                "or another override sets the same option"
            )
    return first


def _checked(space: Space, values: dict[str, Value]) -> RunConfig:
    try:
        config = compose(space.overrides(values))
        config.check()
    except ConfigurationError as error:
        words = re.findall(r"\w+", str(error))
        tuned = [f"{key} is tuned {space.ranges[key].written}" for key in values if key.rpartition(".")[2] in words]
        if "Integer" in words:
            tuned.append("for whole numbers, write int(interval(a,b))")
        raise ConfigurationError(f"{error} ({'; '.join(tuned)})" if tuned else str(error)) from error
    return config


def _has_effect(space: Space, key: str, samples: list[dict[str, Value]]) -> bool:
    """Return whether an option changes anything beside some values of the others: it may be one of a part only."""
    known: dict[str, object] = {}

    def settings(values: dict[str, Value]) -> object:
        if str(values) not in known:
            try:
                known[str(values)] = settings_of(compose(space.overrides(values)))
            except ConfigurationError as error:  # of these values together
                known[str(values)] = str(error)
        return known[str(values)]

    others = space.ranges[key].samples[1:]
    beside = [values for values in samples if values[key] == samples[0][key]]
    return any(settings(values) != settings(values | {key: other}) for values in beside for other in others)
