"""Names, texts and paths from files as they may be shown: in a terminal, a shell, a table. None of them is trusted."""

import contextlib
import os
import re
import shlex
import zlib
from pathlib import Path
from typing import Any

_LONGEST = 1000  # characters of a line
_LONGEST_SETTING = 200
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes the rest of a cell for a formula after
_MARKUP = re.compile(r"[<>|`*~&\\]|\]\(|\]:|\]\[|__|://|@|\bwww\.")  # Markdown's, and what is made a link


def as_line(text: str, most: int = _LONGEST) -> str:
    """Return a text as a single line of printable characters: without line ends, escape sequences and the like."""
    if not text.isprintable():
        shown = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * most])
        text = " ".join(shown.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def as_setting(text: str) -> str:
    """Return a setting's value as a line; a long one is cut, and told from others that begin alike by a checksum."""
    line = as_line(text)
    if len(text) <= _LONGEST_SETTING:
        return line
    return f"{line[:_LONGEST_SETTING]}… ({zlib.crc32(text.encode(errors='surrogatepass')):08x})"


def printable(name: str) -> str:
    """Return a name as it is, or in ASCII with escapes if it cannot be printed; different names stay different."""
    return name if name.isprintable() else ascii(name)


def shell_word(path: str | os.PathLike[str]) -> str:
    """Return a path, or another word, as a shell takes it; every character can be printed."""
    text = os.fspath(path)
    if text.isprintable():
        return shlex.quote(text)
    escaped = (
        letter if letter.isprintable() and letter not in "'\\" else "".join(f"\\x{byte:02x}" for byte in _bytes(letter))
        for letter in text
    )
    return "$'" + "".join(escaped) + "'"


def _bytes(letter: str) -> bytes:
    return letter.encode(errors="surrogateescape" if "\udc80" <= letter <= "\udcff" else "surrogatepass")


def as_given(path: Path, otherwise: str | None = None) -> str:
    """Return a path as the user gave it, unless it tells where the user's files are: then ``otherwise``, or its name.

    For files that others may read: a path that is absolute, or leads upwards, tells that.
    """
    if path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",):
        return path.name if otherwise is None else otherwise
    return str(path)


def csv_cell(value: Any) -> Any:
    """Return the value of a cell; a text that a spreadsheet would take for a formula is marked as text by a quote."""
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    return f"'{value}"


def in_markdown(text: str) -> str:
    """Return a text for a Markdown table or list: as code, if it holds what would be markup or a link."""
    if not _MARKUP.search(text):
        return text
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    escaped = text.replace("|", "\\|")  # which would end the cell, in code too
    return f"{fence} {escaped} {fence}" if "`" in text else f"`{escaped}`"
