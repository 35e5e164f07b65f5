"""Keeps secrets (API keys, tokens, passwords) and the user's absolute paths out of run folders."""

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from cl_powerprop.secret_values import (
    hide_long,
    hide_short,
    is_left_out,
    is_secret_option,
    is_trivial,
    spellings,
    told_apart,
    without_credentials,
)

_hidden: dict[str, str] = {}


def hide(path: str | os.PathLike[str] | None, shown: str) -> None:
    """Replace an absolute path of the user's by ``shown`` in everything that is written from now on."""
    if path is not None and (place := Path(path).expanduser()).is_absolute():
        _hidden[str(place)] = shown


def redact(text: str) -> str:
    """Return the text without secrets and without the user's absolute paths.

    Secrets are the values of environment variables that are named like one, passwords in URLs, tokens in query strings
    and what looks like a token; :mod:`~cl_powerprop.secret_values` has the rules. The working folder becomes `.`, the
    home folder `~`, Python's own folder `<python>`, and the folder of temporary files `<tmp>`.
    """
    text = without_credentials(hide_long(text))
    for place, shown in _places():
        if place in text:
            whole = r"(?<![\w.~-])" + re.escape(place) + r"(?![\w-]|\.\w)"
            text = re.sub(whole, lambda _, shown=shown: shown, text)  # type: ignore[misc]
    return text


def redact_all(values: Any, key: str = "") -> Any:
    """Return nested dicts and lists with every string redacted, before a file's format can break a string apart.

    Here, and not in texts, short secrets are found too; and what stands under a key that is named like a secret is one.
    """
    if isinstance(values, dict):
        return {name: redact_all(value, str(name)) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [redact_all(value, key) for value in values]
    if not isinstance(values, str):
        return values
    if is_secret_option(key) and values and not is_trivial(values) and not is_left_out(values):
        return "<hidden>"
    return hide_short(redact(values))


def redact_options(values: Any, key: str = "") -> Any:
    """Return what :func:`redact_all` does, in which different secrets stay different."""
    if isinstance(values, dict):
        return {name: redact_options(value, str(name)) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [redact_options(value, key) for value in values]
    shown = redact_all(values, key)
    return told_apart(values, shown) if isinstance(values, str) else shown


def _places() -> list[tuple[str, str]]:
    """Return (path, replacement) pairs, longest path first."""
    try:
        working = str(Path.cwd())
    except OSError:  # it was removed
        working = ""
    home = str(Path.home())
    known = {working: ".", home: "~", sys.prefix: "<python>", tempfile.gettempdir(): "<tmp>"}
    known |= _hidden
    known |= {os.path.realpath(path): shown for path, shown in known.items() if path}
    places = {text: shown for path, shown in known.items() for text in spellings(path)}
    return sorted(((path, shown) for path, shown in places.items() if len(path) > 1), key=lambda pair: -len(pair[0]))
