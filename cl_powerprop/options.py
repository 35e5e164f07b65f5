"""Every option by its full name, as in `model.alpha`: its type, and which parts have it. Imports no torch."""

import functools
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any

from cl_powerprop.config import GROUPS, RunOptions
from cl_powerprop.registry import BY_NAME, PACKAGES, Part, parts


@dataclass(frozen=True)
class Text:
    """The type of an option that is text.

    Attributes:
        depth: how deep in lists the text stands: 0 for text itself, 1 for a list of texts.
        optional: whether the option can be null.
    """

    depth: int
    optional: bool

    @property
    def item(self) -> "Text":
        """What stands in the list."""
        return Text(self.depth - 1, optional=False)


_CHOICE = Text(depth=1, optional=True)  # of a config group; of some groups several are chosen


def text_type(key: str) -> Text | None:
    """Return the type of an option that is text; None for all others.

    Args:
        key: full name of the option, or a config group.
    """
    if key in PACKAGES or key == "experiment" or "/" in key:
        return _CHOICE
    kinds = {_as_text(kind) for kind in _types(key)}
    return kinds.pop() if len(kinds) == 1 else None


def type_name(key: str) -> str | None:
    """Return what a value of the option must be, in words; None for text, and if that is not known."""
    kinds = {_in_words(kind) for kind in _types(key)}
    return kinds.pop() if len(kinds) == 1 else None


def options() -> dict[str, list[str]]:
    """Return every option by its full name, with the parts that have it; those of a whole run have none."""
    found: dict[str, list[str]] = {name: [] for name in _names(RunOptions)}
    for group in GROUPS:
        for part in parts(group).values():
            for name in _names(part.config):
                if name != "name":
                    found.setdefault(f"{group}.{name}", []).append(part.name)
    for part in parts("logger").values():
        found |= {f"logger.{part.name}.{name}": [] for name in _names(part.config)}
    return found


def _names(schema: type) -> Iterator[str]:
    """Yield the options of a dataclass, those of a section with the section's name before them."""
    for name, kind in _hints(schema).items():
        if name not in {each.name for each in fields(schema)}:
            continue
        section = _required(kind)
        if is_dataclass(section) and isinstance(section, type):
            yield from (f"{name}.{inner}" for inner in _names(section))
        else:
            yield name


@functools.cache
def _hints(schema: type) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def _types(key: str) -> list[Any]:
    """Return the type that an option has in each part that has it."""
    first, _, rest = key.partition(".")
    if first == "hydra":
        from hydra.conf import HydraConf

        return _within(HydraConf, rest)
    if first == "logger":
        name, _, rest = rest.partition(".")
        return _of_parts([part for part in parts(first).values() if part.name == name], rest)
    if first in GROUPS:
        return _of_parts(list(parts(first).values()), rest)
    named = [part for group in BY_NAME for part in parts(group).values() if part.name == first] if rest else []
    return _of_parts(named, rest) if named else _within(RunOptions, key)


def _of_parts(owners: list[Part], key: str) -> list[Any]:
    return [kind for part in owners for kind in _within(part.config, key)]


def _within(schema: Any, key: str) -> list[Any]:
    """Return the type of an option of a dataclass, which may stand in a section of it; none if there is no such."""
    first, _, rest = key.partition(".")
    if not (isinstance(schema, type) and is_dataclass(schema)):
        return []
    kind = _hints(schema).get(first)
    if kind is None:
        return []
    return _within(_required(kind), rest) if rest else [kind]


def _required(kind: Any) -> Any:
    """Return the type without None."""
    if typing.get_origin(kind) not in (typing.Union, UnionType):
        return kind
    members = [member for member in typing.get_args(kind) if member is not NoneType]
    return members[0] if len(members) == 1 else Any


def _as_text(kind: Any) -> Text | None:
    required = _required(kind)
    optional = required is not kind
    if required is str:
        return Text(0, optional)
    if typing.get_origin(required) is list:
        item = _as_text(typing.get_args(required)[0])
        return None if item is None else Text(item.depth + 1, optional)
    return None


def _in_words(kind: Any, several: bool = False) -> str | None:
    kind = _required(kind)
    if typing.get_origin(kind) is list:
        inner = _in_words(typing.get_args(kind)[0], several=True)
        return inner and f"{'lists' if several else 'a list'} of {inner}"
    if kind is bool:
        return "true or false"
    named = {int: "whole number", float: "number"}.get(kind)
    return named and (f"{named}s" if several else f"a {named}")
