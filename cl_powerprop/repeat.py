"""`cl-powerprop repeat`: the config of a run folder, run again in a new folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cl_powerprop.config import GROUPS, RunConfig
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.overrides import explain_unreadable, keep_text
from cl_powerprop.stored_config import NAME, check_plain, load_values, typed


def repeat(folder: Path, words: Sequence[str] = ()) -> Path:
    """Run the config of a run folder again, in a new one; what Hydra could do with a config is not done.

    Args:
        folder: of the run; its config alone is read.
        words: options that are to differ, as in ``["seed=3", "train.epochs=1"]``. A run in the ``run_dir`` that they
            name goes on if it was cut off.

    Returns:
        The folder of the run.

    Raises:
        UserError: if the config cannot be read or run, or an option is no value of the config's.
    """
    config = repeated_config(folder, words)
    config.check()  # before torch is imported, which takes many times as long
    from cl_powerprop.experiment import run

    return run(config).path


def repeated_config(folder: Path, words: Sequence[str]) -> RunConfig:
    """Return the config of a run folder with some options changed, for a new run.

    Raises:
        ConfigurationError: if the config cannot be read, or an option is no value of the config's.
    """
    values = load_values(folder)
    for word in words:
        key, value = _option(word)
        _enter(values, key, value, word)
    return typed(values, folder / NAME)


def _option(word: str) -> tuple[str, Any]:
    """Return the name of an option and its value, as a user typed it."""
    try:
        override = OverridesParser.create().parse_override(keep_text(word))
    except HydraException:
        reason = explain_unreadable(keep_text(word)) or f"cannot read {word!r}: give OPTION=VALUE"
        raise ConfigurationError(reason) from None
    if override.is_sweep_override():
        raise ConfigurationError(
            f"{word} has several values: repeat runs once; call it for each of them, or put a list in brackets"
        )
    if override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None:
        raise ConfigurationError(f"{word}: repeat changes the values of options; give OPTION=VALUE")
    key, value = override.key_or_group, override.value()
    check_plain(value, word)
    return key, value


def _enter(values: dict[str, Any], key: str, value: Any, word: str) -> None:
    *sections, name = key.split(".")
    if not sections and name in (*GROUPS, "train", "evaluation"):
        raise ConfigurationError(
            f"{word}: a repeated run has the parts that it had; their options are given as {name}.OPTION=VALUE"
        )
    if key == "logger":
        if value != []:
            raise ConfigurationError(f"{word}: a repeated run has the loggers that it had, or none by logger=[]")
        value = {}
    section = values
    for each in sections:
        section = section.setdefault(each, {})
        if not isinstance(section, dict):
            raise ConfigurationError(f"{word}: {each} has no options")
    section[name] = value
