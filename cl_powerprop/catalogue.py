"""What there is to choose, read from `conf/`: the first line of each file says what it is."""

import difflib
from pathlib import Path
from typing import Any

from cl_powerprop.config import CONF

GROUPS = ("benchmark", "data", "model", "strategy", "optimizer", "logger", "experiment")


def catalogue() -> dict[str, dict[str, str]]:
    """Return, for each config group, its choices with one line each."""
    return {group: {_name(path, group): _describe(path) for path in _files(group)} for group in GROUPS}


def _files(group: str) -> list[Path]:
    return sorted(path for path in (CONF / group).rglob("*.yaml") if not path.name.startswith("_"))


def _name(path: Path, group: str) -> str:
    return path.relative_to(CONF / group).with_suffix("").as_posix()


def _describe(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        comments = (line.removeprefix("#").strip() for line in file if line.startswith("#"))
        return next((line for line in comments if not line.startswith("@package")), "")


def explain_composition_error(error: Exception) -> str:
    """Say in one line what is wrong with a command line that Hydra could not compose, naming the choices."""
    message = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(missing, str) and "/" in missing:
        group, _, name = missing.removesuffix(".yaml").partition("/")
        choices = catalogue().get(group)
        if choices:
            return f"unknown {group} {name!r}; choose from: {', '.join(choices)}"
    cause: Any = error.__cause__
    key = getattr(cause, "full_key", None)
    parent = getattr(cause, "parent_node", None)
    if key == "logger":  # options of a logger that was not chosen
        return f"options of a logger need the logger: add 'logger=[{'|'.join(catalogue()['logger'])}]'"
    if key and parent is not None and "not in struct" in str(cause):
        known = [str(name) for name in parent]
        near = difflib.get_close_matches(str(key).rpartition(".")[2], known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown option {key!r}; {hint}choose from: {', '.join(known)}"
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()]
    return first if not rest else f"{first} ({rest[0]})"
