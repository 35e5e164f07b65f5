"""Keeps out of a run folder what is nobody else's business: keys, tokens, and where on a machine a user's files are."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

_SECRET = re.compile(r"API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET = 16  # shorter values are words that a file may well hold by itself


def redact(text: str) -> str:
    """Return the text without values of secret environment variables and without paths that lead through a user's.

    The working folder becomes `.`, the home folder `~`, Python's own folder `<python>`.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET.search(name):
            text = text.replace(value, f"<{name}>")
    for place, shown in _places():
        text = re.sub(r"(?<![\w.~-])" + re.escape(place) + r"(?![\w-]|\.\w)", lambda _, shown=shown: shown, text)  # type: ignore[misc]
    return text


def _places() -> list[tuple[str, str]]:
    """Return (path, what to show for it), longest first; as it stands in plain text and in JSON."""
    try:
        working = str(Path.cwd())
    except OSError:  # it was removed
        working = ""
    home = str(Path.home())
    known = {working: ".", home: "~", sys.prefix: "<python>", tempfile.gettempdir(): "<tmp>"}
    known |= {os.path.realpath(path): shown for path, shown in known.items() if path}
    places = {text: shown for path, shown in known.items() for text in (path, json.dumps(path)[1:-1])}
    return sorted(((path, shown) for path, shown in places.items() if len(path) > 1), key=lambda pair: -len(pair[0]))
