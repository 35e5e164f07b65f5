"""What Hydra could not compose, in one line that names the choices or the fix."""

import difflib
import re
from typing import Any

from cl_powerprop.catalogue import catalogue, launchers, launchers_with
from cl_powerprop.config import GROUPS
from cl_powerprop.errors import unknown_choice, unknown_option
from cl_powerprop.options import options
from cl_powerprop.overrides import explain_several, explain_unreadable
from cl_powerprop.registry import BY_NAME, PACKAGES, parts


def explain_composition_error(error: Exception) -> str:
    """Say in one line what is wrong with a command line that Hydra could not compose, naming the choices."""
    message = str(error)
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(missing, str) and missing.startswith("hydra/launcher/"):
        name = missing.removeprefix("hydra/launcher/").removesuffix(".yaml")
        return f"unknown hydra/launcher {name!r}; choose from: {', '.join(launchers())}, or install its plugin"
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
    if key and str(key).startswith("hydra.") and parent is not None and not len(parent):
        return f"unknown option {key!r}; to add it, write +{key}=VALUE"
    if key and str(key).startswith("hydra.launcher.") and (owners := launchers_with(str(key).rpartition(".")[2])):
        return f"unknown option {key!r} of this launcher; it is one of hydra/launcher={'|'.join(owners)}"
    if key and parent is not None and "not in struct" in str(cause):
        return explain_unknown(str(key), [str(name) for name in parent])
    if ambiguous := re.match("Ambiguous value for argument '(.*)'", message):
        return explain_several(ambiguous[1])
    word = getattr(error, "override", None)
    if isinstance(word, str) and (unreadable := explain_unreadable(word)):
        return unreadable
    first, *rest = [line.strip() for line in f"{message}\n{cause or ''}".splitlines() if line.strip()]
    return first if not rest else f"{first} ({rest[0]})"


def explain_unknown(key: str, known: list[str]) -> str:
    """Say in one line that there is no such option, and which one may be meant.

    Args:
        key: what was given, in full.
        known: the options that there are in its place.
    """
    said = unknown_option(key, [name for name in known if name != "hydra"])
    owners = options().get(key)
    if owners:  # it is an option of other parts of the group
        return re.sub(r"did you mean .*?\? ", "", said) + _belongs(key, owners)
    wanted = key.rpartition(".")[2]
    sections = {name.partition(f".{key}.")[0] for name in options() if f".{key}." in name}
    if sections:
        return f"unknown option {key!r}; did you mean {' or '.join(f'{section}.{key}' for section in sections)}?"
    named = {name: owners for name, owners in options().items() if name != key}
    elsewhere = {name: owners for name, owners in named.items() if name.rpartition(".")[2] == wanted}
    if not elsewhere and "did you mean" not in said:
        near = difflib.get_close_matches(wanted, {name.rpartition(".")[2] for name in named}, n=1)
        elsewhere = {name: owners for name, owners in named.items() if [name.rpartition(".")[2]] == near}
    if not elsewhere:
        return said
    described = " or ".join(f"{name}{_of(name, owners)}" for name, owners in elsewhere.items())
    return f"unknown option {key!r}; did you mean {described}? " + said.partition("; ")[2]


def _of(name: str, owners: list[str]) -> str:
    """Name the parts that have an option, where some of their group do not."""
    group = name.partition(".")[0]
    if group not in GROUPS or len(owners) == len(parts(group)):
        return ""
    return f" ({', '.join(f'{group}={owner}' for owner in owners)})"


def _belongs(key: str, owners: list[str]) -> str:
    """Say which other parts of the group have an option."""
    group, _, option = key.partition(".")
    sweep = f", in a sweep as {owners[0]}.{option}" if group in BY_NAME else ""
    return f"; {', '.join(f'{group}={owner}' for owner in owners)} can have it{sweep}"
