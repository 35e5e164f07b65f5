"""The settings of a trial as a recipe, which `cl-powerprop run --config-dir DIR experiment=NAME` takes."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from cl_powerprop.composition import compose
from cl_powerprop.config import GROUPS, RunConfig, leave_out_places
from cl_powerprop.errors import ConfigurationError, RunFolderError
from cl_powerprop.files import write_file
from cl_powerprop.naming import flat
from cl_powerprop.privacy import redact_options

FOLDER = "configs"  # for --config-dir, in the folder of the study


def write_recipe(folder: Path, name: str, config: RunConfig, about: str) -> None:
    """Write the settings that differ from the defaults of the parts that a config names.

    Seed, device, loggers and what is tested stay open.

    Args:
        folder: of the study.
        name: of the recipe.
        config: whose settings they are.
        about: a line that describes it.

    Raises:
        RunFolderError: if a link would lead it out of the folder.
    """
    parts = {group: getattr(config, group).name for group in GROUPS}
    try:
        words = [f"{group}={part}" for group, part in parts.items()]
        usual = _options(compose(words))
        # What follows from the epochs is to follow from others that are given with the recipe.
        usual["strategy"] = _options(compose([*words, f"train.epochs={config.train.epochs}"]))["strategy"]
    except ConfigurationError:  # a part from outside, of which something must be given
        usual = {}
    values: dict[str, Any] = {}
    known = dict(flat(usual))
    for section, options in _options(config).items():
        given = {key: value for key, value in options.items() if not _is_same(known, section, key, value)}
        if given:
            values[section] = given
    defaults = [{f"override /{group}": part} for group, part in parts.items()]
    text = yaml.safe_dump({"defaults": defaults, **values}, sort_keys=False, allow_unicode=True)
    path = _recipes(folder) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, f"# @package _global_\n# {about}\n{text}".encode())


def keep_recipes(folder: Path, names: Collection[str]) -> Path:
    """Remove the recipes that an earlier call wrote, but for some; return the folder for `--config-dir`."""
    for path in _recipes(folder).glob("trial_*.yaml"):
        if path.stem not in names:
            path.unlink()
    return folder / FOLDER


def _recipes(folder: Path) -> Path:
    path = folder / FOLDER / "experiment"
    for each in (path.parent, path):
        if each.is_symlink():
            raise RunFolderError(f"{each} is a link; remove it")
    return path


def _options(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the options of parts and training, by section, without one user's places and secrets."""
    values = asdict(config)
    sections = {key: values[key] for key in (*GROUPS, "train")}
    leave_out_places(sections)
    for group in GROUPS:
        del sections[group]["name"]
    redacted: dict[str, dict[str, Any]] = redact_options(sections)
    return redacted


def _is_same(known: dict[str, Any], section: str, key: str, value: Any) -> bool:
    own = dict(flat({section: {key: value}}))
    return own.items() <= known.items()
