"""What there is to choose: our parts as `conf/` describes them, and those that others have registered."""

import functools
from pathlib import Path

from cl_powerprop.errors import ConfigurationError
from cl_powerprop.registry import CONF, PACKAGES, metrics, others

GROUPS = ("benchmark", "data", "model", "strategy", "sparsity", "optimizer", "logger", "experiment")
LISTED = (*GROUPS, "suite", "metric")
"""What `cl-powerprop list` can list: the config groups of a run, and what is in none."""


def catalogue(group: str | None = None) -> dict[str, dict[str, str]]:
    """Return, for each of :data:`LISTED`, its choices with one line each.

    Args:
        group: one of them; None for all.

    Raises:
        ConfigurationError: if there is no such group, naming those there are.
    """
    listed = {name: functools.partial(_choices, name) for name in LISTED} | {"metric": _metrics}
    if group is None:
        return {name: choices() for name, choices in listed.items()}
    if group not in listed:
        raise ConfigurationError(f"there is no group {group!r} to list; choose from: {', '.join(listed)}")
    return {group: listed[group]()}


def launchers() -> list[str]:
    """Return the choices of `hydra/launcher`, without those of Hydra plugins: ours, and Hydra's own."""
    return [*_ours("hydra/launcher"), "basic"]


def launchers_with(option: str) -> list[str]:
    """Return those of our choices of `hydra/launcher` that have an option."""
    files = _files("hydra/launcher")
    return [file.stem for file in files if f"\n{option}:" in file.read_text(encoding="utf-8")]


def _choices(group: str) -> dict[str, str]:
    return _ours(group) | _of_others(group)


def _metrics() -> dict[str, str]:
    return {name: metric.label for name, metric in metrics().items()}


def _ours(group: str) -> dict[str, str]:
    """Describe our choices; a file without a description is another name for one."""
    described = {_name(path, group): _describe(path) for path in _files(group)}
    return {name: description for name, description in described.items() if description}


def _of_others(group: str) -> dict[str, str]:
    if group not in PACKAGES:
        return {}
    return {part.name: f"{part.description} ({part.origin})".strip() for part in others(group)}


def _files(group: str) -> list[Path]:
    return sorted(path for path in (CONF / group).rglob("*.yaml") if not path.name.startswith("_"))


def _name(path: Path, group: str) -> str:
    return path.relative_to(CONF / group).with_suffix("").as_posix()


def _describe(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        comments = (line.removeprefix("#").strip() for line in file if line.startswith("#"))
        return next((line for line in comments if not line.startswith("@package")), "")
