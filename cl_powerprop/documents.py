"""JSON and YAML files from anybody, read in bounded time and memory: nothing in them is called, imported or expanded.

Of YAML, aliases count as often as they are used: a few lines can otherwise stand for billions of values.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cl_powerprop.files import read_file

LARGEST_JSON = 2**26  # bytes: a thousand tasks need less than one hundredth of it
LARGEST_YAML = 2**20
_MOST_VALUES = 5000  # of a YAML file
_DEEPEST = 50  # levels of nesting; YAML's parser would need the stack for each
_LONGEST = 10_000  # characters of a YAML scalar: numbers such as 1:2:3:... take quadratic time
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_json(path: Path, most: int = LARGEST_JSON) -> Any:
    """Return what a JSON file holds.

    Raises:
        FileError: if it is a link, no file, or larger than ``most`` bytes.
        ValueError: if it is no JSON in UTF-8, has a key twice, or a number that is none.
        OSError: if it cannot be read.
    """
    return parse_json(read_file(path, most))


def parse_json(content: bytes) -> Any:
    """Return what the content of a JSON file holds.

    Raises:
        ValueError: if it is no JSON in UTF-8, has a key twice, or a number that is none.
    """
    try:
        return json.loads(content.decode(), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a key twice")
    return found


def _no_number(literal: str) -> Any:
    raise ValueError(f"{literal} is no number of JSON")


def read_yaml(path: Path, most: int = LARGEST_YAML) -> Any:
    """Return what a YAML file holds; errors are those of :func:`read_json`."""
    return parse_yaml(read_file(path, most))


def parse_yaml(content: bytes) -> Any:
    """Return what the content of a YAML file holds: mappings, lists and scalars.

    Raises:
        ValueError: if it is no YAML in UTF-8 or too much of it, has a key twice, or names something else to be made.
    """
    text = content.decode()
    try:
        _check_depth(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _size(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise ValueError(f"{error.problem or 'it is no YAML'}{where}") from error
    except (yaml.YAMLError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # YAML's constructors raise all of these, as for `!!bool maybe`.
        raise ValueError(f"it is no YAML that can be read ({type(error).__name__})") from error


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Return how many values a node stands for, with those of aliases.

    Args:
        node: what was composed of a file.
        known: sizes of the nodes met before; None for those that ``node`` lies in.
    """
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ValueError("it contains itself")
        return size
    known[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise ValueError(f"it has a key twice in line {node.start_mark.line + 1} or below")
        size = 1 + sum(_size(each, known) for pair in node.value for each in pair)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_size(each, known) for each in node.value)
    else:
        size = 1
        if len(node.value) > _LONGEST:
            raise ValueError(f"a value has {len(node.value):,} characters")
    if size > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES} values")
    known[id(node)] = size
    return size
