"""The config of a run folder, which may be a stranger's: plain values of our own options, and nothing is executed.

Hydra is not asked: it would import and call what a file names, and read the environment.
"""

import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from cl_powerprop.config import GROUPS, OPTIONAL, RUN_DIR, RunConfig, leave_out_places, parse
from cl_powerprop.config_files import with_text
from cl_powerprop.errors import ConfigurationError, FileError
from cl_powerprop.files import read_file
from cl_powerprop.shown import as_line

NAME = "config.yaml"
LARGEST = 2**18  # bytes: a hundred times what a config has
_DEEPEST = 20  # sections within one another
_MOST = 5000  # values, lists and sections
_LONGEST = 2000  # characters of a value or a name
_DEFAULTS = (["base", "_self_"], None)  # what our own files say of Hydra's config files
_SPECIAL = re.compile(r"_\w*_")  # names with a meaning to Hydra, as _target_
_HYDRA = re.compile(r"hydra\b", re.IGNORECASE)


class _Loader(get_yaml_loader()):  # type: ignore[misc]
    """YAML without what makes a small file large or a plain one strange."""

    depth = nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it repeats a part of itself by an alias")
        self.depth += 1
        self.nodes += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("its sections are nested too deep")
        if self.nodes > _MOST:
            raise yaml.YAMLError(f"it has more than {_MOST:,} values")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _LONGEST:
            raise yaml.YAMLError(f"it has a value of {len(node.value):,} characters")
        return node


def load_config(folder: Path) -> RunConfig:
    """Return the config of a run folder, which stands for its ``run_dir``.

    Raises:
        ConfigurationError: if it cannot be read, has anything that no config of ours has, or was written by a version
            that had other options.
    """
    values = load_values(folder)
    return typed(values | {"run_dir": str(folder)}, folder / NAME)


def load_values(folder: Path) -> dict[str, Any]:
    """Return the options in the config of a run folder, by group; ``run_dir`` is that of a new run.

    Places that are not below the working folder are left out, as :func:`~cl_powerprop.config.shareable` does.

    Raises:
        ConfigurationError: if the file cannot be read, or has anything that no config of ours has.
    """
    file = folder / NAME
    try:
        text = read_file(file, LARGEST).decode("utf-8")
        values = yaml.load(text, Loader=_Loader)
        values = with_text(values, text)
    except (OSError, FileError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ConfigurationError(f"{file} cannot be read: {reason or type(error).__name__}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{file} is damaged: it holds no options")
    if values.pop("defaults", None) not in _DEFAULTS:
        raise ConfigurationError(f"{file} names other config files in its defaults, which are not read")
    if values.get("run_dir") != RUN_DIR:
        check_plain(values.get("run_dir"), str(file), "run_dir")
    values["run_dir"] = new_run_dir()
    check_plain(values, str(file))
    leave_out_places(values, links=False)
    if missing := [group for group in GROUPS if group not in values and group not in OPTIONAL]:
        raise ConfigurationError(
            f"{file} has no {', no '.join(missing)}: a script made the run by learn(); run that again"
        )
    return values


def new_run_dir() -> str:
    """Return a folder for a new run, named by the time."""
    return datetime.datetime.now().strftime("runs/%Y-%m-%d/%H-%M-%S-%f")


def typed(values: Mapping[str, Any], where: object) -> RunConfig:
    """Return the typed config of options by group that a file has.

    Args:
        values: the options.
        where: what a message names as their place.

    Raises:
        ConfigurationError: if they are not plain values of our own options.
    """
    check_plain(values, str(where))
    if _count(values) > _MOST:
        raise ConfigurationError(f"{where} has more than {_MOST:,} values")
    try:
        return parse(OmegaConf.create(dict(values)))
    except ConfigurationError as error:  # which shows the value, whatever its size
        raise ConfigurationError(as_line(str(error))) from error


def _count(values: Any) -> int:
    """Return how many values there are, lists and sections included."""
    inside = values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ()
    return 1 + sum(map(_count, inside))


def check_plain(values: Any, where: str, key: str = "") -> None:
    """Refuse values that something could be executed for, or looked up: configs of runs have none of these.

    Raises:
        ConfigurationError: naming the first one.
    """
    place = f"{where}: {key}".removesuffix(": ")
    match values:
        case dict():
            for name, value in values.items():
                if not isinstance(name, str):
                    raise ConfigurationError(f"{place} has an option that is called {name!r}")
                if _SPECIAL.fullmatch(name) or (not key and _HYDRA.match(name)):
                    raise ConfigurationError(f"{where} has {name!r}, which could run code; it is not used")
                check_plain(value, where, f"{key}.{name}".lstrip("."))
        case list():
            for value in values:
                check_plain(value, where, key)
        case str():
            if "${" in values:
                raise ConfigurationError(f"{place} is {values!r}, which is looked up elsewhere; give the value itself")
        case int() | float() | None:
            pass
        case _:
            raise ConfigurationError(f"{place} is a {type(values).__name__}, which no option is")
