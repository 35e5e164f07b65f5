"""Options that did not exist yet when a config was written: their defaults leave all as it was then."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from cl_powerprop.registry import PACKAGES, canonical, parts

_OF_THE_COMMAND = "defaults"  # a key that only its configs have: those of a script say what it chose to say


def with_absent_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config, in which no option of its parts is absent that has a default.

    A config that the command did not write, and parts that are not known here, stay as they are.
    """
    if _OF_THE_COMMAND not in config:
        return dict(config)
    return {key: _filled(key, value) if isinstance(value, dict) else value for key, value in config.items()}


def _filled(section: str, values: dict[str, Any]) -> dict[str, Any]:
    options = _options(section, values.get("name"))
    return {option: default for option, default in options.items() if option not in values} | values


def _options(section: str, name: Any) -> dict[str, Any]:
    """Return the options of a section that have a default."""
    from cl_powerprop.sections import TrainConfig  # above this layer

    if section == "train":
        schema: Any = TrainConfig
    elif section in PACKAGES and section != "logger" and (part := parts(section).get(canonical(section, str(name)))):
        schema = part.config
    else:
        return {}
    found = {}
    for option in fields(schema):
        if option.default is not MISSING:
            found[option.name] = option.default
        elif option.default_factory is not MISSING:
            found[option.name] = option.default_factory()
    return found
