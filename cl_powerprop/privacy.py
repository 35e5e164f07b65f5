"""Keeps secrets (API keys, tokens) and the user's absolute paths out of run folders."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

_SECRET = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 16  # shorter values may be ordinary words, which should stay


_hidden: dict[str, str] = {}


def hide(path: str | os.PathLike[str] | None, shown: str) -> None:
    """Replace an absolute path of the user's by ``shown`` in everything that is written from now on."""
    if path is not None and (place := Path(path).expanduser()).is_absolute():
        _hidden[str(place)] = shown


def redact(text: str) -> str:
    """Return the text without the values of secret environment variables and without the user's absolute paths.

    The working folder becomes `.`, the home folder `~`, Python's own folder `<python>`, and the folder of temporary
    files `<tmp>`.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.search(name):
            for written in _spellings(value):
                text = text.replace(written, f"<{name}>")
    for place, shown in _places():
        if place in text:
            whole = r"(?<![\w.~-])" + re.escape(place) + r"(?![\w-]|\.\w)"
            text = re.sub(whole, lambda _, shown=shown: shown, text)  # type: ignore[misc]
    return text


def redact_all(values: Any) -> Any:
    """Return nested dicts and lists with every string redacted, before a file's format can break a string apart."""
    if isinstance(values, dict):
        return {key: redact_all(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [redact_all(value) for value in values]
    return redact(values) if isinstance(values, str) else values


def _spellings(text: str) -> set[str]:
    """Return the forms that a text can have in a file: plain, and escaped in JSON."""
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


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
    places = {text: shown for path, shown in known.items() for text in _spellings(path)}
    return sorted(((path, shown) for path, shown in places.items() if len(path) > 1), key=lambda pair: -len(pair[0]))
