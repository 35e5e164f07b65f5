"""What there is to choose: our parts as `conf/` describes them, and those that others have registered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl_powerprop.errors import unknown_choice, unknown_option
from cl_powerprop.registry import BY_NAME, CONF, PACKAGES, metrics, others, parts

GROUPS = ("benchmark", "data", "model", "strategy", "optimizer", "logger", "experiment")


def catalogue() -> dict[str, dict[str, str]]:
    """Return, for each config group, its choices with one line each, and the metrics of a run."""
    chosen = {group: _ours(group) | _of_others(group) for group in GROUPS}
    return chosen | {"metric": {name: metric.label for name, metric in metrics().items()}}


def _ours(group: str) -> dict[str, str]:
    """Describe our choices; a file without a description is another name for one."""
    described = {_name(path, group): _describe(path) for path in _files(group)}
    return {name: description for name, description in described.items() if description}


def _of_others(group: str) -> dict[str, str]:
    if group not in PACKAGES:
        return {}
    return {part.name: f"{part.description} ({part.origin})".strip() for part in others(group)}


def offer_parts(overrides: Sequence[str]) -> list[str]:
    """Make the parts of others known to Hydra, and return overrides that it understands.

    Options given by a part's name (`epn.gamma=0.95`) become keys of their own; the config is parsed with them.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group in PACKAGES:
        for part in others(group):
            package = f"logger.{part.name}" if group == "logger" else None
            for name in (part.name, *part.aliases):
                store.store(group=group, name=name, node=part.defaults(), package=package, provider=part.origin)
    dotted = [word for word in overrides if "=" in word and "." in word.partition("=")[0]]
    named = {name for group in BY_NAME for name in parts(group)} if dotted else set()
    return [f"++{word}" if word in dotted and word.partition(".")[0] in named else word for word in overrides]


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
            if group in PACKAGES:
                return unknown_choice(group, name, choices)
            return f"unknown {group} {name!r}; choose from: {', '.join(choices)}"
    cause: Any = error.__cause__
    key = getattr(cause, "full_key", None)
    parent = getattr(cause, "parent_node", None)
    if key == "logger":  # options of a logger that was not chosen
        return f"options of a logger need the logger: add 'logger=[{'|'.join(catalogue()['logger'])}]'"
    if key and parent is not None and "not in struct" in str(cause):
        return unknown_option(str(key), [str(name) for name in parent]) + _owners(str(key))
    first, *rest = [line.strip() for line in message.splitlines() if line.strip()]
    return first if not rest else f"{first} ({rest[0]})"


def _owners(key: str) -> str:
    """Say which other parts of the group have an option, if some do."""
    group, _, option = key.partition(".")
    if group not in BY_NAME:
        return ""
    owners = [name for name, part in parts(group).items() if option in part.defaults()]
    return f"; {', '.join(owners)} can have it, in a sweep as {owners[0]}.{option}" if owners else ""
