"""The options that the files of `conf/` list, with value and comment of each. Needs nothing but YAML, and is quick."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from cl_powerprop.registry import CONF


@dataclass(frozen=True)
class Listed:
    """An option as a file lists it: its value as it stands there, "" for a list, and the comment beside it."""

    value: str
    comment: str


def run_options() -> dict[str, Listed]:
    """Return the options of every run by full name, as in `train.epochs`."""
    return _listed(CONF / "run.yaml", "")


def part_options(group: str, name: str) -> dict[str, Listed]:
    """Return the options of one of our parts by full name, as in `strategy.gamma`; none if it is not one of ours."""
    if group == "logger":
        return _listed(CONF / group / f"{name}.yaml", f"{group}.{name}.")
    options = _listed(CONF / group / f"{name}.yaml", f"{group}.")
    options.pop(f"{group}.name", None)  # says which part it is
    return options


def default_parts() -> dict[str, str]:
    """Return the part of each config group that a run has by default."""
    defaults = yaml.safe_load((CONF / "run.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {group: name for each in defaults if isinstance(each, dict) for group, name in each.items()}
    return {group: name for group, name in chosen.items() if isinstance(name, str)}


def with_comments(text: str, options: Mapping[str, Listed]) -> str:
    """Return a config, which is given as YAML, with comments beside its options."""
    lines = text.splitlines()
    for name, line, _ in _places(text, ""):
        if name in options and options[name].comment:
            lines[line] += f"  # {options[name].comment}"
    return "\n".join(lines) + "\n"


def _listed(file: Path, section: str) -> dict[str, Listed]:
    if not file.is_file():
        return {}
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for name, _, value in _places(text, section):
        if name.removeprefix(section) != "defaults":
            beside = lines[value.end_mark.line][value.end_mark.column :]
            shown = value.value if isinstance(value, yaml.ScalarNode) else ""
            found[name] = Listed(shown, beside.partition("#")[2].strip())
    return found


def _places(text: str, section: str) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield the full name of each option of a YAML text, the line that it stands in, and its value."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    return iter(()) if node is None else _below(node, section)


def _below(node: yaml.Node, section: str) -> Iterator[tuple[str, int, yaml.Node]]:
    for name, value in node.value:
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _below(value, f"{section}{name.value}.")
        else:
            yield f"{section}{name.value}", name.start_mark.line, value
