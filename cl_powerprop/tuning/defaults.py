"""The settings of a study as they are without its ranges: what tuning is to improve on."""

from typing import Any

from cl_powerprop.composition import compose
from cl_powerprop.config import GROUPS, RunConfig
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.registry import BY_NAME
from cl_powerprop.tuning.ranges import Value
from cl_powerprop.tuning.settings import settings_of
from cl_powerprop.tuning.space import Space

_ABSENT = object()


def find_defaults(space: Space) -> dict[str, Value] | None:
    """Return the values in the ranges that change nothing; None if some range does not hold its option's default."""
    try:
        config = compose(space.overrides({}))
        found = {key: each.find(_option(config, key)) for key, each in space.ranges.items()}
        values = {key: value for key, value in found.items() if value is not None}
        if len(values) < len(found) or settings_of(compose(space.overrides(values))) != settings_of(config):
            return None
        config.check()
    except ConfigurationError:  # a part that has no default for an option, say
        return None
    return values


def _option(config: RunConfig, key: str) -> Any:
    """Return the value of an option, which may be given by the name of its part, as in `epn.gamma`."""
    group, dot, option = key.lstrip("+").partition(".")
    if not dot:
        return getattr(config, group).name if group in GROUPS else getattr(config, group, _ABSENT)
    named = {getattr(config, each).name: each for each in BY_NAME}
    return getattr(getattr(config, named.get(group, group), None), option, _ABSENT)
