"""Tab completion: what can follow the words of a command line. Imports neither torch nor Hydra.

The options of our own parts are read from the files of `conf/`, those of others from their classes.
"""

import argparse
import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence

from cl_powerprop.catalogue import GROUPS, LISTED, catalogue
from cl_powerprop.completion_scripts import SHELLS
from cl_powerprop.conf_options import default_parts, part_options, run_options
from cl_powerprop.errors import UserError
from cl_powerprop.registry import BY_NAME, PACKAGES, import_modules, others

_FLAGS = (
    "--help",
    "--multirun",
    "--retry-failed",
    "--cfg",
    "--resolve",
    "--config-dir",
    "--config-name",
    "--info",
    "--hydra-help",
)
_SHOWN = ("job", "hydra", "all")  # what `run --cfg` can show
_LAUNCHERS = {"hydra/launcher": ("processes", "slurm", "ray", "basic")}


def candidates(words: Sequence[str], parsers: Mapping[str, argparse.ArgumentParser]) -> list[str]:
    """Return what the last word of a command line can become; one that is complete ends with a space.

    Args:
        words: what follows `cl-powerprop`; the last is the beginning of a word, or "".
        parsers: of each subcommand, and of the command itself under "".
    """
    *before, word = words
    while before and before[0].startswith("--import"):
        modules, before = (before[0].split("=", 1)[1:], before[1:]) if "=" in before[0] else (before[1:2], before[2:])
        with contextlib.suppress(UserError):
            import_modules(modules)
    if not before:
        found = [f"{name} " for name in (*parsers, *_flags(parsers[""])) if name]
    elif before[0] == "run" or (before[0] == "tune" and not word.startswith("-")):
        found = list(_of_run(word, before[1:]))
    else:
        found = [f"{name} " for name in _of_subcommand(before[0], word, before[1:], parsers)]
    return [each for each in dict.fromkeys(found) if each.startswith(word)]


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    named = (name for action in parser._actions for name in action.option_strings)  # argparse has no public way
    return [name for name in named if name.startswith("--")]


def _of_subcommand(
    command: str, word: str, given: Sequence[str], parsers: Mapping[str, argparse.ArgumentParser]
) -> Sequence[str]:
    """Return the flags of a subcommand, or what it takes in this place; nothing where that is a path."""
    if command in parsers and word.startswith("-"):
        return _flags(parsers[command])
    places = {
        ("list", 0): lambda: [*LISTED],
        ("suite", 0): lambda: list(catalogue("suite")["suite"]),
        ("data", 0): lambda: ["status", "download", "verify"],
        ("data", 1): lambda: list(catalogue("data")["data"]),
        ("completion", 0): lambda: list(SHELLS),
    }
    taken = sum(not each.startswith("-") for each in given)
    return places.get((command, taken), list)()


def _of_run(word: str, given: Sequence[str]) -> Iterable[str]:
    before = given[-1] if given else ""
    if before in ("--cfg", "-c"):
        return [f"{each} " for each in _SHOWN]
    if before in ("--config-dir", "-cd", "--config-name", "-cn"):
        return []
    if word.startswith("-"):
        return [f"{flag} " for flag in _FLAGS]
    sign = word[: len(word) - len(word.lstrip("+~"))]
    key, equals, value = word[len(sign) :].partition("=")
    options = _options(given)
    if not equals:
        return [f"{sign}{name}" for name in _next_sections(options, key)]
    # In a sweep or a list, what follows the last comma or bracket is completed.
    head = word[: len(word) - len(re.split(r"[,\[]", value)[-1])]
    return [f"{head}{each}" for each in _values(key, options)]


def _values(key: str, options: Mapping[str, str]) -> Iterable[str]:
    if key in _LAUNCHERS:
        return _LAUNCHERS[key]
    if key in GROUPS:
        return catalogue(key)[key]
    return ("true", "false") if options.get(key) in ("true", "false") else ()


def _next_sections(options: Iterable[str], key: str) -> Iterable[str]:
    """Yield the groups, options and sections that a name can go on to, one section at a time."""
    yield from (f"{group}=" for group in (*GROUPS, *_LAUNCHERS))
    for option in options:
        if option.startswith(key):
            head, dot, _ = option[len(key) :].partition(".")
            yield f"{key}{head}{dot or '='}"


def _options(given: Sequence[str]) -> dict[str, str]:
    """Return the options that the words before leave to choose from, with their values by default."""
    options = {name: listed.value for name, listed in run_options().items()}
    chosen = dict(word.lstrip("+").split("=", 1) for word in given if "=" in word)
    for group in PACKAGES:
        # A recipe can choose any part.
        anything = "experiment" in chosen and group not in chosen
        asked = re.split(r"[\[\],]", chosen.get(group, default_parts().get(group, "")))
        for name in catalogue(group)[group]:
            own = _options_of(group, name)
            if group in BY_NAME:
                options |= {option.replace(group, name, 1): value for option, value in own.items()}
            if anything or name in asked:
                options |= own
    return options


def _options_of(group: str, name: str) -> dict[str, str]:
    """Return the options of one part, ours or another's, with their values by default."""
    values = {option: listed.value for option, listed in part_options(group, name).items()}
    section = f"{group}.{name}" if group == "logger" else group
    for part in others(group):
        if part.name == name:
            values |= {f"{section}.{option}": str(value).lower() for option, value in part.defaults().items()}
    values.pop(f"{group}.name", None)
    return values
