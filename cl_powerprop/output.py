"""Lines on stdout, from any process of a command, whether somebody reads them or not."""

import os
import sys


def say(text: str) -> None:
    """Write a line to stdout, at once and whole, so that lines of several processes do not mix.

    Where it cannot be written, it is lost; a run does not depend on somebody reading it.
    """
    out = sys.stdout
    try:
        encoding = getattr(out, "encoding", None) or "utf-8"
        out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        out.flush()
    except BrokenPipeError:
        discard_output()
    except (OSError, ValueError):  # a full disk, or a stream that was closed
        pass


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
