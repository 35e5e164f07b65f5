"""Lines on stdout, from any process of a command, whether somebody reads them or not."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def say(text: str) -> None:
    """Write a line to stdout, at once and whole, so that lines of several processes do not mix.

    Where it cannot be written, it is lost; a run does not depend on somebody reading it. Escape sequences in it, as of
    a name, do not reach the terminal.
    """
    _write(without_escapes(text))


def without_escapes(text: str) -> str:
    """Return a text, of one or more lines, whose other control characters are replaced: a terminal would obey them."""
    return "\n".join(
        "".join(letter if letter.isprintable() or letter == "\t" else "\N{REPLACEMENT CHARACTER}" for letter in line)
        for line in text.split("\n")
    )


def _write(text: str) -> None:
    out = sys.stdout
    if out is None:  # a process without a console
        return
    try:
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()
    except BrokenPipeError:
        discard_output()
    except (OSError, ValueError):  # a full disk, or a stream that was closed
        pass


def say_table(table: Table, width: int) -> None:
    """Write a table to stdout, as wide as the terminal, or some characters wide where there is none."""
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else width)
    with console.capture() as printed:  # rich itself would end the process where nobody reads any more
        console.print(table)
    _write(printed.get().removesuffix("\n"))


def discard_output() -> None:
    """Let everything that is written to stdout from now on vanish: its reader has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def duration(seconds: float) -> str:
    """Return a time as text: "4.2 s", "40 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
