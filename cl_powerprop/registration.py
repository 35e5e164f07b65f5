"""What a part must be like to be registered: a name that can be typed, and options that a config can hold."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import Any, get_args, get_type_hints

from cl_powerprop.errors import ConfigurationError

_NAME = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII | re.IGNORECASE)
_VALUES = ("null", "true", "false", "inf", "nan")  # what Hydra takes for a value, and not for a word


def check_name(group: str, name: Any, taken: Mapping[str, str]) -> None:
    """Refuse what cannot be typed as ``group=NAME``, or would hide something else.

    Args:
        group: the config group.
        name: of the part.
        taken: names that are in use, and what has them.

    Raises:
        ConfigurationError: saying what a name can be, or what has it.
    """
    what = f"{group} {name!r}"
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower() in _VALUES:
        raise ConfigurationError(
            f"{what}: a name begins with a letter, has letters, digits, _ and - only, and is not {' or '.join(_VALUES)}"
        )
    if name in taken:
        raise ConfigurationError(f"{what}: {taken[name]} has something else of that name; choose another")


def check_config(what: str, config: type, base: type) -> None:
    """Refuse what cannot be the options of a part.

    Args:
        what: the part, for the message.
        config: the class of its options.
        base: what it must be derived from.

    Raises:
        ConfigurationError: if it is no dataclass, an option has no type or one that YAML cannot hold, or hides what
            every part of the kind has.
    """
    from omegaconf import OmegaConf  # `cl-powerprop list` need not wait for it
    from omegaconf.errors import OmegaConfBaseException

    name = getattr(config, "__name__", repr(config))
    if not (isinstance(config, type) and "__dataclass_fields__" in vars(config) and issubclass(config, base)):
        raise ConfigurationError(f"{what}: its config {name} is not a dataclass derived from {base.__name__}")
    options = {each.name for each in fields(config)}  # type: ignore[arg-type]
    constants = {each for parent in config.__mro__ for each in inspect.get_annotations(parent)} - options
    for parent in config.__mro__:
        for option, value in vars(parent).items():
            if option.startswith("_") or option in inspect.get_annotations(parent) or option in constants:
                continue
            if not callable(value) and not isinstance(value, property | classmethod | staticmethod):
                raise ConfigurationError(f"{what}: {name}.{option} has no type; write {option}: TYPE = {value!r}")
    for option in sorted(options):
        if option not in base.__dataclass_fields__ and hasattr(base, option):  # type: ignore[attr-defined]
            raise ConfigurationError(f"{what}: {name}.{option} takes the place of {base.__name__}.{option}")
    try:
        OmegaConf.structured(config)
        unwritable = next((kind for kind in _kinds(config) if issubclass(kind, bytes | Enum | PurePath)), None)
    except Exception as error:  # of OmegaConf, or of whatever an annotation or a default runs
        reason = error.msg if isinstance(error, OmegaConfBaseException) and error.msg else error
        raise ConfigurationError(f"{what}: {name}: {(str(reason) or type(error).__name__).splitlines()[0]}") from error
    if unwritable is not None:
        raise ConfigurationError(f"{what}: {name}: config.yaml cannot hold the type {unwritable.__name__}; take str")


def _kinds(hint: Any) -> Iterator[type]:
    """Yield all types that an annotation is made of."""
    if isinstance(hint, type) and is_dataclass(hint):
        for each in get_type_hints(hint).values():
            yield from _kinds(each)
    elif get_args(hint):
        for each in get_args(hint):
            yield from _kinds(each)
    elif isinstance(hint, type):
        yield hint
